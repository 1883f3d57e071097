"""What else a sampler could be told, from the literature: tried on the recorded curves by `make bench-search`."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import optuna

from fsd_tune.search.beliefs import Belief
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.settings.judging import judge


class RungWise(Suggester):
    """As BOHB (Falkner et al., 2018) does: only the latest report that enough trials have reached is modelled."""

    def beliefs(self, trials: Mapping[int, TrialRecord]) -> Iterator[Belief]:
        reporting = [trial for _, trial in sorted(trials.items()) if trial.values]
        enough = len(self.distributions) + 2
        reached = [report for trial in reporting for report in trial.values]
        rungs = [report for report in set(reached) if reached.count(report) >= enough]
        if not rungs:
            yield from super().beliefs(trials)
            return
        rung = max(rungs)
        for trial in reporting:
            if rung in trial.values and math.isfinite(trial.values[rung]):
                yield Belief(trial, trial.values[rung], "finished")


class Regressed(Suggester):
    """A learning-curve model: the end is a line in the value at the last report, fitted to the finished trials."""

    def beliefs(self, trials: Mapping[int, TrialRecord]) -> Iterator[Belief]:
        judge_by = self.settings.search.judge_by
        finished = [trial for trial in trials.values() if trial.state == "finished"]
        for trial, value, state in super().beliefs(trials):
            if trial.state == "stopped" and trial.values and len(finished) >= 4:
                report = max(trial.values)
                x = np.array([other.values[report] for other in finished if report in other.values])
                y = np.array([judge(other.series(), judge_by) for other in finished if report in other.values])
                spread = ((x - x.mean()) ** 2).sum()
                # Shrunk towards "the same gain for all" (a slope of 1) while there are few points.
                weight = spread / (spread + 4e-3)
                slope = weight * (((x - x.mean()) * (y - y.mean())).sum() / max(spread, 1e-12)) + (1 - weight)
                value = float(y.mean() + slope * (trial.values[report] - x.mean()))
            yield Belief(trial, value, state)


class RandomStart(Suggester):
    """Optuna's own start: random points instead of a Sobol sequence."""

    def start_point(self, index: int) -> dict[str, Any]:
        points = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=self.seed(index)))
        return dict(points.ask(self.distributions).params)
