"""The Optuna side of a search: the true record (a SQLite study) and what the sampler is told. Knows nothing of Ray.

The record says what happened. The sampler learns from a study in memory that is made anew for each suggestion from
the same trials: what it makes of a stopped trial is a strategy (`search.learn_from`), not a fact.
"""

import math
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from fsd_tune.search import cmaes, grid
from fsd_tune.search.budget import Stall
from fsd_tune.settings.configuration import distributions, first_configurations, sample, unconditional
from fsd_tune.settings.judging import judge
from fsd_tune.settings.loader import Settings

STATES = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
}


@dataclass
class TrialRecord:
    """One trial as the search knows it.

    Attributes:
        params: its searched parameters.
        state: running, finished, stopped or failed.
        values: the selection metric at each report, by report index.
        generation: of CMA-ES, that its parameters were drawn in; None where they were not.
        ended_at: when it ended, as `time.time()` gives it; 0 of a trial of this process.
    """

    params: dict[str, Any]
    state: str = "running"
    values: dict[int, float] = field(default_factory=dict)
    generation: int | None = None
    ended_at: float = 0.0

    def series(self, until: int | None = None) -> list[float]:
        """The values in the order of their reports, up to report `until`."""
        return [self.values[report] for report in sorted(self.values) if until is None or report <= until]


def expected_end(trial: TrialRecord, finished: Sequence[TrialRecord], learn_from: str, judge_by: str) -> float | None:
    """The score that the sampler is told for a stopped trial; None tells it PRUNED.

    `last` takes the stopped value as final. `extrapolated` adds the median gain that the finished trials made from
    that report to their score; before any has finished, the stopped value itself.
    """
    if learn_from == "pruned" or not trial.values:
        return None
    at = max(trial.values)
    value = trial.values[at]
    gains = [judge(other.series(), judge_by) - other.values[at] for other in finished if at in other.values]
    return value + (statistics.median(gains) if learn_from == "extrapolated" and gains else 0.0)


