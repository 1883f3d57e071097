"""The mean loss terms of the steps between two evaluations of a run."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class TermMeans:
    """Sums of the loss terms over the steps since the last evaluation. They stay on the device that trains.

    Attributes:
        last: the means at the last evaluation with steps before it, by term; `total` is the loss.
    """

    def __init__(self) -> None:
        self.last: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add the terms of a step.

        Args:
            terms: detached scalars by name.
        """
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1

    def wait(self) -> None:
        """Wait for the steps that were added: a GPU computes them asynchronously."""
        if self._sums:
            float(next(iter(self._sums.values())))

    def end_interval(self) -> bool:
        """Set `last` to the means of the steps that were added, and begin anew.

        Returns:
            False if no step was added, so that `last` stays what it was.
        """
        if not self._steps:
            return False
        self.last = {name: float(value) / self._steps for name, value in self._sums.items()}
        self._sums, self._steps = {}, 0
        return True

    def reported(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return `last` by the names of a report: loss, loss/<term> and weighted/<term>.

        Args:
            weights: the weight of each term in the loss.
        """
        named = {"loss": self.last["total"]} if "total" in self.last else {}
        for name, value in self.last.items():
            if name != "total":
                named[f"loss/{name}"] = value
            if name in weights:
                named[f"weighted/{name}"] = value * weights[name]
        return named

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint stores."""
        return {
            "sums": {name: value.cpu() for name, value in self._sums.items()},
            "summed": self._steps,
            "means": self.last,
        }

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue from a checkpoint.

        Args:
            state: the checkpoint's state. Those of earlier versions were written at evaluations only and have no sums;
                older ones have no means.
            device: the device that trains.
        """
        self._sums = {name: value.to(device) for name, value in state.get("sums", {}).items()}
        self._steps = state.get("summed", 0)
        self.last = state.get("means", {})
