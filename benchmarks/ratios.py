"""Ratios of two searches' regrets over tables, with intervals that are clustered by table and recorded seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# Added to each mean regret, in the table's unit, so that a table where both always find the best counts as equal.
FLOOR = 0.05
_DRAWS = 2000


@dataclass(frozen=True)
class Searches:
    """The paired searches of one table.

    Attributes:
        regrets: by strategy, float [searches, points].
        seeds: the recorded seed that each search saw; for a table of one seed each search has its own noise.
    """

    regrets: Mapping[str, NDArray[np.float64]]
    seeds: NDArray[np.int64]

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Each search's weight in the mean and in the means of the draws, float [1 + draws, searches]."""
        rng, count = np.random.default_rng(0), len(self.seeds)
        counts = [np.bincount(_draw(self.seeds, rng), minlength=count) for _ in range(_DRAWS)]
        rows = np.asarray([np.ones(count), *counts])
        return np.asarray(rows / rows.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Ratio:
    """A ratio with its 95% interval."""

    value: float
    low: float
    high: float

    def rounded(self) -> dict[str, float]:
        return {"value": round(self.value, 3), "low": round(self.low, 3), "high": round(self.high, 3)}

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(tables: Sequence[Searches], ours: str, other: str, point: int) -> Ratio:
    """Return the geometric mean over tables of our mean regret over another's.

    The interval is a bootstrap's: tables are drawn, in each its recorded seeds, and of each seed its searches, which
    stay paired.

    Args:
        tables: the searches by table.
        ours: the first strategy.
        other: the second strategy.
        point: the index of the point at which regrets are read.
    """
    logs = np.asarray([_log_ratios(t, ours, other, point) for t in tables])
    rng = np.random.default_rng(0)
    # Each table's draws are made once, and then drawn with the table.
    drawn = rng.integers(len(tables), size=(_DRAWS, len(tables)))
    which = rng.integers(1, _DRAWS + 1, size=(_DRAWS, len(tables)))
    low, high = np.percentile(np.exp(logs[drawn, which].mean(axis=1)), [2.5, 97.5])
    return Ratio(float(np.exp(logs[:, 0].mean())), float(low), float(high))


def _log_ratios(table: Searches, ours: str, other: str, point: int) -> NDArray[np.float64]:
    """Return the logarithm of the ratio of a table, and of its draws, float [1 + draws]."""
    mine, theirs = (table.weights @ table.regrets[name][:, point] + FLOOR for name in (ours, other))
    return np.asarray(np.log(mine / theirs))


def _draw(seeds: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a bootstrap's searches: of drawn seeds, or of all searches if there is one seed."""
    known = np.unique(seeds)
    if len(known) == 1:
        return rng.integers(len(seeds), size=len(seeds))
    chosen = [np.flatnonzero(seeds == seed) for seed in rng.choice(known, len(known))]
    return np.concatenate([rng.choice(members, len(members)) for members in chosen])
