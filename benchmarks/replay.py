"""Searches replayed on recorded learning curves: a report costs its share of a training's time, nothing is trained."""

import heapq
import itertools
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.recommendations import Rule, Trial
from benchmarks.tables import Table

WORKERS = 4
# The budget of a search in mean trainings, and at how many equal parts of it its choice is judged.
BUDGET, POINTS = 20.0, 20


class Strategy(Protocol):
    """A search as the simulation drives it."""

    def ask(self) -> tuple[Any, NDArray[np.float64]]:
        """Return a key and a point of the unit cube. With the key of a trial that was stopped, that trial continues."""

    def report(self, key: Any, report: int, value: float, last: bool) -> bool:
        """Take a trial's report; `last` says that it is its last by itself. Return whether the trial is to stop."""


def replay(table: Table, strategy: Strategy, search: int, rules: Mapping[str, Rule]) -> dict[str, list[float]]:
    """Run one search with `WORKERS` workers.

    Args:
        table: the curves.
        strategy: the search.
        search: its index, which decides what it sees.
        rules: how a search chooses what it would hand out.

    Returns:
        By rule, the regret of the choice after each of `POINTS` equal parts of the budget, in the table's unit. Before
        any report a search hands out a configuration of median worth.
    """
    seen, durations, reports = table.seen(search), table.durations, table.reports
    best, unit, nothing = seen.worth.max(), table.unit, float(np.median(seen.worth))
    trials: list[Trial] = []
    order = itertools.count()
    running: list[tuple[float, int, Any, int]] = []
    numbers: dict[Any, int] = {}

    def start(now: float) -> None:
        key, point = strategy.ask()
        if key not in numbers:
            numbers[key] = len(trials)
            # No training repeats another. Otherwise suggestions near a good point would repeat its training.
            trials.append(Trial(table.nearest(point, {trial.row for trial in trials})))
        number = numbers[key]
        heapq.heappush(running, (now + durations[trials[number].row] / reports, next(order), key, number))

    for _ in range(WORKERS):
        start(0.0)
    regrets: dict[str, list[float]] = {name: [] for name in rules}
    ends = [BUDGET / WORKERS * (part + 1) / POINTS for part in range(POINTS)]
    while ends:
        if running[0][0] > ends[0] + 1e-12:
            ends.pop(0)
            for name, rule in rules.items():
                row = rule(trials)
                regrets[name].append(float((best - (nothing if row is None else seen.worth[row])) / unit))
            continue
        now, _, key, number = heapq.heappop(running)
        trial = trials[number]
        value = float(seen.curves[trial.row, len(trial.values)])
        trial.values.append(value)
        trial.finished = len(trial.values) == reports and math.isfinite(value)
        stopped = strategy.report(key, len(trial.values), value, len(trial.values) == reports)
        if stopped or len(trial.values) == reports:
            start(now)
        else:
            heapq.heappush(running, (now + durations[trial.row] / reports, next(order), key, number))
    return regrets
