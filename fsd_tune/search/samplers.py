"""Suggest parameters for new trials: a Sobol start, then TPE, a Gaussian process, CMA-ES, a grid or random search.

Each suggestion is made from a study in memory of the known trials. The score that the sampler learns for a stopped
trial is an assumption (`beliefs.expected_end`), so it is never written to the study on disk.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, create_trial

from fsd_tune.search import cmaes, grid
from fsd_tune.search.beliefs import Belief, BeliefStudies, FinishedTrials, KnownTrials, expected_end
from fsd_tune.search.costs import TrialCosts
from fsd_tune.search.tpe import KnownTrialsTpe
from fsd_tune.search.trial_record import TrialRecord, frozen_trial
from fsd_tune.search.warm_start import WarmTrial
from fsd_tune.settings.configuration import adopt, distributions, first_configurations, sample, unconditional
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.layout import TrialState

# How many suggestions for one trial the sampler makes, and then how many are drawn at random, until one is a
# configuration that has not been tried.
_ATTEMPTS, _RANDOM_ATTEMPTS = 6, 30


def start_up_trials(trials: int) -> int:
    """Return the number of trials before the sampler uses its model: Optuna's 10, or fewer if the budget is small.

    Args:
        trials: the number of trials of the search.
    """
    return min(10, max(4, trials // 4))


class Suggester:
    """A source of parameters for new trials.

    Every suggestion depends only on the settings, the earlier searches, the trial's number and the known trials.

    With many hyperparameters two of three early suggestions of TPE are replaced by random ones, which does better in
    the measured searches of some tens of trials (docs/benchmarks/search-quality.md).

    Attributes:
        few: the largest number of hyperparameters for which TPE suggests all trials after the start.
        random_share: the share of random suggestions with more hyperparameters than `few`.
        random_trials: the number of trials per hyperparameter after which TPE suggests all.

    Args:
        settings: the settings of the search.
        earlier: trials of earlier searches, the first to try first; those of another method or space are left out.
        costs: the costs of the trials. No suggestion has a shape over a limit; None if the settings have neither costs
            among the objectives nor limits.
    """

    few = 6
    random_share = 2 / 3
    random_trials = 20

    def __init__(self, settings: Settings, earlier: Sequence[WarmTrial] = (), costs: TrialCosts | None = None) -> None:
        self.settings = settings
        self.costs = costs
        self.distributions = distributions(settings)
        self._first = first_configurations(settings)
        adopted = [(trial.origin, *adopt(settings, trial.config)) for trial in earlier]
        self._earlier = [TrialRecord(params, origin=origin) for origin, params, outside in adopted if not outside]
        self._finished = FinishedTrials()
        self._studies = BeliefStudies(self.distributions, costs)
        self._grid = grid.Remaining(settings) if settings.search.sampler == "grid" else None
        self._replayed: list[cmaes.Replayed] = []
        always = {name: self.distributions[name] for name in unconditional(settings)}
        self._cma_space = cmaes.usable(always) if settings.search.sampler == "cmaes" else {}

    def seed(self, number: int, attempt: int = 0) -> int:
        """Return the seed of a trial.

        Args:
            number: the number of the trial.
            attempt: how many suggestions for the trial were rejected before.
        """
        parts = [self.settings.search.seed, number, *([attempt] if attempt else [])]
        return int(np.random.SeedSequence(parts).generate_state(1)[0])

    def suggest(
        self, number: int, trials: Mapping[int, TrialRecord], waiting: Iterable[TrialRecord] = ()
    ) -> TrialRecord | None:
        """Return a record with the parameters of a new trial; None when the grid has no other point.

        Args:
            number: the number of the new trial.
            trials: the known trials by number.
            waiting: known trials that wait to run again; a grid does not suggest their points.
        """
        first = self._first[number] if number < len(self._first) else None
        earlier = None if first is not None else self._next_earlier(number, trials)
        origin = ""
        if earlier is not None:
            first, origin = earlier.params, earlier.origin
        if self._grid is not None:
            used_points = {grid.point_key(trial.params) for trial in (*trials.values(), *waiting)}
            point = self._grid.next(used_points, first)
            # The grid gives another point if it has none with these values left.
            is_earlier = earlier is not None and earlier.params == point
            return None if point is None else TrialRecord(point, origin=origin if is_earlier else "")
        if not self.distributions:
            return TrialRecord({})
        beliefs = [] if self.settings.search.sampler == "random" else list(self.beliefs(trials))
        if first is None and self._in_start_up(number):
            taken = sum(known < number and bool(trial.origin) for known, trial in trials.items())
            first = self.start_point(number - len(self._first) - taken)
        suggestion = self._suggestion(number, beliefs, first)
        if first is None and self.costs and self.costs.names:
            # A trial of a known configuration would repeat that trial. With several objectives TPE often suggests one,
            # because each point of the front stays a good one.
            tried = [trial.params for trial in trials.values()]
            for attempt in range(1, _ATTEMPTS + _RANDOM_ATTEMPTS):
                if suggestion.params not in tried:
                    break
                suggestion = self._suggestion(number, beliefs, None, attempt)
        suggestion.origin = origin
        return suggestion

    def _suggestion(
        self,
        number: int,
        beliefs: Sequence[Belief],
        first: Mapping[str, Any] | None,
        attempt: int = 0,
    ) -> TrialRecord:
        """Return a record with the parameters of a new trial, from a study of the known trials.

        Args:
            number: the number of the new trial.
            beliefs: what the sampler learns of the known trials.
            first: values that the trial is to have; None if the sampler decides.
            attempt: how many suggestions for the trial were rejected before.
        """
        known = self._studies.known(beliefs)
        study = known.study
        is_random = attempt >= _ATTEMPTS or self._draws_at_random(number)
        kind = "random" if is_random else self.settings.search.sampler
        study.sampler = _sampler(kind, self.seed(number, attempt), known)
        generation = None
        if first is not None:
            study.enqueue_trial(first)
        elif self._cma_space:
            ended = [
                cmaes.EndedTrial(trial.generation, trial.params, score)
                for trial, score, state in beliefs
                if state == TrialState.FINISHED and trial.generation is not None and score is not None
            ]
            params, generation = cmaes.draw(self._cma_space, ended, self.seed(number), self._replayed)
            study.sampler = optuna.samplers.PartialFixedSampler(params, study.sampler)
        suggested = study.ask()
        sample(self.settings, suggested)
        found = suggested.params if self.costs is None else self.costs.allowed(suggested.params)
        return TrialRecord(dict(found), generation=generation)

    def _next_earlier(self, number: int, trials: Mapping[int, TrialRecord]) -> TrialRecord | None:
        """Return the next configuration of an earlier search; None if the sampler suggests the trial.

        Only trials of the start-up come from earlier searches, and only as long as such trials do well here.
        """
        if number - len(self._first) >= start_up_trials(self.settings.search.trials) - 1 or not self._earlier:
            return None
        params = [trial.params for trial in trials.values()]
        origins = {trial.origin for trial in trials.values()}
        left = [each for each in self._earlier if each.params not in params and each.origin not in origins]
        return TrialRecord(left[0].params, origin=left[0].origin) if left and _earlier_ones_do_well(trials) else None

    def beliefs(self, trials: Mapping[int, TrialRecord]) -> Iterator[Belief]:
        """Yield the score and state of each trial as the sampler learns them, in the order of the numbers.

        A stopped trial counts as finished if `expected_end` returns a score for it. Of several objectives, Optuna
        learns nothing from one without a score.

        Args:
            trials: the known trials by number.
        """
        self._finished.update(trials)
        for number, trial in sorted(trials.items()):
            if belief := self._finished.beliefs.get(number):
                yield belief
            elif trial.state == TrialState.STOPPED:
                score = expected_end(trial, self._finished.median_gains)
                unknown = TrialState.FAILED if self.costs and self.costs.names else TrialState.STOPPED
                yield Belief(trial, score, unknown if score is None else TrialState.FINISHED)
            else:
                yield Belief(trial, None, trial.state)

    def believed(self, trials: Mapping[int, TrialRecord]) -> list[list[FrozenTrial]]:
        """Return the ended trials with the scores that the sampler learns, in one list for each searched method.

        A sampler that knows no methods apart has one list.

        Args:
            trials: the known trials by number.
        """
        return [
            [
                frozen_trial(trial, score, state, self.distributions)
                for trial, score, state in self.beliefs(trials)
                if state == TrialState.FINISHED
            ]
        ]

    def start_point(self, index: int) -> dict[str, Any]:
        """Return a point of a scrambled Sobol sequence over all searched parameters.

        Its evenly spread points find good regions sooner than random points. It does not cover choices, which are drawn
        at random.

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
        study = optuna.create_study(sampler=sampler)
        # The sampler infers its space from a study's first ended trial, and draws at random until there is one.
        space = {name: distribution for name, distribution in self.distributions.items() if not distribution.single()}
        any_point = dict(optuna.create_study().ask(space).params)
        study.add_trial(create_trial(value=0.0, params=any_point, distributions=space))
        for _ in range(index):
            study.ask(space)
        return dict(study.ask(space).params)

    def _draws_at_random(self, number: int) -> bool:
        """Return whether a trial is drawn at random. With several objectives none is, because that was not measured."""
        if self.settings.search.sampler != "tpe" or (self.costs and self.costs.names):
            return False
        searched = sum(not distribution.single() for distribution in self.distributions.values())
        if searched <= self.few or number >= self.random_trials * searched:
            return False
        return bool(np.random.default_rng(self.seed(number)).random() < self.random_share)

    def _in_start_up(self, number: int) -> bool:
        search = self.settings.search
        return search.sampler in ("tpe", "gp") and number < start_up_trials(search.trials)


