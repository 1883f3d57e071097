"""Load GLUE splits with `datasets`: from the hub's `nyu-mll/glue`, its local cache, or a copy of its files."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsd_tune.data.tasks import Split, Task
from fsd_tune.data.text_lines import columns_problem, quoted
from fsd_tune.errors import InputError
from fsd_tune.storage import hub

HUB = "nyu-mll/glue"

_HUB_SPLITS = {"dev": "validation"}
_HUB_SPLITS_MNLI = {
    "dev": "validation_matched",
    "dev_mismatched": "validation_mismatched",
    "test": "test_matched",
    "test_mismatched": "test_mismatched",
    "ax": "test",  # of the configuration `ax`
}


def load_from_hub(task: Task, name: str) -> Split:
    """Load one split from the hub, or from the local cache of `datasets` if the hub does not answer.

    Args:
        task: the task.
        name: one of its splits.

    Returns:
        The split.

    Raises:
        InputError: neither has it (which takes seconds to find out), or the columns or labels are not the task's.
    """
    import datasets

    hub_split = _hub_split(task, name)
    config = "ax" if name == "ax" else task.id
    source = f"{HUB} {config} {hub_split}"
    unreachable = hub.unreachable("dataset", HUB)
    try:
        with _no_progress_bars(), hub.offline(bool(unreachable)):
            dataset = datasets.load_dataset(HUB, config, split=hub_split)
    except Exception as error:  # Several libraries raise errors of their own, and users can do the same about all.
        reason = unreachable or (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{source}: cannot be loaded from the hub ({reason}), and the local cache does not hold it",
            hint=f"Give `--data FOLDER`, the folder that holds {task.folder}/ of the GLUE download.",
        ) from error
    return from_dataset(task, name, dataset, source)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Hide the progress bars of `datasets` and the hub, and restore them at the end."""
    import datasets
    import huggingface_hub.utils as hub_utils

    datasets_disabled = datasets.are_progress_bars_disabled()
    hub_disabled = hub_utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    hub_utils.disable_progress_bars()
    try:
        yield
    finally:
        if not datasets_disabled:
            datasets.enable_progress_bars()
        if not hub_disabled:
            hub_utils.enable_progress_bars()


def _hub_split(task: Task, name: str) -> str:
    return (_HUB_SPLITS_MNLI if task.id == "mnli" else _HUB_SPLITS).get(name, name)


def shards_of(task: Task, name: str, folder: Path) -> list[Path]:
    """Return a split's files in a copy of the hub's repository, such as `train-00000-of-00001.parquet`.

    Args:
        task: the task.
        name: one of its splits.
        folder: the task's folder.

    Returns:
        The files in order; empty if there are none.

    Raises:
        InputError: files are missing from the number that the names state.
    """
    shards = sorted(folder.glob(f"{_hub_split(task, name)}-?????-of-?????.parquet"))
    expected = [re.sub(r"-\d+-of", f"-{number:05d}-of", shards[0].name) for number in range(_count(shards))]
    missing = sorted(set(expected) - {path.name for path in shards})
    if missing:
        raise InputError(f"{folder}: lacks {', '.join(missing)}")
    return shards


def _count(shards: list[Path]) -> int:
    return int(shards[0].stem.rsplit("-", 1)[1]) if shards else 0


def load_shards(task: Task, name: str, shards: Sequence[Path]) -> Split:
    """Load one split from its parquet files.

    Args:
        task: the task.
        name: one of its splits.
        shards: the split's files. No cache is written beside them.

    Returns:
        The split.

    Raises:
        InputError: the files cannot be read, or their columns or labels are not the task's.
    """
    import datasets

    verbosity = datasets.logging.get_verbosity()
    source = str(shards[0]) if len(shards) == 1 else f"{shards[0].parent}/{_hub_split(task, name)}-*.parquet"
    with tempfile.TemporaryDirectory() as cache, _no_progress_bars():
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # The error below names the problem.
        try:
            dataset = datasets.load_dataset(
                "parquet", data_files={name: [str(path) for path in shards]}, split=name, cache_dir=cache,
                keep_in_memory=True,
            )  # fmt: skip
        except Exception as error:  # Several libraries raise errors of their own, and users can do the same about all.
            reason = str(error.__cause__ or error).splitlines() or [type(error).__name__]
            raise InputError(f"{source}: cannot be read as parquet: {reason[0]}") from error
        finally:
            datasets.logging.set_verbosity(verbosity)
    return from_dataset(task, name, dataset, source)


def from_dataset(task: Task, name: str, dataset: Any, source: str) -> Split:
    """Convert a `datasets.Dataset` with the hub's columns.

    Args:
        task: the task.
        name: one of its splits.
        dataset: its examples; if all labels are -1, the split has no labels.
        source: the name of the data set in errors.

    Returns:
        The split.

    Raises:
        InputError: columns are missing, there is no example, or labels or their order are not the task's.
    """
    import numpy as np

    if problem := columns_problem("has columns", dataset.column_names, [*task.hub_columns, "label"]):
        raise InputError(f"{source}: {problem}")
    if len(dataset) == 0:
        raise InputError(f"{source}: has no examples")
    words = getattr(dataset.features["label"], "names", None)
    if words is not None and tuple(words) != task.labels:
        raise InputError(f"{source}: has the labels {quoted(words)}, must be {quoted(task.labels)} in this order")
    texts = [list(dataset[column]) for column in task.hub_columns]
    values = np.asarray(dataset["label"], dtype=np.float64)
    labels = None if (values == -1).all() else values.astype(np.float32 if task.regression else np.int64)
    low, high = task.scores if task.regression else (0, task.num_labels - 1)
    if labels is not None and not ((values >= low) & (values <= high)).all():
        row = int(np.flatnonzero(~((values >= low) & (values <= high)))[0])
        raise InputError(f"{source}: row {row}: label {values[row]:g}, must be from {low:g} to {high:g}")
    return Split(task, name, texts[0], texts[1] if len(texts) == 2 else None, labels, 0, source)
