"""The optimiser of a training run: AdamW, its schedule, gradient clipping and the seed.

See docs/explanation/method.md, "Training".
"""

import math
from typing import Any

import torch
from torch import Tensor

_MAX_NORM = 1.0
_EPSILON = 1e-8


def build_optimizer(model: torch.nn.Module, memory: Tensor | None, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW that decays neither biases nor norm layers nor the student memory.

    Args:
        model: the model to train; parameters without gradient are left out.
        memory: the trainable student memory, float32 [K, D'], a parameter group of its own; None without one.
        weight_decay: of all other parameters.

    Returns:
        The optimiser. Its learning rate is 0 until `set_step` is called, which each step does.
    """
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    norms = {
        f"{name}.{parameter_name}" if name else parameter_name
        for name, module in model.named_modules()
        if type(module).__name__.endswith("Norm")  # Model families have norm classes of their own.
        for parameter_name, _ in module.named_parameters(recurse=False)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if name.endswith("bias") or name in norms else decayed).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if memory is not None:
        groups.append({"params": [memory], "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def learning_rate_at(step: int, steps_total: int, peak: float, warmup_ratio: float) -> float:
    """Return the learning rate of a step: linear warm-up, then linear decay to zero.

    Args:
        step: index of the step, from 0.
        steps_total: optimiser steps of the whole run.
        peak: learning rate at the end of the warm-up.
        warmup_ratio: share of the steps that warm up.
    """
    warmup = math.ceil(warmup_ratio * steps_total)
    if step < warmup:
        return float(peak * (step + 1) / warmup)
    return float(peak * (steps_total - step) / max(1, steps_total - warmup))


def set_step(optimizer: torch.optim.Optimizer, step: int, learning_rate: float, published: bool) -> None:
    """Give every parameter group the learning rate and the epsilon of the next step.

    Args:
        optimizer: an AdamW, changed in place.
        step: index of the step, from 0.
        learning_rate: of the step.
        published: add epsilon before the bias correction, as the AdamW of transformers 2.6.0 does, with which the
            published code trains. torch adds it after the correction of the second moment, so that there it is
            1e-8 / sqrt(1 - beta_2^t) in step t.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        group["eps"] = _EPSILON / math.sqrt(1 - group["betas"][1] ** (step + 1)) if published else _EPSILON


def clip_gradients(model: torch.nn.Module, memory: Tensor | None, together: bool) -> None:
    """Clip the gradient norm at 1.

    Args:
        model: its gradients are clipped in place.
        memory: the student memory, or None.
        together: clip by one norm of model and memory, as published. Otherwise each has its own norm, so that the
            student's step does not depend on the size of the memory.
    """
    weights: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if together and memory is not None:
        weights.append(memory)
    torch.nn.utils.clip_grad_norm_(weights, _MAX_NORM)
    if not together and memory is not None and memory.grad is not None:
        # The norm of a single row; a fifth of the operations that the function for many tensors launches.
        memory.grad.view(1, -1).renorm_(p=2, dim=0, maxnorm=_MAX_NORM)


def seed_torch(seed: int) -> None:
    """Seed torch's random numbers, which dropout uses.

    Args:
        seed: a whole number that torch accepts, at least 0.
    """
    torch.manual_seed(seed)
