"""The record of a model's folder, `fsd_tune.json`: how the model was made, read in one place."""

import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, StrictFloat, StrictInt, StrictStr, ValidationError

from fsd_tune.storage.artifacts import MODEL_RECORD


class ModelRecord(BaseModel):
    """How a teacher or a student was made.

    Every key may be missing, because teachers, students of a search and single students record different facts. Keys
    that this version does not know are kept.

    Attributes:
        task: id of the task that the model was trained on.
        metric: the task's main metric.
        score: the model's score by it, on the examples that selected.
        base: the pretrained model that a teacher comes from, a folder or a hub id.
        holdout: share of the training split that a teacher was not trained on.
        holdout_rows: digest of those rows.
        precision: number format of training and evaluation.
        max_length: longest input of training, in tokens.
        config: hyperparameters, with `method` for a student.
        seed: of batch order and initialisation.
        trial: number of the trial in its search.
        run: name of the run in a confirmation.
    """

    model_config = ConfigDict(extra="allow")

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

        Models from elsewhere have no record, and a damaged one must not keep a model from being used. A value of a
        wrong type counts as missing.

        Args:
            folder: The model's folder, or a hub id, which has no record.
        """
        try:
            content = json.loads((Path(folder).expanduser() / MODEL_RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return cls()
        if not isinstance(content, dict):
            return cls()
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            wrong = {problem["loc"][0] for problem in error.errors()}
            return cls.model_validate({key: value for key, value in content.items() if key not in wrong})

    def as_json(self) -> dict[str, Any]:
        """Return what the file holds: the keys that were written."""
        return self.model_dump(mode="json", exclude_unset=True)