def start_up_trials(trials: int) -> int:
    """Trials before the sampler's model: Optuna's 10, fewer when the budget is small, or none would be left for it."""
    return min(10, max(4, trials // 4))


def final_score(trial: TrialRecord, judge_by: str) -> float | None:
    """A trial's score; None unless it has finished."""
    return judge(trial.series(), judge_by) if trial.state == "finished" else None


def stall(settings: Settings, past: dict[int, TrialRecord]) -> Stall:
    """The count of trials without a better one after an earlier part of the search."""
    counted = Stall(settings.search.stop_after_stalled)
    for _, trial in sorted(past.items(), key=lambda item: (item[1].ended_at, item[0])):
        if trial.state != "running":
            counted.ended(final_score(trial, settings.search.judge_by))
    return counted


class SearchStudy:
    """The study of a search."""

    def __init__(self, settings: Settings, path: Path | None, name: str, past: dict[int, TrialRecord]) -> None:
        """Write the study anew from what is known, which is the truth on disk.

        Args:
            settings: of the search.
            path: the SQLite file; an old one is replaced. None keeps the study in memory.
            name: of the study: the search's, so that two searches never merge.
            past: trials by number, from the results on disk. A number that is missing or whose trial was interrupted
                (state running) is asked for again, with its parameters and values where they are known.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.settings, self.trials = settings, dict(past)
        self._distributions = distributions(settings)
        self._first = first_configurations(settings)
        self._grid = grid.Remaining(settings) if settings.search.sampler == "grid" else None
        always = {name: self._distributions[name] for name in unconditional(settings)}
        self._cma = cmaes.usable(always) if settings.search.sampler == "cmaes" else {}
        self._stall = stall(settings, past)
        url = None
        if path is not None:
            path.unlink(missing_ok=True)
            # Not an f-string: a folder's name may hold what means something in a URL.
            url = sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()
        self.study = optuna.create_study(study_name=name, storage=url, direction="maximize")
        self._asked: dict[int, optuna.Trial] = {}
        self._waiting: dict[int, TrialRecord] = {}
        for number in range(max(past, default=-1) + 1):
            trial = past.get(number)
            if trial is None or trial.state == "running":
                # Its number is kept for it: a waiting trial is what the next ask() takes.
                self.study.enqueue_trial({})
                self._waiting[number] = trial or TrialRecord({})
            else:
                self.study.add_trial(self._frozen(trial, self._truth(trial)))

    @property
    def stalled(self) -> bool:
        """Whether `search.stop_after_stalled` trials in a row have ended without a better finished one."""
        return self._stall.over

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """The next trial: its number and its flat configuration; None when stalled or when the grid has no other.

        A function of seed, number and what is known.
        """
        # Once stalled nothing new begins, but what an interruption broke off is brought to its end.
        waiting = [number for number in self._waiting if number in self.trials or not self.stalled]
        if self.stalled and not waiting:
            return None
        number = min(waiting) if waiting else len(self.study.get_trials(deepcopy=False))
        known = self._waiting.get(number, TrialRecord({}))
        if not known.params:
            suggested = self._suggest(number)
            if suggested is None:
                return None
            known = suggested
        self._waiting.pop(number, None)
        base = optuna.samplers.RandomSampler(seed=self._seed(number))
        self.study.sampler = optuna.samplers.PartialFixedSampler(known.params, base)
        trial = self.study.ask()
        assert trial.number == number, (trial.number, number)
        config = sample(self.settings, trial)
        self._asked[number], self.trials[number] = trial, TrialRecord(dict(trial.params), generation=known.generation)
        for report, value in sorted(known.values.items()):
            self.report(number, report, value)
        return number, config

    def report(self, number: int, report: int, value: float) -> None:
        """A running trial's value at a report; one that is not finite stays out of the study (the trial will FAIL)."""
        known = self.trials[number].values
        if report not in known and math.isfinite(value):
            self._asked[number].report(value, report)
        known[report] = value

    def tell(self, number: int, state: str) -> None:
        """A trial has ended: finished, stopped or failed. The record gets every reported value at its step."""
        trial = self.trials[number]
        trial.state = state
        score = self._truth(trial)
        self._stall.ended(score)
        self.study.tell(self._asked.pop(number), values=score, state=STATES[state])

    def close(self) -> None:
        """The search stops: trials that were broken off stand as FAIL, marked `interrupted`, until it is resumed."""
        for trial in self._asked.values():
            trial.set_user_attr("interrupted", True)
            self.study.tell(trial, state=TrialState.FAIL)
        self._asked.clear()

    def _truth(self, trial: TrialRecord) -> float | None:
        return final_score(trial, self.settings.search.judge_by)

    def _frozen(self, trial: TrialRecord, value: float | None, state: str | None = None) -> FrozenTrial:
        state = state or trial.state
        finite = {report: v for report, v in trial.values.items() if math.isfinite(v)}
        if state == "stopped" and finite:
            value = finite[max(finite)]
        return create_trial(
            state=STATES[state],
            value=value,
            params=trial.params,
            distributions=self._of(trial.params),
            intermediate_values=finite,
        )

    def _of(self, params: dict[str, Any]) -> dict[str, BaseDistribution]:
        return {name: self._distributions[name] for name in params}

    def _seed(self, number: int) -> int:
        return int(np.random.SeedSequence([self.settings.search.seed, number]).generate_state(1)[0])

    def _suggest(self, number: int) -> TrialRecord | None:
        """Parameters for a trial that has none yet; None when the grid has no other."""
        first = self._first[number] if number < len(self._first) else None
        if self._grid is not None:
            point = self._grid.next({grid.key(trial.params) for trial in self._all()}, first)
            return None if point is None else TrialRecord(point)
        if not self._distributions:
            return TrialRecord({})
        belief = optuna.create_study(direction="maximize")
        told = []
        for trial, value, state in self._beliefs():
            belief.add_trial(self._frozen(trial, value, state))
            if state == "finished" and trial.generation is not None and value is not None:
                told.append(cmaes.Told(trial.generation, trial.params, value))
        belief.sampler, generation = self._sampler(number), None
        if first is not None:
            belief.enqueue_trial(first)
        elif self.settings.search.sampler in ("tpe", "gp") and number < start_up_trials(self.settings.search.trials):
            belief.enqueue_trial(self._spread(number - len(self._first)))
        elif self._cma:
            drawn, generation = cmaes.draw(self._cma, told, self._seed(number))
            belief.sampler = optuna.samplers.PartialFixedSampler(drawn, belief.sampler)
        asked = belief.ask()
        sample(self.settings, asked)
        return TrialRecord(dict(asked.params), generation=generation)

    def _spread(self, index: int) -> dict[str, Any]:
        """Point `index` of a scrambled Sobol sequence over all searched parameters.

        Spread points find the good region sooner than random ones do (README, "Does it search better?"); choices, which
        the sequence does not cover, are random.
        """
        seed = int(np.random.SeedSequence([self.settings.search.seed, index]).generate_state(1)[0])
        sampler = optuna.samplers.QMCSampler(
            qmc_type="sobol",
            scramble=True,
            seed=self.settings.search.seed,
            independent_sampler=optuna.samplers.RandomSampler(seed=seed),
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        )
        points = optuna.create_study(sampler=sampler)
        # The sampler takes its space from a study's first ended trial, and draws at random until there is one.
        points.add_trial(create_trial(value=0.0, params=self._any_point(), distributions=self._distributions))
        for _ in range(index):
            points.ask(self._distributions)
        return dict(points.ask(self._distributions).params)

    def _any_point(self) -> dict[str, Any]:
        return dict(optuna.create_study().ask(self._distributions).params)

    def _all(self) -> list[TrialRecord]:
        """The trials that are known, those that wait to be run anew among them."""
        return [*self.trials.values(), *self._waiting.values()]

    def _beliefs(self) -> Iterator[tuple[TrialRecord, float | None, str]]:
        """What the sampler is told, by number: the trial, its score and its state."""
        search = self.settings.search
        finished = [trial for trial in self.trials.values() if trial.state == "finished"]
        for number in sorted(self.trials):
            trial = self.trials[number]
            value, state = self._truth(trial), trial.state
            if state == "stopped":
                value = expected_end(trial, finished, search.learn_from, search.judge_by)
                state = "stopped" if value is None else "finished"
            yield trial, value, state

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed, kind = self._seed(number), self.settings.search.sampler
        if kind == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        # Start-up trials are counted by their number (see `_suggest`): by how many have ended, as Optuna counts them,
        # there would be more of them the more workers there are.
        tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, group=True, constant_liar=True)
        if kind == "gp":
            return optuna.samplers.GPSampler(
                seed=seed, independent_sampler=tpe, n_startup_trials=4, warn_independent_sampling=False
            )
        # With cmaes it draws what CMA-ES cannot: choices and conditional parameters.
        return tpe
