"""The interface to tasks: find a task, load its splits from a folder or the hub, compute its metrics.

Other packages import from here. The table of tasks is in `tasks.py`; `glue_tsv.py` and `glue_hub.py` read GLUE,
`task_file.py` and `table_reader.py` read tasks of your own; metrics are in `metrics.py`. Importing this module is fast,
because numpy, datasets and scikit-learn are imported by the functions that need them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from fsd_tune.data.glue_hub import from_dataset, load_from_hub
from fsd_tune.data.glue_tsv import load_from_folder
from fsd_tune.data.metrics import compute_metrics
from fsd_tune.data.table_reader import load_from_tables
from fsd_tune.data.task_file import read_task_file
from fsd_tune.data.tasks import TASKS, Split, Task, glue_task
from fsd_tune.errors import InputError, ProblemCollector, nearest

__all__ = [
    "TASKS",
    "Split",
    "Task",
    "TaskLike",
    "compute_metrics",
    "content_hash",
    "from_dataset",
    "get_task",
    "is_here",
    "load_split",
    "load_splits",
]


# Functions accept any of these as a task: the id of a GLUE task, the path of a task's YAML, or a task.
TaskLike = str | Path | Task


def get_task(task: TaskLike) -> Task:
    """Return a task.

    Args:
        task: the id or folder name of a GLUE task (in any case, with or without hyphen), or the path of a task's YAML.

    Returns:
        The task; a `Task` is returned as it is.

    Raises:
        InputError: no task has this name, or the YAML has problems; all of them are listed.

    Example:
        >>> import fsd_tune as fsd
        >>> fsd.load_task("SST-2").labels
        ('negative', 'positive')
    """
    if isinstance(task, Task):
        return task
    return read_task_file(task) if isinstance(task, Path) else glue_task(task)


def is_here(task: Task, data: Path | None) -> bool:
    """Return whether a task's files are on this machine and not on the hub.

    Args:
        task: the task.
        data: the value of `--data`; None for the hub, or for the folder of a task's YAML.

    Returns:
        True for a task of your own and for any task with `data`.
    """
    return data is not None or task.tables is not None


def load_splits(task: Task, names: Iterable[str], data: Path | None) -> dict[str, Split]:
    """Load several splits of a task.

    Args:
        task: the task.
        names: names of the splits.
        data: as for `load_split`.

    Returns:
        The splits by name.

    Raises:
        InputError: with the problems of all files.
    """
    splits: dict[str, Split] = {}
    problems = ProblemCollector()
    for name in names:
        with problems.collect():
            splits[name] = load_split(task, name, data)
        # If the hub does not give one split, it does not give the others either.
        if name not in splits and not is_here(task, data):
            break
    if problems.lines:
        raise InputError(dict.fromkeys(problems.lines), problems.hint)
    return splits


def load_split(task: Task, name: str, data: Path | None) -> Split:
    """Load one split from a folder or from the hub.

    Args:
        task: the task.
        name: one of its splits, such as `train` or `dev`.
        data: the folder that holds `SST-2/`, `RTE/` and so on (in any case, with or without hyphen), or the task's own
            folder; None for the hub. For a task of your own: the folder that the YAML's paths start from; None for the
            YAML's folder.

    Returns:
        The split.

    Raises:
        InputError: the task has no such split; a folder or file is missing, unreadable or malformed (each problem with
            its file and line); the hub cannot be reached and its local cache does not hold the split.
    """
    if name not in task.splits:
        accepted = ", ".join(task.splits)
        raise InputError(f"{task.id}: `{name}` is not a split, must be one of {accepted}.{nearest(name, task.splits)}")
    if task.tables is not None:
        return load_from_tables(task, name, data)
    if data is None:
        return load_from_hub(task, name)
    return load_from_folder(task, name, data)


def content_hash(split: Split) -> str:
    """Return the SHA-256 of a split's texts and labels in their order.

    The length of each text in bytes is hashed before the text, so that different splits give different bytes.

    Args:
        split: the split, labelled or not.

    Returns:
        64 hexadecimal digits.
    """
    second = split.second
    kind = "none" if split.labels is None else split.labels.dtype.newbyteorder("<").str
    digest = hashlib.sha256(f"{len(split)} {1 if second is None else 2} {kind}\n".encode())
    for texts in (split.first, second or []):
        for text in texts:
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
    if split.labels is not None:
        digest.update(split.labels.astype(kind).tobytes())
    return digest.hexdigest()
