"""Tasks, GLUE's nine and the user's own: their splits from a folder or from the hub, and their metrics.

This is what other modules import. The table of tasks is in `glue_tasks.py`, reading in `glue_files.py` and
`glue_hub.py`, the user's own tasks in `task_file.py` and `task_tables.py`, metrics in `metrics.py`. Importing it is
quick: numpy, datasets and scikit-learn are imported by the functions that need them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from fsd_tune.data.glue_hub import from_dataset, load_from_hub
from fsd_tune.data.glue_tsv import load_from_folder
from fsd_tune.data.metrics import evaluate
from fsd_tune.data.table_reader import load_from_tables
from fsd_tune.data.task_file import read
from fsd_tune.data.tasks import TASKS, Split, Task, glue_task
from fsd_tune.errors import InputError, nearest

__all__ = [
    "TASKS",
    "Split",
    "Task",
    "TaskLike",
    "content_hash",
    "evaluate",
    "from_dataset",
    "get_task",
    "is_here",
    "load",
    "load_split",
]


# What functions take for a task: GLUE's by its id, the user's own by the YAML that describes it, either as it is.
TaskLike = str | Path | Task


def get_task(task: TaskLike) -> Task:
    """The task with this id (a GLUE folder's name serves, in any case, with or without hyphen), or of this YAML.

    Raises:
        InputError: no task is called so; or with every problem of the YAML.
    """
    if isinstance(task, Task):
        return task
    return read(task) if isinstance(task, Path) else glue_task(task)


def is_here(task: Task, data: Path | None) -> bool:
    """Whether a task's files lie on this machine, not on the hub."""
    return data is not None or task.tables is not None


def load(task: Task, names: Iterable[str], data: Path | None) -> dict[str, Split]:
    """Several splits of a task by name.

    Raises:
        InputError: the problems of all the files.
    """
    splits: dict[str, Split] = {}
    problems: list[str] = []
    hint = ""
    for name in names:
        try:
            splits[name] = load_split(task, name, data)
        except InputError as error:
            problems += error.problems
            hint = hint or error.hint
            if not is_here(task, data):  # what keeps one split from the hub keeps them all
                break
    if problems:
        raise InputError(dict.fromkeys(problems), hint)
    return splits


def load_split(task: Task, name: str, data: Path | None) -> Split:
    """One split, from the folder `data` or, where it is None, from the hub by `datasets`.

    `data` is the folder that holds `SST-2/`, `RTE/` and so on (any case, with or without hyphen), or the task's own
    folder. For a task of the user's own it is the folder that its YAML's paths start from; None is the YAML's.

    Raises:
        InputError: no such split; a folder or file that is missing, unreadable or malformed (each problem with its
            file and line); the hub cannot be reached.
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
    """SHA-256 over the texts and labels in their order, as 64 hexadecimal digits.

    Every text is preceded by its length in bytes, so no two different splits give the same bytes.
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
