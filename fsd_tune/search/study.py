"""The Optuna study of a search: a SQLite file that records parameters, reports and end of each trial.

`samplers.Suggester` or `equal_methods.EqualMethods` suggests the parameters of new trials; the study only records them.
This module does not use Ray.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from fsd_tune.search import study_file
from fsd_tune.search.end_rules import EndRule, EndRules
from fsd_tune.search.equal_methods import EqualMethods, new_suggester
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.trial_record import OPTUNA_STATES, TrialRecord, final_score, frozen_trial
from fsd_tune.settings.configuration import sample
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.layout import TrialState

_INTERRUPTED = "interrupted"  # The user attribute of a trial that a later part of the search continues.


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log and its warnings about experimental parts for the duration of the block."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


class SearchStudy:
    """The study of a search.

    The trials' own files are authoritative. The study is written again from them each time a search starts.

    Args:
        settings: the settings of the search.
        path: the SQLite file; an existing file is replaced. None keeps the study in memory.
        name: the name of the study. It is the search's name, so that two searches never merge.
        past: trials by number, from the results on disk. `ask` returns a missing number or an interrupted trial
            (state running) again, with its parameters and values if they are known.
        suggester: the source of new trials; None for the one that the settings define.
        examples: the metric that selects and the number of examples that it is measured on, for
            `search.stop_when`; without it the study does not apply that setting.
    """

    def __init__(
        self,
        settings: Settings,
        path: Path | None,
        name: str,
        past: Mapping[int, TrialRecord],
        suggester: Suggester | EqualMethods | None = None,
        examples: tuple[str, int] | None = None,
    ) -> None:
        self.settings = settings
        self.trials = dict(past)
        self._suggester = suggester or new_suggester(settings)
        self._rules = EndRules(settings, past, self._suggester, examples)
        self._running: dict[int, optuna.Trial] = {}
        self._waiting: dict[int, TrialRecord] = {}
        self._next = max(past, default=-1) + 1
        known = [self._past_trial(number, past.get(number)) for number in range(self._next)]
        with quiet_optuna():
            if path is None:
                self.study = optuna.create_study(study_name=name, direction="maximize")
                self.study.add_trials(known)
            else:
                self.study = study_file.create(path, name, known)

    def _past_trial(self, number: int, trial: TrialRecord | None) -> optuna.trial.FrozenTrial:
        if trial is None or trial.state == TrialState.RUNNING:
            # A waiting trial keeps its number, because Optuna's next ask() returns it.
            self._waiting[number] = trial or TrialRecord({})
            return create_trial(state=OptunaState.WAITING, system_attrs={"fixed_params": {}})
        frozen = frozen_trial(trial, self._score(trial), trial.state, self._suggester.distributions)
        if trial.state == TrialState.INTERRUPTED:
            frozen.set_user_attr(_INTERRUPTED, True)
        return frozen

    @property
    def rule(self) -> EndRule | None:
        """The rule that ended the search, so that no new trial begins; None to go on."""
        return self._rules.rule

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """Return the next trial, which depends only on the seed, its number and the known trials.

        Returns:
            The trial's number and its flat configuration; None if a rule ended the search or the grid is at its end.
        """
        # A rule lets no new trial begin, but interrupted trials are completed.
        waiting = [number for number in self._waiting if number in self.trials or not self.rule]
        if self.rule and not waiting:
            return None
        number = min(waiting) if waiting else self._next
        with quiet_optuna():
            record = self._waiting.get(number, TrialRecord({}))
            if not record.params:
                suggestion = self._suggester.suggest(number, self.trials, self._waiting.values())
                if suggestion is None:
                    return None
                record = suggestion
            self._waiting.pop(number, None)
            base = optuna.samplers.RandomSampler(seed=self._suggester.seed(number))
            self.study.sampler = optuna.samplers.PartialFixedSampler(record.params, base)
            trial = self.study.ask()
            assert trial.number == number, (trial.number, number)
            config = sample(self.settings, trial)
        self._next = max(self._next, number + 1)
        self._running[number] = trial
        self.trials[number] = TrialRecord(dict(trial.params), generation=record.generation, origin=record.origin)
        for report, value in sorted(record.values.items()):
            self.report(number, report, value)
        return number, config

    def report(self, number: int, report: int, value: float) -> None:
        """Record a running trial's value at a report.

        Args:
            number: the number of the trial.
            report: the index of the report, from 1.
            value: the value of the metric. Optuna does not receive a value that is not finite; such a trial fails.
        """
        values = self.trials[number].values
        if report not in values and math.isfinite(value):
            self._running[number].report(value, report)
        values[report] = value

    def tell(self, number: int, state: str) -> None:
        """Record that a trial has ended.

        Args:
            number: the number of the trial.
            state: finished, stopped or failed.
        """
        trial = self.trials[number]
        trial.state = state
        score = self._score(trial)
        self._rules.ended(score, self.trials)
        with quiet_optuna():
            self.study.tell(self._running.pop(number), values=score, state=OPTUNA_STATES[state])

    def close(self) -> None:
        """Mark running trials as FAIL and `interrupted`; a resumed search replaces these entries."""
        for trial in self._running.values():
            trial.set_user_attr(_INTERRUPTED, True)
            self.study.tell(trial, state=OptunaState.FAIL)
        self._running.clear()

    def _score(self, trial: TrialRecord) -> float | None:
        return final_score(trial)
