"""Searches that pause trials at the rungs of ASHA and continue the best, instead of stopping the others: tried.

`Paused` is ASHA as published (Li et al., 2018, arXiv 1810.05934). `Progressive` is PASHA (Bohdal et al., 2022, arXiv
2207.06940), which opens a higher rung only when the two highest ones rank their trials differently.
"""

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.strategies import FACTOR, GRACE, place_of, settings_of, space_of
from benchmarks.tables import Table
from fsd_tune.search.asha import rungs
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.storage.layout import TrialState


class Paused:
    """This project's sampler with rungs at which each trial pauses. A paused trial is to the sampler a stopped one."""

    def __init__(self, table: Table, seed: int, sampler: str = "tpe") -> None:
        """Create the search.

        Args:
            table: the curves.
            seed: of the search.
            sampler: a value of `search.sampler`.
        """
        defaults = np.random.default_rng([seed, 1]).random(table.points.shape[1])
        self._space = space_of(np.asarray(defaults))
        self._suggester = Suggester(settings_of(self._space, seed, {"sampler": sampler}))
        self._rungs = rungs(GRACE, FACTOR, table.reports)
        self._trials: dict[int, TrialRecord] = {}

    def ask(self) -> tuple[int, NDArray[np.float64]]:
        """Return a paused trial that is among the best third at its rung, else a new one."""
        for rung in reversed(self._open_rungs()):
            ranked = self._ranked(rung)
            for number in ranked[: len(ranked) // FACTOR]:
                trial = self._trials[number]
                if trial.state == TrialState.STOPPED and max(trial.values) == rung:
                    trial.state = TrialState.RUNNING
                    return number, place_of(self._space, trial.params)
        number = len(self._trials)
        suggested = self._suggester.suggest(number, self._trials)
        assert suggested is not None
        self._trials[number] = suggested
        return number, place_of(self._space, suggested.params)

    def report(self, key: Any, report: int, value: float, last: bool) -> bool:
        """Record a report, and return whether the trial pauses or has diverged."""
        trial = self._trials[key]
        trial.values[report] = value
        if math.isnan(value):
            trial.state = TrialState.FAILED
        elif last:
            trial.state = TrialState.FINISHED
        elif report in self._rungs:
            trial.state = TrialState.STOPPED
        return trial.state in (TrialState.FAILED, TrialState.STOPPED)

    def _open_rungs(self) -> list[int]:
        """Return the rungs whose trials may continue."""
        return self._rungs

    def _ranked(self, rung: int) -> list[int]:
        """Return the trials with a value at a rung, the best first."""
        there = {number: trial.values[rung] for number, trial in self._trials.items() if rung in trial.values}
        finite = [number for number, value in there.items() if math.isfinite(value)]
        return sorted(finite, key=lambda number: -there[number])


class Progressive(Paused):
    """Trials go beyond the second rung only once the two highest open rungs disagree on the order of their trials."""

    _open = 1

    def _open_rungs(self) -> list[int]:
        while self._open < len(self._rungs) and not self._agree(*self._rungs[self._open - 1 : self._open + 1]):
            self._open += 1
        return self._rungs[: self._open]

    def _agree(self, lower: int, upper: int) -> bool:
        """Return whether each trial of the upper rung has nearly the place that its value at the lower one gives it."""
        above = self._ranked(upper)
        before = {number: self._trials[number].values[lower] for number in above}
        below = sorted(above, key=lambda number: -before[number])
        noise = self._noise(above, upper)
        return all(abs(before[a] - before[b]) <= noise for a, b in zip(above, below, strict=True))

    def _noise(self, numbers: list[int], rung: int) -> float:
        """Return the 90th percentile of the distances at a rung of trials whose curves cross more than once."""
        apart = []
        for a, b in itertools.combinations(numbers, 2):
            difference = np.asarray(self._trials[a].series(rung)) - self._trials[b].series(rung)
            if (np.diff(np.sign(difference)) != 0).sum() > 1:
                apart.append(abs(difference[-1]))
        return float(np.percentile(apart, 90)) if apart else 0.0
