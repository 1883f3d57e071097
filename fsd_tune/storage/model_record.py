"""The record of how a model was made: the file `fsd_tune.json` in its folder."""

from pathlib import Path
from typing import Any, Self

from pydantic import StrictFloat, StrictInt, StrictStr

from fsd_tune.storage import json_file
from fsd_tune.storage.artifacts import MODEL_RECORD
from fsd_tune.storage.records import Record
from fsd_tune.storage.uri import local_path


class ModelRecord(Record):
    """The record of how a teacher or a student was made.

    Every key may be missing, because teachers, students of a search and single students record different facts. Keys
    that this version does not know are preserved.

    Attributes:
        task: id of the task that the model was trained on.
        metric: the task's main metric.
        score: the value of this metric on the selection examples.
        base: the pretrained model of a teacher, a folder or a hub id.
        holdout: share of the training split that was held out of a teacher's training.
        holdout_rows: digest of the held-out rows.
        precision: number format of training and evaluation.
        max_length: largest number of tokens of an input in training.
        config: hyperparameters, with `method` for a student.
        seed: seed of batch order and initialisation.
        trial: number of the trial in its search.
        run: name of the run in a confirmation.
    """

    task: StrictStr | None = None
    metric: StrictStr | None = None
    score: StrictFloat | StrictInt | None = None
    base: StrictStr | None = None
    holdout: StrictFloat | None = None
    holdout_rows: StrictStr | None = None
    precision: StrictStr | None = None
    max_length: StrictInt | None = None
    config: dict[str, Any] | None = None
    seed: StrictInt | None = None
    trial: StrictInt | None = None
    run: StrictStr | None = None

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """Return the record of a model's folder; an empty one if there is none or it cannot be read.

        Models from other sources have no record, and a model with a damaged record can still be used. A value of a
        wrong type counts as missing.

        Args:
            folder: the model's folder, or a hub id, which has no record.
        """
        try:
            content = json_file.read_mapping(local_path(folder) / MODEL_RECORD)
        except (OSError, ValueError):
            return cls()
        return cls.from_json(content, MODEL_RECORD)[0]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON value of the record: the keys that were written."""
        return self.model_dump(mode="json", exclude_unset=True)
