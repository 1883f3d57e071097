"""A part of the training split that trials are judged on (`search.select_on: {holdout: 0.1}`).

The dev split then chooses nothing, and its score of the best student is an honest figure. Which rows are held out is
a function of data and share alone: a teacher that was fine-tuned before, and every seed, leaves out the same ones.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_tune.data import splits
from fsd_tune.data.splits import Split
from fsd_tune.errors import InputError
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.schema import Holdout

_SEED = 0


def holdout_share(settings: Settings) -> float | None:
    """The share of the training split that is held out; None when trials are judged on dev."""
    select_on = settings.search.select_on
    return select_on.holdout if isinstance(select_on, Holdout) else None


def split_holdout(split: Split, held_out: float) -> tuple[Split, Split]:
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


def holdout_record(held: Split, held_out: float) -> dict[str, Any]:
    """What `fsd_tune.json` says of a teacher that was trained without the rows `held`."""
    return {"holdout": held_out, "holdout_rows": splits.content_hash(held)}


def _take(split: Split, rows: NDArray[np.int64]) -> Split:
    assert split.labels is not None
    return replace(
        split,
        first=[split.first[row] for row in rows],
        second=None if split.second is None else [split.second[row] for row in rows],
        labels=split.labels[rows],
    )
