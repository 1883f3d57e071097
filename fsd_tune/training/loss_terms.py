"""The loss terms of one batch (docs/explanation/method.md, "Loss terms")."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune import losses
from fsd_tune.data.batching import collate
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


def loss_terms(
    setup: TrainingSetup, model: Any, memory: Tensor | None, names: Collection[str], rows: NDArray[np.int64]
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
    inputs = collate(setup.train, rows, setup.device, pad_to=setup.train.max_length if setup.published else None)
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
    for name, loss in PAIRED.items():
        if name in names:
            values = [loss(teacher.features[t], out.hidden_states[s], mask) for t, s in setup.pairs]
            terms[name] = torch.stack(values).mean()
    if "global" in names:
        assert memory is not None
        terms |= _global_terms(setup, teacher, losses.flatten(out.hidden_states[setup.memory_layer], mask), memory)
    return terms


def _global_terms(setup: TrainingSetup, teacher: TeacherBatch, feature: Tensor, memory: Tensor) -> dict[str, Tensor]:
    """Return L_G and its parts for the student's flattened features [B, D'] and its memory [K, D']."""
    assert teacher.targets is not None
    parts = losses.global_terms(teacher.targets, feature, memory, setup.distance)
    total = losses.global_sum(parts, setup.config["gamma_m"])
    return {"global": total} | {f"global/{name}": value for name, value in parts.items()}
