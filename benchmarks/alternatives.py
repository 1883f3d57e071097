"""Other models of a sampler, from the literature: tried on the choosing half of the tables by `make bench-search`."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from fsd_tune.search.beliefs import Belief
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.trial_record import TrialRecord


class ModelAlone(Suggester):
    """Let the model suggest all trials after the start-up, whatever the number of hyperparameters."""

    random_share = 0.0


class Pruned(ModelAlone):
    """A sampler that learns stopped trials as pruned."""

    def beliefs(self, trials: Mapping[int, TrialRecord]) -> Iterator[Belief]:
        for _, trial in sorted(trials.items()):
            yield Belief(trial, trial.series()[-1] if trial.state == "finished" else None, trial.state)


class LastValue(ModelAlone):
    """A sampler that learns a stopped trial's last value, as Ray's OptunaSearch does."""

    def beliefs(self, trials: Mapping[int, TrialRecord]) -> Iterator[Belief]:
        for _, trial in sorted(trials.items()):
            if trial.state in ("finished", "stopped") and trial.values:
                yield Belief(trial, trial.series()[-1], "finished")
            else:
                yield Belief(trial, None, trial.state)


class RungWise(ModelAlone):
    """As BOHB (Falkner et al., 2018) does: only the latest report that enough trials have reached is modelled."""

    def beliefs(self, trials: Mapping[int, TrialRecord]) -> Iterator[Belief]:
        reporting = [trial for _, trial in sorted(trials.items()) if trial.values]
        enough = len(self.distributions) + 2
        reached = [report for trial in reporting for report in trial.values]
        rungs = [report for report in sorted(set(reached)) if reached.count(report) >= enough]
        if not rungs:
            yield from super().beliefs(trials)
            return
        rung = rungs[-1]
        for trial in reporting:
            if rung in trial.values and math.isfinite(trial.values[rung]):
                yield Belief(trial, trial.values[rung], "finished")


class RandomThird(Suggester):
    """Draw a third of the suggestions at random, whatever the number of hyperparameters."""

    few = 0
    random_share = 1 / 3
    random_trials = 1000


class AllRandom(Suggester):
    """Draw all suggestions at random, whatever the number of hyperparameters."""

    few = 0
    random_share = 1.0
    random_trials = 1000


class Bohb(RandomThird, RungWise):
    """BOHB's model and its third of random suggestions."""


class RandomStart(Suggester):
    """Optuna's own start: random points instead of a Sobol sequence."""

    def start_point(self, index: int) -> dict[str, Any]:
        points = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=self.seed(index)))
        return dict(points.ask(self.distributions).params)


class Forest(Suggester):
    """A sampler that takes the best draw of an ensemble, fitted to configurations and shares of training."""

    def suggest(
        self, number: int, trials: Mapping[int, TrialRecord], waiting: Iterable[TrialRecord] = ()
    ) -> TrialRecord | None:
        if number < max(10, len(self._first)):
            return super().suggest(number, trials, waiting)
        from sklearn.ensemble import ExtraTreesRegressor

        names = list(self.distributions)
        rows, values = [], []
        for trial in trials.values():
            for report, value in trial.values.items():
                rows.append([*self._scaled(trial.params, names), report])
                values.append(value)
        rng = np.random.default_rng(self.seed(number))
        forest = ExtraTreesRegressor(24, min_samples_leaf=2, bootstrap=True, random_state=int(rng.integers(2**31)))
        forest.fit(rows, values)
        best = sorted(trials.values(), key=lambda trial: -max(trial.values.values(), default=-math.inf))[:5]
        near = [self._scaled(trial.params, names) + rng.normal(0, 0.1, (40, len(names))) for trial in best]
        candidates = np.clip(np.concatenate([rng.random((300, len(names))), *near]), 0, 1)
        last = max(report for trial in trials.values() for report in trial.values)
        tree = forest.estimators_[int(rng.integers(len(forest.estimators_)))]
        chosen = candidates[tree.predict(np.c_[candidates, np.full(len(candidates), last)]).argmax()]
        ranges = [self.distributions[name] for name in names]
        return TrialRecord(
            {n: float(r.low + x * (r.high - r.low)) for n, r, x in zip(names, ranges, chosen, strict=True)}
        )

    def _scaled(self, params: Mapping[str, Any], names: list[str]) -> NDArray[np.float64]:
        ranges = [self.distributions[name] for name in names]
        return np.asarray([(params[n] - r.low) / (r.high - r.low) for n, r in zip(names, ranges, strict=True)])
