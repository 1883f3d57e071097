"""The teacher targets of a training step: from stored arrays, or from a live teacher behind the same interface.

A live teacher serves tasks whose outputs would exceed the disk limit; a test checks that both give the same losses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.cka import CentredGram, centred_gram
from fsd_tune.data.ragged import RaggedTensors
from fsd_tune.device import autocast, send
from fsd_tune.losses import GlobalTargets, distances_and_cosines, flatten
from fsd_tune.memory.teacher_memory import TeacherMemory
from fsd_tune.memory.teacher_outputs import TeacherOutputs
from fsd_tune.models.packing import classify


@dataclass(frozen=True)
class TeacherBatch:
    """The teacher's part of one training step.

    Attributes:
        logits: [B, C] in the task's label order.
        features: hidden states of each paired layer, [B, n, H], zero at padded positions unless padding is published.
        targets: the teacher's side of L_G, or None for a method without a memory.
    """

    logits: Tensor
    features: dict[int, Tensor]
    targets: GlobalTargets | None


class TeacherTargets(Protocol):
    """A source of the teacher's part of any batch."""

    def batch(self, rows: NDArray[np.int64], inputs: Mapping[str, Tensor]) -> TeacherBatch:
        """Return the teacher's part of one batch.

        Args:
            rows: training examples, int64 [B].
            inputs: their model inputs, such as `input_ids` and `attention_mask`, [B, n].

        Returns:
            Logits, features and targets of these rows, on the device of the run.
        """
        ...


@dataclass(frozen=True)
class CachedTeacher:
    """Teacher targets from arrays that were computed once; no teacher is loaded.

    Attributes:
        outputs: the teacher's logits and features.
        memory: centroids and targets, or None for methods without one.
        layers: the teacher layers of the pairs; empty for methods without features.
        device: where batches go.
    """

    outputs: TeacherOutputs
    memory: TeacherMemory | None
    layers: Sequence[int]
    device: torch.device

    @cached_property
    def _memory_gram(self) -> CentredGram:
        assert self.memory is not None
        return centred_gram(torch.tensor(self.memory.centroids).to(self.device))

    def batch(self, rows: NDArray[np.int64], inputs: Mapping[str, Tensor]) -> TeacherBatch:
        """Return the teacher's part of one batch; see `TeacherTargets.batch`."""
        width = inputs["input_ids"].shape[1]
        features = {layer: send(self.outputs.features(layer, rows, width), self.device) for layer in self.layers}
        targets = None
        if self.memory is not None:
            distances, cosines = self.memory.distances[rows], self.memory.cosines[rows]
            targets = GlobalTargets(
                send(distances, self.device),
                send(cosines, self.device),
                self._memory_gram,
            )
        return TeacherBatch(send(self.outputs.logits[rows], self.device), features, targets)


class ResidentTeacher:
    """Teacher targets from arrays that were copied to the GPU once; equal to those of `CachedTeacher`."""

    def __init__(
        self, outputs: TeacherOutputs, memory: TeacherMemory | None, layers: Sequence[int], device: torch.device
    ) -> None:
        """Copy the arrays to the device.

        Args:
            outputs: the teacher's logits and features.
            memory: centroids and targets, or None if no method uses one.
            layers: the teacher layers whose features are used.
            device: where they are kept.
        """
        self._device = device
        self._logits = torch.tensor(outputs.logits).to(device)
        shards = {str(layer): (outputs.shards[layer], 0) for layer in layers}
        self._features = RaggedTensors(shards, outputs.offsets, device)
        self._targets: GlobalTargets | None = None
        if memory is not None:
            self._targets = GlobalTargets(
                torch.tensor(memory.distances).to(device),
                torch.tensor(memory.cosines).to(device),
                centred_gram(torch.tensor(memory.centroids).to(device)),
            )

    def batch(self, rows: NDArray[np.int64], inputs: Mapping[str, Tensor]) -> TeacherBatch:
        """Return the teacher's part of one batch; see `TeacherTargets.batch`."""
        features = self._features.gather(rows, inputs["input_ids"].shape[1])
        chosen = send(rows, self._device)
        targets = self._targets
        if targets is not None:
            targets = GlobalTargets(targets.distances[chosen], targets.cosines[chosen], targets.memory_gram)
        return TeacherBatch(self._logits[chosen], {int(layer): states for layer, states in features.items()}, targets)


@dataclass(frozen=True)
class LiveTeacher:
    """A teacher that runs in every step.

    Attributes:
        model: the teacher.
        order: index of the teacher's logit for each label of the task.
        memory: centroids, or None for methods without one.
        layers: the teacher layers of the pairs.
        memory_layer: the layer whose features the memory stands for.
        padding: masked or published.
        precision: of the forward pass.
        device: where it runs.
    """

    model: Any
    order: Sequence[int]
    memory: TeacherMemory | None
    layers: Sequence[int]
    memory_layer: int
    padding: str
    precision: str
    device: torch.device

    @cached_property
    def _centroids(self) -> tuple[Tensor, CentredGram]:
        assert self.memory is not None
        centroids = torch.tensor(self.memory.centroids).to(self.device)
        return centroids, centred_gram(centroids)

    @cached_property
    def _order(self) -> Tensor:
        # A list as index would be copied to the device in every step, for which the host waits.
        return torch.tensor(self.order).to(self.device)

    def batch(self, rows: NDArray[np.int64], inputs: Mapping[str, Tensor]) -> TeacherBatch:
        """Return the teacher's part of one batch; see `TeacherTargets.batch`."""
        self.model.eval()
        inputs = {name: value for name, value in inputs.items() if name != "labels"}
        with torch.no_grad(), autocast(self.precision, self.device):
            out = classify(self.model, inputs, hidden_states=True, packed=self.padding == "masked")
        mask = inputs["attention_mask"] if self.padding == "masked" else None
        targets = None
        if self.memory is not None:
            centroids, gram = self._centroids
            feature = flatten(out.hidden_states[self.memory_layer], mask)
            targets = GlobalTargets(*distances_and_cosines(feature, centroids), gram)
        features = {layer: out.hidden_states[layer] for layer in self.layers}
        return TeacherBatch(out.logits.float().index_select(1, self._order), features, targets)
