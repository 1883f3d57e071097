"""The Optuna study of a search for the report, read from a copy and corrected by the results on disk."""

import math
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna

from fsd_tune.report.results import Results
from fsd_tune.storage import layout
from fsd_tune.storage.known_trials import study_of
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.sqlite_copy import copy_database
from fsd_tune.storage.waiting import WaitedTooLongError

_STATES = {
    TrialState.FINISHED: optuna.trial.TrialState.COMPLETE,
    TrialState.STOPPED: optuna.trial.TrialState.PRUNED,
    TrialState.FAILED: optuna.trial.TrialState.FAIL,
}


class UndrawableError(Exception):
    """An error for a chart that this search does not allow; its message is a sentence for the page."""


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's warnings about small studies, because the captions cover them."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def measured_study(results: Results) -> optuna.study.Study:
    """Return the study as an in-memory copy, with the states, scores and intermediate values of the results on disk.

    The charts then show measured values, even if the study lags behind or has an extrapolated score.

    Args:
        results: the results of the search.

    Raises:
        UndrawableError: there is no study, or it cannot be read.
    """
    path = results.folder / layout.STUDY
    if not path.is_file():
        raise UndrawableError("Not drawn: the folder has no study.db.")
    try:
        with quiet_optuna(), tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            if not copy_database(path, copy):
                raise sqlite3.DatabaseError("it is damaged")
            stored = _stored_trials(copy, results.summary.name or "")
    except (sqlite3.Error, OSError, WaitedTooLongError) as error:
        raise UndrawableError(f"Not drawn: study.db cannot be read: {error}") from error
    rows = {int(row["number"]): row for row in results.trials[["number", "state", "score"]].to_dict("records")}
    values: dict[int, dict[int, float]] = {}
    if results.metric in results.reports.columns:
        for number, index, value in results.reports[["trial", "report", results.metric]].itertuples(index=False):
            if isinstance(value, int | float) and math.isfinite(value):
                values.setdefault(int(number), {})[int(index)] = value
    measured = [_measured(trial, rows.get(trial.number), values.get(trial.number, {})) for trial in stored]
    with quiet_optuna():
        return study_of(measured, "minimize" if results.lower_is_better else "maximize")


def _stored_trials(path: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        names = optuna.get_all_study_names(storage)
        if name not in names:
            available = ", ".join(f"`{other}`" for other in names) or "none"
            raise UndrawableError(f"Not drawn: study.db has no study `{name}`; it has {available}.")
        study = optuna.load_study(study_name=name, storage=storage)
        trials: list[optuna.trial.FrozenTrial] = study.get_trials(deepcopy=False)
        return trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _measured(trial: optuna.trial.FrozenTrial, row: Any, values: dict[int, float]) -> optuna.trial.FrozenTrial:
    """Return a stored trial with the state and values from its files; unchanged if it has not started."""
    if row is None:
        return trial
    states = optuna.trial.TrialState
    score = float(row["score"])
    state = {
        TrialState.FINISHED: states.COMPLETE,
        TrialState.STOPPED: states.PRUNED,
        TrialState.FAILED: states.FAIL,
    }.get(row["state"], states.RUNNING)
    if state == states.COMPLETE and math.isnan(score):
        state = states.FAIL
    measured: optuna.trial.FrozenTrial = optuna.trial.create_trial(
        state=state,
        value=score if state == states.COMPLETE else None,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=values,
    )
    measured.number = trial.number
    return measured