def _sampler(kind: str, seed: int, known: KnownTrials) -> optuna.samplers.BaseSampler:
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    tpe = KnownTrialsTpe(seed, known)
    if kind == "gp":
        return optuna.samplers.GPSampler(
            seed=seed, independent_sampler=tpe, n_startup_trials=4, warn_independent_sampling=False
        )
    # With cmaes, TPE draws the parameters that CMA-ES cannot: choices and conditional parameters.
    return tpe


def _earlier_ones_do_well(trials: Mapping[int, TrialRecord]) -> bool:
    """Return whether the best trial that comes from an earlier search is not in the worse half of the others.

    They are compared at the last report that both kinds have reached. Until then there is one such trial only, so that
    earlier tasks that have nothing in common with this one cost little.
    """
    kinds: dict[bool, list[Mapping[int, float]]] = {True: [], False: []}
    for trial in trials.values():
        finite = {report: value for report, value in trial.values.items() if math.isfinite(value)}
        kinds[bool(trial.origin)].append(finite)
    common = min(max((max(values, default=0) for values in kind), default=0) for kind in kinds.values())
    if not common:
        return not kinds[True]
    earlier, others = ([values[common] for values in kinds[name] if common in values] for name in (True, False))
    return max(earlier) >= float(np.median(others))
