"""The loss terms of one batch (docs/explanation/method.md, "Loss terms")."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune import losses
from fsd_tune.device import autocast
from fsd_tune.memory.targets import TeacherBatch
from fsd_tune.models.inputs import inputs_for
from fsd_tune.settings.methods import TERMS
from fsd_tune.training.setup import TrainingSetup

# The terms that compare one layer of the teacher with one of the student: name, and loss(teacher, student, mask) of
# hidden states [B, n, H]. Each is the mean over the layer pairs.
PAIRED: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    name: getattr(losses, term.loss) for name, term in TERMS.items() if term.loss
}
# Terms that compute all layer pairs in one call. On a GPU, five pairs then need a fifth of the kernel launches. On a
# CPU, where larger arrays leave the cache, the pairs are computed one after the other.
STACKED = frozenset({"intra", "local"})


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
        out = model(**inputs_for(model, inputs), output_hidden_states=structured)
    terms = {"task": losses.task_loss(out.logits, labels)}
    if setup.targets is None:
        assert {*names} == {"task"}
        return terms
    teacher = setup.targets.batch(rows, inputs)
    terms["kd"] = losses.kd_loss(teacher.logits, out.logits, setup.config["temperature"])
    mask = None if setup.published else inputs["attention_mask"]
    terms |= _paired_terms(setup, names, teacher.features, out.hidden_states, mask)
    if "global" in names:
        assert memory is not None
        terms |= _global_terms(setup, teacher, losses.flatten(out.hidden_states[setup.memory_layer], mask), memory)
    return terms


def _computes_pairs_together(device: torch.device, pairs: Sequence[tuple[int, int]]) -> bool:
    return device.type == "cuda" and len(pairs) > 1


def _paired_terms(
    setup: TrainingSetup,
    names: AbstractSet[str],
    teacher: Mapping[int, Tensor],
    student: Sequence[Tensor],
    mask: Tensor | None,
) -> dict[str, Tensor]:
    """Return the terms of the layer pairs, each the mean over the pairs.

    Args:
        setup: the training run.
        names: the terms that the method uses.
        teacher: hidden states [B, n, H] by layer.
        student: hidden states [B, n, H'] of all layers.
        mask: [B, n], or None for published padding.
    """
    # In the order of PAIRED, because gradients are added in this order, and that of a set differs between processes.
    chosen = [name for name in PAIRED if name in names]
    together = STACKED if _computes_pairs_together(setup.device, setup.pairs) else frozenset()
    terms: dict[str, Tensor] = {}
    if together & names:
        teachers = torch.stack([teacher[t] for t, _ in setup.pairs])
        students = torch.stack([student[s] for _, s in setup.pairs])
    for name in chosen:
        if name in together:
            values = PAIRED[name](teachers, students, mask)
        else:
            values = torch.stack([PAIRED[name](teacher[t], student[s], mask) for t, s in setup.pairs])
        terms[name] = values.mean()
    return terms


def _global_terms(setup: TrainingSetup, teacher: TeacherBatch, feature: Tensor, memory: Tensor) -> dict[str, Tensor]:
    """Return L_G and its parts for the student's flattened features [B, D'] and its memory [K, D']."""
    assert teacher.targets is not None
    parts = losses.global_terms(teacher.targets, feature, memory, setup.distance)
    total = losses.global_sum(parts, setup.config["gamma_m"])
    return {"global": total} | {f"global/{name}": value for name, value in parts.items()}
