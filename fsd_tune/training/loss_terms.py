"""The loss terms of one batch (docs/explanation/method.md, "Loss terms")."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune import losses
from fsd_tune.device import autocast
from fsd_tune.models.packing import classify
from fsd_tune.settings.methods import TERMS
from fsd_tune.training.setup import TrainingSetup

# The terms that compare one layer of the teacher with one of the student: name, and loss(teacher, student, mask) of
# hidden states [B, n, H]. Each is the mean over the layer pairs.
PAIRED: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    name: getattr(losses, term.loss) for name, term in TERMS.items() if term.loss
}


def loss_terms(
    setup: TrainingSetup, model: Any, memory: Tensor | None, names: AbstractSet[str], rows: NDArray[np.int64]
) -> dict[str, Tensor]:
    """Return the unweighted loss terms of one batch, with gradient.

    Args:
        setup: the training run.
        model: the student, a sequence classifier.
        memory: the student memory, float32 [K, D']; None for methods without L_G.
        names: the terms that the method uses, such as `task`, `kd`, `intra` or `global`.
        rows: training examples of the batch, int64 [B].

    Returns:
        Scalars by name. The parts of L_G are `global/<part>`, beside their sum `global`.
    """
    inputs = setup.batch(rows)
    labels = inputs.pop("labels")
    structured = bool({*names} & {*PAIRED, "global"})
    with autocast(setup.precision, setup.device):
        out = classify(model, inputs, structured, packed=not setup.pads_as_published)
    terms = {"task": losses.task_loss(out.logits, labels)}
    if setup.targets is None:
        assert {*names} == {"task"}
        return terms
    teacher = setup.targets.batch(rows, inputs)
    terms["kd"] = losses.kd_loss(teacher.logits, out.logits, setup.config["temperature"])
    mask = None if setup.pads_as_published else inputs["attention_mask"]
    pairs = [(teacher.features[t], out.hidden_states[s]) for t, s in setup.pairs] if names & PAIRED.keys() else []
    stacked = _stacked(setup, pairs) if any(TERMS[name].stacked for name in names) else []
    comparisons = _comparisons(names, stacked, mask)
    parts: dict[str, Tensor] = {}
    if "global" in names:
        assert memory is not None and teacher.targets is not None
        feature = losses.flatten(out.hidden_states[setup.memory_layer], mask)
        memories, parts = losses.global_parts(teacher.targets, feature, memory, setup.distance)
        comparisons["memory"] = [memories]
    aligned = losses.alignment_losses(comparisons)
    if "global" in names:
        parts = {"memory": aligned.pop("memory"), **parts}
    terms |= aligned
    # In the order of PAIRED, because gradients are added in this order, and that of a set differs between processes.
    for name, loss in PAIRED.items():
        if name in names and name not in losses.COMPARED:
            values = [loss(t, s, mask) for t, s in (stacked if TERMS[name].stacked else pairs)]
            terms[name] = torch.stack(values).mean()
    if "global" in names:
        terms["global"] = losses.global_sum(parts, setup.config["gamma_m"])
        terms |= {f"global/{name}": value for name, value in parts.items()}
    return terms


def _computes_pairs_together(device: torch.device, pairs: Sequence[tuple[int, int]]) -> bool:
    return device.type == "cuda" and len(pairs) > 1


def _stacked(setup: TrainingSetup, pairs: Sequence[tuple[Tensor, Tensor]]) -> Sequence[tuple[Tensor, Tensor]]:
    """Return the pairs of hidden states [B, n, H] as one pair of [P, B, n, H] on a GPU.

    Five pairs then need a fifth of the kernel launches. On a CPU, where larger arrays leave the cache, the pairs stay
    apart.
    """
    if not _computes_pairs_together(setup.device, setup.pairs):
        return pairs
    teachers, students = zip(*pairs, strict=True)
    return [(torch.stack(teachers), torch.stack(students))]


def _comparisons(
    names: AbstractSet[str], pairs: Sequence[tuple[Tensor, Tensor]], mask: Tensor | None
) -> dict[str, list[losses.Comparison]]:
    """Return the comparisons by CKA of hidden states.

    Args:
        names: the terms that the method uses.
        pairs: of teacher and student, as `_stacked` returns them.
        mask: [B, n], or None for published padding.
    """
    chosen = {name: compare for name, compare in losses.COMPARED.items() if name in names}
    if not chosen:
        return {}
    features = [losses.Features.of(*pair, mask) for pair in pairs]
    return {name: [compare(pair) for pair in features] for name, compare in chosen.items()}
