"""What else a sampler could be told, from the literature: tried on the recorded curves by `make bench-search`."""

import math
from collections.abc import Iterator

import numpy as np
import optuna

from fsd_tune.search.study import SearchStudy, TrialRecord
from fsd_tune.settings.judging import judge

Belief = tuple[TrialRecord, float | None, str]


class RungWise(SearchStudy):
    """As BOHB (Falkner et al., 2018) does: only the latest report that enough trials have reached is modelled."""

    def _beliefs(self) -> Iterator[Belief]:
        trials = [trial for _, trial in sorted(self.trials.items()) if trial.values]
        enough = len(self._distributions) + 2
        reached = [report for trial in trials for report in trial.values]
        rungs = [report for report in set(reached) if reached.count(report) >= enough]
        if not rungs:
            yield from super()._beliefs()
            return
        rung = max(rungs)
        for trial in trials:
            if rung in trial.values and math.isfinite(trial.values[rung]):
                yield trial, trial.values[rung], "finished"


class Regressed(SearchStudy):
    """A learning-curve model: the end is a line in the value at the last report, fitted to the finished trials."""

    def _beliefs(self) -> Iterator[Belief]:
        by = self.settings.search.judge_by
        finished = [trial for trial in self.trials.values() if trial.state == "finished"]
        for trial, value, state in super()._beliefs():
            if trial.state == "stopped" and trial.values and len(finished) >= 4:
                at = max(trial.values)
                x = np.array([other.values[at] for other in finished if at in other.values])
                y = np.array([judge(other.series(), by) for other in finished if at in other.values])
                spread = ((x - x.mean()) ** 2).sum()
                # Shrunk towards "the same gain for all" (a slope of 1) while there are few points.
                weight = spread / (spread + 4e-3)
                slope = weight * (((x - x.mean()) * (y - y.mean())).sum() / max(spread, 1e-12)) + (1 - weight)
                value = float(y.mean() + slope * (trial.values[at] - x.mean()))
            yield trial, value, state


class RandomStart(SearchStudy):
    """Optuna's own start: random points instead of a Sobol sequence."""

    def _spread(self, index: int) -> dict[str, object]:
        points = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=self._seed(index)))
        return dict(points.ask(self._distributions).params)
