"""Hold out a part of the training split and judge trials on it (`search.select_on: {holdout: 0.1}`).

The dev split then selects nothing, so the best student's score on it is unbiased. The held-out rows depend only on the
data and the share, so the teacher's fine-tuning and the trials of every seed leave out the same rows.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_tune.data import splits
from fsd_tune.data.splits import Split
from fsd_tune.errors import InputError
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.search_section import Holdout

_SEED = 0


def holdout_share(settings: Settings) -> float | None:
    """Return the share of the training split that is held out.

    Args:
        settings: the settings of the search or run.

    Returns:
        A number between 0 and 1; None if trials are judged on dev.
    """
    select_on = settings.search.select_on
    return select_on.holdout if isinstance(select_on, Holdout) else None


def split_holdout(split: Split, held_out: float) -> tuple[Split, Split]:
    """Divide a training split into the remaining and the held-out rows, both in the file's order.

    Classes have the same shares in both parts; regression splits are divided at random.

    Args:
        split: the training split, with labels.
        held_out: the share to hold out, between 0 and 1.

    Returns:
        The remaining rows and the held-out rows.

    Raises:
        InputError: the split is too small.
    """
    from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

    assert split.labels is not None
    splitter = ShuffleSplit if split.task.regression else StratifiedShuffleSplit
    try:
        divisions = splitter(1, test_size=held_out, random_state=_SEED).split(split.labels, split.labels)
        remaining_rows, held_out_rows = next(divisions)
    except ValueError as error:
        raise InputError(
            f"search.select_on: a holdout of {held_out:g} cannot be taken from the {len(split)} rows of "
            f"{split.source}: {error}"
        ) from None
    return _take(split, np.sort(remaining_rows)), _take(split, np.sort(held_out_rows))


def holdout_record(held: Split, held_out: float) -> dict[str, Any]:
    """Return the entries of `fsd_tune.json` for a teacher that was trained without the held-out rows.

    Args:
        held: the held-out rows.
        held_out: their share of the training split.

    Returns:
        `holdout`, the share, and `holdout_rows`, the content hash of the rows.
    """
    return {"holdout": held_out, "holdout_rows": splits.content_hash(held)}


def _take(split: Split, rows: NDArray[np.int64]) -> Split:
    assert split.labels is not None
    return replace(
        split,
        first=[split.first[row] for row in rows],
        second=None if split.second is None else [split.second[row] for row in rows],
        labels=split.labels[rows],
    )
