"""The parts of a training run beside the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.data.batching import TokenizedSplit, collate
from fsd_tune.data.ragged import ResidentSplit
from fsd_tune.data.splits import Task
from fsd_tune.memory.targets import TeacherTargets
from fsd_tune.settings.schema import Optimizer


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
        optimizer: how the steps of the optimiser are made.
        resident: `train` on that device; None if batches are made on the host.
        batching: `random` or `grouped` by length.
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
    optimizer: Optimizer = field(default_factory=Optimizer)
    resident: ResidentSplit | None = None
    batching: str = "random"

    @property
    def pads_as_published(self) -> bool:
        """True if batches are padded to the maximum length, and structures include the padding."""
        return self.padding == "published"

    def batch(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return a training batch as a model's inputs and `labels`, see `batching.collate`.

        Args:
            rows: int64 [B], indices of training examples.
        """
        pad_to = self.train.max_length if self.pads_as_published else None
        if self.resident is not None:
            return self.resident.collate(rows, pad_to)
        return collate(self.train, rows, self.device, pad_to)
