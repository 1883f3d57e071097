"""Write a study's file with the known trials in one transaction, because Optuna needs several for each trial."""

import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from fsd_tune.storage.sqlite_copy import PatientConnection


class _StudyConnection(PatientConnection):
    """A connection that does not wait for the disk after each change.

    What a crash of the system damages is made again from the trials' files, and each report would wait several times.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.execute("PRAGMA synchronous = OFF")


def create(path: Path, name: str, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """Create a study's file with the trials that are known, and return the study.

    Args:
        path: the SQLite file; an existing file is replaced.
        name: the name of the study.
        trials: the trials in the order of their numbers, stored as `Study.add_trial` stores them.
    """
    path.unlink(missing_ok=True)
    # Do not use an f-string, because a folder's name can contain characters that have a meaning in a URL.
    url = sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()
    # A program that looks at the study may lock it for a while.
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"factory": _StudyConnection}})
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], name)
    rows: dict[Any, list[dict[str, Any]]] = {}
    for number, trial in enumerate(trials):
        for model, row in _rows(trial):
            rows.setdefault(model, []).append({"trial_id": number + 1, **row})
        rows[models.TrialModel][-1] |= {"number": number, "study_id": study_id}
    with storage.engine.begin() as connection:
        for model, added in rows.items():
            connection.execute(sqlalchemy.insert(model.__table__), added)
    return optuna.load_study(study_name=name, storage=storage)


def _rows(trial: FrozenTrial) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the rows of a trial with their tables, first its own."""
    times = {"datetime_start": _utc(trial.datetime_start), "datetime_complete": _utc(trial.datetime_complete)}
    yield models.TrialModel, {"state": trial.state, **times}
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        number, text = distribution.to_internal_repr(value), distribution_to_json(distribution)
        yield models.TrialParamModel, {"param_name": name, "param_value": number, "distribution_json": text}
    for objective, value in enumerate(trial.values or ()):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        yield models.TrialValueModel, {"objective": objective, "value": stored, "value_type": kind}
    for step, value in trial.intermediate_values.items():
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        row = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        yield models.TrialIntermediateValueModel, row
    for key, value in trial.user_attrs.items():
        yield models.TrialUserAttributeModel, {"key": key, "value_json": json.dumps(value)}
    for key, value in trial.system_attrs.items():
        yield models.TrialSystemAttributeModel, {"key": key, "value_json": json.dumps(value)}


def _utc(time: datetime.datetime | None) -> datetime.datetime | None:
    """Return a local time as the file holds it: in UTC, without a zone."""
    return None if time is None else time.astimezone(datetime.UTC).replace(tzinfo=None)
