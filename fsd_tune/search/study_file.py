"""Write the known trials into a study's new file in one transaction; Optuna takes one or more for each trial."""

import datetime
import json
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial


def add_trials(storage: RDBStorage, study_id: int, trials: Sequence[FrozenTrial]) -> None:
    """Add trials to the only study of a file, which has no trials yet.

    Args:
        storage: of the file.
        study_id: of the study.
        trials: in the order of their numbers; their values and parameters are stored as `Study.add_trial` does.
    """
    rows: dict[Any, list[dict[str, Any]]] = {}
    for number, trial in enumerate(trials):
        for model, row in _rows(trial):
            rows.setdefault(model, []).append({"trial_id": number + 1, **row})
        rows[models.TrialModel][-1] |= {"number": number, "study_id": study_id}
    with storage.engine.begin() as connection:
        for model, added in rows.items():
            connection.execute(sqlalchemy.insert(model.__table__), added)


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
    for key, value in trial.system_attrs.items():
        yield models.TrialSystemAttributeModel, {"key": key, "value_json": json.dumps(value)}


def _utc(time: datetime.datetime | None) -> datetime.datetime | None:
    """Return a local time as the file holds it: in UTC, without a zone."""
    return None if time is None else time.astimezone(datetime.UTC).replace(tzinfo=None)
