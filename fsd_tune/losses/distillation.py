"""The task loss and the soft targets of knowledge distillation (L_KD).

Formulas: docs/explanation/method.md, "Loss terms". Shapes: B examples, C classes. Inputs in half precision are
computed in float32.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fsd_tune.cka import widen


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy with the labels, or the MSE for regression.

    Args:
        logits: [B, C]; C = 1 means regression.
        labels: int64 [B], or float [B] for regression.

    Returns:
        A scalar.
    """
    logits = widen(logits)
    if logits.shape[-1] == 1:
        return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


def kd_loss(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over classes, averaged over the batch.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531. For regression (C = 1) it is
    the MSE between the logits and the temperature has no effect, because a softmax over one logit is constant.

    Args:
        teacher_logits: [B, C], any floating dtype; without gradient.
        student_logits: [B, C], any floating dtype.
        temperature: T, above 0.

    Returns:
        A scalar, float32 (float64 if the student's logits are).

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[2.0, 0.0]])
        >>> round(kd_loss(teacher, torch.tensor([[0.0, 0.0]]), temperature=2.0).item(), 4)
        0.4438
        >>> kd_loss(teacher, teacher, temperature=2.0).item()
        0.0
    """
    teacher, student = widen(teacher_logits), widen(student_logits)
    if student.shape[-1] == 1:
        return F.mse_loss(student, teacher)
    loss: Tensor = _SoftTargets.apply(teacher, student, temperature)  # type: ignore[no-untyped-call]
    return loss


class _SoftTargets(torch.autograd.Function):
    """An autograd function for T^2 KL of logits [B, C], differentiable once and by the student's logits alone.

    It launches half of the operations of autograd's own way.
    """

    @staticmethod
    def forward(ctx: Any, teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
        logs = F.log_softmax(torch.stack((teacher, student)) / temperature, -1)
        probabilities = logs.exp()
        ctx.save_for_backward(probabilities)
        ctx.temperature = temperature
        divergence = torch.dot(probabilities[0].flatten(), (logs[0] - logs[1]).flatten())
        return divergence * (temperature**2 / len(student))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        (probabilities,) = ctx.saved_tensors
        teacher, student = probabilities
        return None, (student - teacher) * (gradient * (ctx.temperature / len(student))), None
