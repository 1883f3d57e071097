"""A part of the training split that trials are judged on (`search.select_on: {holdout: 0.1}`).

The dev split then chooses nothing, and its score of the best student is an honest figure. Which rows are held out is
a function of data and share alone: a teacher that was fine-tuned before, and every seed, leaves out the same ones.
"""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune import device as devices
from fsd_tune.data import api as glue
from fsd_tune.data.api import Split
from fsd_tune.data.batching import Tokenised
from fsd_tune.errors import InputError
from fsd_tune.memory.build import predict
from fsd_tune.models.loading import TeacherInfo
from fsd_tune.models.local_checks import RECORD
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.schema import Holdout

_SEED = 0


def share(settings: Settings) -> float | None:
    """The share of the training split that is held out; None when trials are judged on dev."""
    select_on = settings.search.select_on
    return select_on.holdout if isinstance(select_on, Holdout) else None


def divide(split: Split, held_out: float) -> tuple[Split, Split]:
    """What remains of a training split, and what is held out of it, both in the file's order.

    Classes have the same shares in both; scores (regression) are shuffled only.

    Raises:
        InputError: the split is too small for it.
    """
    from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

    assert split.labels is not None
    kind = ShuffleSplit if split.task.regression else StratifiedShuffleSplit
    try:
        rest, held = next(kind(1, test_size=held_out, random_state=_SEED).split(split.labels, split.labels))
    except ValueError as error:
        raise InputError(
            f"search.select_on: a holdout of {held_out:g} cannot be taken from the {len(split)} rows of "
            f"{split.source}: {error}"
        ) from None
    return _take(split, np.sort(rest)), _take(split, np.sort(held))


def record(held: Split, held_out: float) -> dict[str, Any]:
    """What `fsd_tune.json` says of a teacher that was trained without the rows `held`."""
    return {"holdout": held_out, "holdout_rows": glue.content_hash(held)}


def problems(teacher: TeacherInfo, held: Split, held_out: float, data: Path | None) -> list[str]:
    """A teacher that has been trained on what is held out, or that does not say it has not.

    Args:
        teacher: describes it.
        held: the rows that are held out.
        held_out: their share.
        data: the folder of the data, for the command that makes another.
    """
    try:
        said = json.loads((Path(teacher.path) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = {}
    said = said if isinstance(said, dict) else {}
    if said.get("holdout_rows") == record(held, held_out)["holdout_rows"]:
        return []
    words = ["fsd-tune", "teacher", "--model", teacher.base or "MODEL", *held.task.words]
    words += ["--data", str(data)] if data is not None else []
    words += ["--holdout", f"{held_out:g}", "--output", "FOLDER"]
    found = (
        f"leaves out another holdout ({said['holdout']:g})" if _number(said.get("holdout")) else "records no holdout"
    )
    return [
        f"--teacher: {teacher.path} {found}, so that it may know the rows that search.select_on holds out "
        f"({held_out:g} of the training split); make one that does not: {shlex.join(words)}"
    ]


def final(folder: Path, task: glue.Task, dev: Tokenised, precision: str, device: str) -> dict[str, Any]:
    """The score of a student's folder on dev, which has chosen nothing.

    Returns:
        {"score": the task's metric, "metrics": all of them, "examples": N}
    """
    from transformers import AutoModelForSequenceClassification

    # The driver may be a machine without the trials' GPU.
    where = devices.pick("auto" if device == "cuda" else device)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).to(where)
    metrics = glue.evaluate(task, predict(model, dev, precision, where), dev.labels)
    return {"score": metrics[task.metric], "metrics": metrics, "examples": len(dev)}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _take(split: Split, rows: NDArray[np.int64]) -> Split:
    assert split.labels is not None
    return replace(
        split,
        first=[split.first[row] for row in rows],
        second=None if split.second is None else [split.second[row] for row in rows],
        labels=split.labels[rows],
    )
