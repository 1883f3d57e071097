"""Choose the configurations of earlier searches that a new search tries first: a greedy portfolio.

A portfolio is a list of configurations such that each earlier task has a good one among the first few (Feurer et al.,
"Auto-sklearn 2.0", JMLR 2022, section 3.1). What was not run on a task is estimated from that task's trials.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution

# Breaks ties between configurations that no task would gain from: the better mean comes first.
_MEAN_WEIGHT = 1e-3
# Points whose squared distance is not larger, because of rounding, are the same.
_SAME = 1e-10


class EarlierTask:
    """The trials of one earlier search in the coordinates of the new search's space.

    Attributes:
        points: the parameters of each trial, float64 [trials, coordinates]; see `coordinates`.
        regrets: of each trial, from 0 (the search's best) to 1 (its median, or worse), float64 [trials].
    """

    def __init__(self, points: NDArray[np.float64], scores: Sequence[float]) -> None:
        """Normalise the scores of the search, so that searches of any metric can be added up.

        Args:
            points: the parameters of each trial, float64 [trials, coordinates]; at least one trial.
            scores: of each trial; higher is better.
        """
        values = np.asarray(scores, np.float64)
        self.points = points
        below = values.max() - values
        self.regrets = np.clip(below / (np.median(below) or 1.0), 0.0, 1.0)
        apart = _squared_distances(points, points)
        np.fill_diagonal(apart, np.inf)
        nearest = np.sqrt(apart.min(axis=1))
        # With one trial, or with copies of one, there is no distance to learn from.
        known = nearest[np.isfinite(nearest) & (nearest**2 > _SAME)]
        self._width = float(np.median(known)) if len(known) else 0.1

    def estimate(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the regret that points would have had: that of their trial, else a mean of the trials around.

        Args:
            points: float64 [points, coordinates].

        Returns:
            From 0 to 1, float64 [points].
        """
        apart = _squared_distances(points, self.points)
        nearest = apart.argmin(axis=1)
        # Relative to the nearest trial, so that a point far from all of them still has weights.
        weights = np.exp(-(apart - apart.min(axis=1, keepdims=True)) / (2 * self._width**2))
        means = weights @ self.regrets / weights.sum(axis=1)
        return np.asarray(np.where(apart.min(axis=1) <= _SAME, self.regrets[nearest], means))


def choose(tasks: Sequence[EarlierTask], size: int) -> list[tuple[int, int]]:
    """Return the trials of a portfolio, the most useful first.

    Each choice most lowers the sum over the tasks of the regret of the task's best configuration chosen so far.

    Args:
        tasks: the earlier searches.
        size: the number of trials to choose; fewer are returned if there are fewer different ones.

    Returns:
        For each trial the index of its search and its index there.
    """
    if not tasks:
        return []
    candidates = [(number, index) for number, task in enumerate(tasks) for index in range(len(task.points))]
    points = np.concatenate([task.points for task in tasks])
    regrets = np.stack([task.estimate(points) for task in tasks])
    mean = _MEAN_WEIGHT * regrets.mean(axis=0)
    reached = np.ones(len(tasks))
    open_ = np.ones(len(candidates), dtype=bool)
    chosen: list[tuple[int, int]] = []
    while open_.any() and len(chosen) < size:
        totals = np.minimum(reached[:, None], regrets).sum(axis=0) + mean
        best = int(np.where(open_, totals, np.inf).argmin())
        chosen.append(candidates[best])
        reached = np.minimum(reached, regrets[:, best])
        open_ &= _squared_distances(points, points[best : best + 1])[:, 0] > _SAME
    return chosen


def coordinates(
    distributions: Mapping[str, BaseDistribution], configurations: Sequence[Mapping[str, Any]]
) -> NDArray[np.float64]:
    """Return configurations as points in which every parameter has the same weight.

    A range has one coordinate from 0 to 1, on its own scale. A choice has one coordinate for each value, so that two
    values are as far apart as the ends of a range; so has a parameter that some configurations lack.

    Args:
        distributions: of all searched parameters.
        configurations: values by parameter; a conditional parameter can be missing.

    Returns:
        float64 [configurations, coordinates].
    """
    columns: list[list[float]] = []
    for name, distribution in distributions.items():
        values = [configuration.get(name) for configuration in configurations]
        if isinstance(distribution, CategoricalDistribution):
            for choice in dict.fromkeys((*distribution.choices, None)):
                columns.append([math.sqrt(0.5) * (value == choice) for value in values])
        else:
            columns.append([0.0 if value is None else _position(distribution, float(value)) for value in values])
            columns.append([float(value is None) for value in values])
    return np.asarray(columns, np.float64).reshape(len(columns), len(configurations)).T


def _position(distribution: Any, value: float) -> float:
    """Return the position of a value in a range, from 0 to 1."""
    low, high = float(distribution.low), float(distribution.high)
    if low == high:
        return 0.0
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _squared_distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared distances of points [n, coordinates] and [m, coordinates] as [n, m]."""
    # Not through the differences, which would be an array of n x m x coordinates.
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.asarray(squares.clip(min=0.0), np.float64)
