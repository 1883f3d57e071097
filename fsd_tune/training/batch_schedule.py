"""The batches of each optimiser step of a training run; see docs/explanation/method.md, "Training"."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fsd_tune.data.batching import epoch_order
from fsd_tune.errors import FsdTuneError


@dataclass(frozen=True)
class BatchSchedule:
    """The batches of each optimiser step, counted over all epochs.

    Attributes:
        examples: number of training examples.
        batch_size: examples of a batch; the last batch of an epoch can have fewer.
        epochs: number of epochs.
        accumulation: batches of a step.
        seed: of the order of the examples.
        published: take batches as the published code does. An epoch then has only the steps that it has all batches
            for, and the gradients of its remaining batches are added to those of the next epoch's first step.
        lengths: tokens of each example, int64 [N], if batches are grouped by length; None for random batches.
    """

    examples: int
    batch_size: int
    epochs: int
    accumulation: int
    seed: int
    published: bool
    lengths: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)
    _orders: dict[int, list[NDArray[np.int64]]] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.published and self.accumulation > self.batches_per_epoch:
            raise FsdTuneError(
                f"gradient_accumulation is {self.accumulation}, but with optimizer.accumulation: published must be at "
                f"most {self.batches_per_epoch}, the batches of an epoch."
            )

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches of an epoch."""
        return math.ceil(self.examples / self.batch_size)

    @property
    def steps_total(self) -> int:
        """The number of optimiser steps of the run."""
        if self.published:
            return self.batches_per_epoch // self.accumulation * self.epochs
        return math.ceil(self.batches_per_epoch * self.epochs / self.accumulation)

    def batches_of(self, step: int) -> range:
        """Return the indices of the batches of a step.

        Args:
            step: index of the step, from 0.
        """
        if not self.published:
            first = step * self.accumulation
            return range(first, min(first + self.accumulation, self.batches_per_epoch * self.epochs))
        epoch, step_of_epoch = divmod(step, self.batches_per_epoch // self.accumulation)
        first = epoch * self.batches_per_epoch + step_of_epoch * self.accumulation
        carried = self.batches_per_epoch % self.accumulation if epoch > 0 and step_of_epoch == 0 else 0
        return range(first - carried, first + self.accumulation)

    def epochs_after(self, steps: int) -> float:
        """Return the number of epochs whose batches have been used.

        Args:
            steps: the number of steps done.
        """
        return self.batches_of(steps - 1).stop / self.batches_per_epoch if steps > 0 else 0.0

    def rows(self, batch: int) -> NDArray[np.int64]:
        """Return the training rows of a batch.

        Args:
            batch: index of the batch.

        Returns:
            int64 [B].
        """
        epoch, batch_of_epoch = divmod(batch, self.batches_per_epoch)
        if epoch not in self._orders:
            # A published step can use batches of the epoch before.
            for other in [other for other in self._orders if other != epoch - 1]:
                del self._orders[other]
            self._orders[epoch] = epoch_order(self.examples, self.seed, self.batch_size, epoch, self.lengths)
        return self._orders[epoch][batch_of_epoch]
