"""The Optuna study of a search: a SQLite file that records what happened to each trial. Knows nothing of Ray.

`samplers.Suggester` suggests the parameters of new trials; the study only records them.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from fsd_tune.search import budget, study_file
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.trial_record import OPTUNA_STATES, TrialRecord, final_score, frozen_trial
from fsd_tune.settings.configuration import sample
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.layout import TrialState


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

    The file is written from what is known of the trials when the study begins: their own files are the record that
    counts, and the study is a copy of it.

    Args:
        settings: of the search.
        path: the SQLite file; an old one is replaced. None keeps the study in memory.
        name: of the study. It is the search's name, so that two searches never merge.
        past: trials by number, from the results on disk. A number that is missing or whose trial was interrupted
            (state running) is asked for again, with its parameters and values if they are known.
        suggester: suggests new trials; None for the one that the settings ask for.
    """

    def __init__(
        self,
        settings: Settings,
        path: Path | None,
        name: str,
        past: Mapping[int, TrialRecord],
        suggester: Suggester | None = None,
    ) -> None:
        self.settings = settings
        self.trials = dict(past)
        self._suggester = suggester or Suggester(settings)
        self._stall = budget.stall(settings, past)
        self._running: dict[int, optuna.Trial] = {}
        self._waiting: dict[int, TrialRecord] = {}
        self._next = max(past, default=-1) + 1
        known = [self._past_trial(number, past.get(number)) for number in range(self._next)]
        with quiet_optuna():
            if path is None:
                self.study = optuna.create_study(study_name=name, direction="maximize")
                self.study.add_trials(known)
            else:
                path.unlink(missing_ok=True)
                # Not an f-string: a folder's name may hold characters that have a meaning in a URL.
                storage = optuna.storages.RDBStorage(
                    sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()
                )
                study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], name)
                study_file.add_trials(storage, study_id, known)
                self.study = optuna.load_study(study_name=name, storage=storage)

    def _past_trial(self, number: int, trial: TrialRecord | None) -> optuna.trial.FrozenTrial:
        if trial is None or trial.state == TrialState.RUNNING:
            # A waiting trial keeps its number: it is what Optuna's next ask() takes.
            self._waiting[number] = trial or TrialRecord({})
            return create_trial(state=OptunaState.WAITING, system_attrs={"fixed_params": {}})
        return frozen_trial(trial, self._score(trial), trial.state, self._suggester.distributions)

    @property
    def stalled(self) -> bool:
        """Whether `search.stop_after_stalled` trials in a row have ended without a better finished one."""
        return self._stall.over

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """Return the next trial; it depends on the seed, its number and the known trials alone.

        Returns:
            The trial's number and its flat configuration; None when stalled or when the grid has no other point.
        """
        # Once stalled nothing new begins, but interrupted trials are brought to their end.
        waiting = [number for number in self._waiting if number in self.trials or not self.stalled]
        if self.stalled and not waiting:
            return None
        number = min(waiting) if waiting else self._next
        with quiet_optuna():
            known = self._waiting.get(number, TrialRecord({}))
            if not known.params:
                suggested = self._suggester.suggest(number, self.trials, self._waiting.values())
                if suggested is None:
                    return None
                known = suggested
            self._waiting.pop(number, None)
            base = optuna.samplers.RandomSampler(seed=self._suggester.seed(number))
            self.study.sampler = optuna.samplers.PartialFixedSampler(known.params, base)
            trial = self.study.ask()
            assert trial.number == number, (trial.number, number)
            config = sample(self.settings, trial)
        self._next = max(self._next, number + 1)
        self._running[number] = trial
        self.trials[number] = TrialRecord(dict(trial.params), generation=known.generation)
        for report, value in sorted(known.values.items()):
            self.report(number, report, value)
        return number, config

    def report(self, number: int, report: int, value: float) -> None:
        """Record a running trial's value at a report.

        Args:
            number: of the trial.
            report: its index, from 1.
            value: of the metric. The study leaves out one that is not finite, because such a trial fails.
        """
        values = self.trials[number].values
        if report not in values and math.isfinite(value):
            self._running[number].report(value, report)
        values[report] = value

    def tell(self, number: int, state: str) -> None:
        """Record that a trial has ended.

        Args:
            number: of the trial.
            state: finished, stopped or failed.
        """
        trial = self.trials[number]
        trial.state = state
        score = self._score(trial)
        self._stall.ended(score)
        with quiet_optuna():
            self.study.tell(self._running.pop(number), values=score, state=OPTUNA_STATES[state])

    def close(self) -> None:
        """Mark the trials that still run as FAIL and `interrupted`; a resumed search replaces these entries."""
        for trial in self._running.values():
            trial.set_user_attr("interrupted", True)
            self.study.tell(trial, state=OptunaState.FAIL)
        self._running.clear()

    def _score(self, trial: TrialRecord) -> float | None:
        return final_score(trial, self.settings.search.judge_by)
