"""Suggest parameters for new trials: a Sobol start, then TPE, a Gaussian process, CMA-ES, a grid or random search.

Each suggestion is made from a study in memory that is built for it from the known trials. What the sampler learns from
a stopped trial is a strategy (`search.learn_from`), not a fact, so it never reaches the study on disk.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import create_trial

from fsd_tune.search import cmaes, grid
from fsd_tune.search.trial_record import TrialRecord, final_score, frozen_trial
from fsd_tune.settings.configuration import distributions, first_configurations, sample, unconditional
from fsd_tune.settings.judging import judge
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.layout import TrialState

Belief = tuple[TrialRecord, float | None, str]


def start_up_trials(trials: int) -> int:
    """Return the number of trials before the sampler's model: Optuna's 10, or fewer when the budget is small.

    Args:
        trials: the trials that the search asks for.
    """
    return min(10, max(4, trials // 4))


def expected_end(trial: TrialRecord, finished: Sequence[TrialRecord], learn_from: str, judge_by: str) -> float | None:
    """Return the score that the sampler learns for a stopped trial; None makes it PRUNED.

    Args:
        trial: the stopped trial.
        finished: the finished trials.
        learn_from: `pruned`; `last`, which takes the stopped value as final; or `extrapolated`, which adds the median
            gain of the finished trials from that report to their score (nothing before any has finished).
        judge_by: `search.judge_by` of the settings.
    """
    if learn_from == "pruned" or not trial.values:
        return None
    report = max(trial.values)
    value = trial.values[report]
    gains = [judge(other.series(), judge_by) - other.values[report] for other in finished if report in other.values]
    return value + (statistics.median(gains) if learn_from == "extrapolated" and gains else 0.0)


class Suggester:
    """Suggests the parameters of new trials.

    Every suggestion is a function of the settings, the trial's number and the known trials.

    Args:
        settings: the settings of the search.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.distributions = distributions(settings)
        self._first = first_configurations(settings)
        self._grid = grid.Remaining(settings) if settings.search.sampler == "grid" else None
        always = {name: self.distributions[name] for name in unconditional(settings)}
        self._cma_space = cmaes.usable(always) if settings.search.sampler == "cmaes" else {}

    def seed(self, number: int) -> int:
        """Return the seed of a trial.

        Args:
            number: the number of the trial.
        """
        return int(np.random.SeedSequence([self.settings.search.seed, number]).generate_state(1)[0])

    def suggest(
        self, number: int, trials: Mapping[int, TrialRecord], waiting: Iterable[TrialRecord] = ()
    ) -> TrialRecord | None:
        """Return a record with the parameters of a new trial; None when the grid has no other point.

        Args:
            number: the number of the new trial.
            trials: the known trials by number.
            waiting: known trials that wait to run again; a grid does not give their points away.
        """
        first = self._first[number] if number < len(self._first) else None
        if self._grid is not None:
            taken = {grid.point_key(trial.params) for trial in (*trials.values(), *waiting)}
            point = self._grid.next(taken, first)
            return None if point is None else TrialRecord(point)
        if not self.distributions:
            return TrialRecord({})
        study = optuna.create_study(direction="maximize")
        ended = []
        for trial, score, state in self.beliefs(trials):
            study.add_trial(frozen_trial(trial, score, state, self.distributions))
            if state == TrialState.FINISHED and trial.generation is not None and score is not None:
                ended.append(cmaes.EndedTrial(trial.generation, trial.params, score))
        study.sampler = self._sampler(number)
        generation = None
        if first is not None:
            study.enqueue_trial(first)
        elif self._in_start_up(number):
            study.enqueue_trial(self.start_point(number - len(self._first)))
        elif self._cma_space:
            drawn, generation = cmaes.draw(self._cma_space, ended, self.seed(number))
            study.sampler = optuna.samplers.PartialFixedSampler(drawn, study.sampler)
        suggested = study.ask()
        sample(self.settings, suggested)
        return TrialRecord(dict(suggested.params), generation=generation)

    def beliefs(self, trials: Mapping[int, TrialRecord]) -> Iterator[Belief]:
        """Yield the score and state of each trial as the sampler learns them, by number.

        Args:
            trials: the known trials by number.

        Returns:
            Tuples (trial, score, state). The score is None if there is none to learn. A stopped trial counts as
            finished if `expected_end` gives it a score.
        """
        search = self.settings.search
        finished = [trial for trial in trials.values() if trial.state == TrialState.FINISHED]
        for _, trial in sorted(trials.items()):
            score, state = final_score(trial, search.judge_by), trial.state
            if state == TrialState.STOPPED:
                score = expected_end(trial, finished, search.learn_from, search.judge_by)
                state = TrialState.STOPPED if score is None else TrialState.FINISHED
            yield trial, score, state

    def start_point(self, index: int) -> dict[str, Any]:
        """Return a point of a scrambled Sobol sequence over all searched parameters.

        Spread points find the good region sooner than random ones do. The sequence does not cover choices, which are
        drawn at random.

        Args:
            index: the position in the sequence, from 0.

        Returns:
            Values by parameter.
        """
        sampler = optuna.samplers.QMCSampler(
            qmc_type="sobol",
            scramble=True,
            seed=self.settings.search.seed,
            independent_sampler=optuna.samplers.RandomSampler(seed=self.seed(index)),
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        )
        points = optuna.create_study(sampler=sampler)
        # The sampler takes its space from a study's first ended trial, and draws at random until there is one.
        any_point = dict(optuna.create_study().ask(self.distributions).params)
        points.add_trial(create_trial(value=0.0, params=any_point, distributions=self.distributions))
        for _ in range(index):
            points.ask(self.distributions)
        return dict(points.ask(self.distributions).params)

    def _in_start_up(self, number: int) -> bool:
        search = self.settings.search
        return search.sampler in ("tpe", "gp") and number < start_up_trials(search.trials)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed, kind = self.seed(number), self.settings.search.sampler
        if kind == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        # Start-up trials are counted by their number (see `suggest`). Optuna counts those that have ended, so that
        # there would be more of them the more workers there are.
        tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, group=True, constant_liar=True)
        if kind == "gp":
            return optuna.samplers.GPSampler(
                seed=seed, independent_sampler=tpe, n_startup_trials=4, warn_independent_sampling=False
            )
        # With cmaes, TPE draws what CMA-ES cannot: choices and conditional parameters.
        return tpe
