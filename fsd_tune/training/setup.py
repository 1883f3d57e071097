"""The parts of a training run beside the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fsd_tune.data.batching import TokenizedSplit
from fsd_tune.data.splits import Task
from fsd_tune.memory.targets import TeacherTargets


@dataclass(frozen=True)
class TrainingSetup:
    """The parts of a training run beside the model.

    Attributes:
        task: gives labels and metrics.
        train: tokenised training split.
        dev: tokenised split that evaluations use.
        config: flat: `method`, its hyperparameters and the optimisation ones.
        targets: gives the teacher's part of each batch; None for `ce`.
        pairs: layer pairs (t, s) of the terms that compare hidden states.
        memory_layer: index of the student's `hidden_states` that L_G uses.
        distance: of L_G, `raw` or `relative`.
        padding: `masked` or `published`.
        reports: number of evaluations, at equal fractions of the steps.
        seed: of batch order and dropout.
        precision: `bf16` or `float32`.
        device: the device that trains the model.
    """

    task: Task
    train: TokenizedSplit
    dev: TokenizedSplit
    config: Mapping[str, Any]
    targets: TeacherTargets | None
    pairs: tuple[tuple[int, int], ...]
    memory_layer: int
    distance: str
    padding: str
    reports: int
    seed: int
    precision: str
    device: torch.device

    @property
    def published(self) -> bool:
        """True if steps are made as in the published code: padding, clipping, epsilon and accumulation."""
        return self.padding == "published"
