"""The nine GLUE tasks (columns, labels, metrics) and what a loaded split of one is.

The table is method.md's section "GLUE"; the label order is that of `nyu-mll/glue`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fsd_tune.errors import InputError, nearest

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Task:
    """One GLUE task.

    Attributes:
        id: the hub's name, which users give.
        folder: its folder in the official download.
        columns: header names of the one or two text columns in the TSV files.
        hub_columns: names of the same columns on the hub.
        label_column: header name of the label column in the TSV files.
        labels: label words in index order; empty for regression.
        metrics: all reported metrics, the one that selection uses first.
        numbered: the files hold the label's index, not its word.
        headerless: the column names of train and dev files that have no header line (CoLA); empty otherwise.
        skips_incomplete: rows with missing columns are skipped and counted instead of refused (QQP).
    """

    id: str
    folder: str
    columns: tuple[str, ...]
    hub_columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    numbered: bool = False
    headerless: tuple[str, ...] = ()
    skips_incomplete: bool = False

    @property
    def metric(self) -> str:
        """The metric that selection maximises."""
        return self.metrics[0]

    @property
    def regression(self) -> bool:
        """Whether the label is a score from 0 to 5 (STS-B)."""
        return not self.labels

    @property
    def num_labels(self) -> int:
        """Width of the logits: the number of classes, 1 for regression."""
        return len(self.labels) or 1

    @property
    def default_centroids(self) -> int:
        """Centroids of the teacher memory when the settings name none (method.md, "Symbols")."""
        return 300 if self.id in ("mnli", "qqp") else 100

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of its splits. MNLI's `dev` and `test` are the matched ones, `ax` is GLUE's diagnostic set."""
        more = ("dev_mismatched", "test_mismatched", "ax") if self.id == "mnli" else ()
        return ("train", "dev", "test", *more)


_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")

TASKS: dict[str, Task] = {
    task.id: task
    for task in (
        Task(
            id="cola",
            folder="CoLA",
            columns=("sentence",),
            hub_columns=("sentence",),
            label_column="label",
            labels=("unacceptable", "acceptable"),
            metrics=("matthews_correlation", "accuracy"),
            numbered=True,
            headerless=("source", "label", "mark", "sentence"),
        ),
        Task(
            id="sst2",
            folder="SST-2",
            columns=("sentence",),
            hub_columns=("sentence",),
            label_column="label",
            labels=("negative", "positive"),
            metrics=("accuracy",),
            numbered=True,
        ),
        Task(
            id="mrpc",
            folder="MRPC",
            columns=("#1 String", "#2 String"),
            hub_columns=_PAIR,
            label_column="Quality",
            labels=("not_equivalent", "equivalent"),
            metrics=("f1", "accuracy"),
            numbered=True,
        ),
        Task(
            id="qqp",
            folder="QQP",
            columns=("question1", "question2"),
            hub_columns=("question1", "question2"),
            label_column="is_duplicate",
            labels=("not_duplicate", "duplicate"),
            metrics=("f1", "accuracy"),
            numbered=True,
            skips_incomplete=True,
        ),
        Task(
            id="stsb",
            folder="STS-B",
            columns=_PAIR,
            hub_columns=_PAIR,
            label_column="score",
            labels=(),
            metrics=("pearson", "spearman"),
        ),
        Task(
            id="mnli",
            folder="MNLI",
            columns=_PAIR,
            hub_columns=("premise", "hypothesis"),
            label_column="gold_label",
            labels=("entailment", "neutral", "contradiction"),
            metrics=("accuracy",),
        ),
        Task(
            id="qnli",
            folder="QNLI",
            columns=("question", "sentence"),
            hub_columns=("question", "sentence"),
            label_column="label",
            labels=_ENTAILMENT,
            metrics=("accuracy",),
        ),
        Task(
            id="rte",
            folder="RTE",
            columns=_PAIR,
            hub_columns=_PAIR,
            label_column="label",
            labels=_ENTAILMENT,
            metrics=("accuracy",),
        ),
        Task(
            id="wnli",
            folder="WNLI",
            columns=_PAIR,
            hub_columns=_PAIR,
            label_column="label",
            labels=("not_entailment", "entailment"),
            metrics=("accuracy",),
            numbered=True,
        ),
    )
}


@dataclass(frozen=True, eq=False)
class Split:
    """The examples of one split in the file's order, sentences kept verbatim.

    Attributes:
        task: the task.
        name: `train`, `dev`, `test`, or MNLI's `dev_mismatched`, `test_mismatched` and `ax`.
        first: N texts.
        second: N texts, or None for a task of single sentences.
        labels: [N] int64 class indices or float32 scores; None where the split has no labels.
        skipped: rows left out: QQP's with missing columns, MNLI's without a gold label.
        source: the file or the hub dataset that it was read from.
    """

    task: Task
    name: str
    first: list[str]
    second: list[str] | None
    labels: np.ndarray | None
    skipped: int
    source: str

    def __len__(self) -> int:
        return len(self.first)

    @property
    def empty_texts(self) -> int:
        """Examples with a blank text: they are kept (QQP has some), and worth telling the user."""
        texts = zip(self.first, self.second or self.first, strict=True)
        return sum(not first.strip() or not second.strip() for first, second in texts)


def get_task(name: str) -> Task:
    """The task called `name`: an id or a folder's name, in any case, with or without hyphen or underscore.

    Raises:
        InputError: no task is called so.
    """
    task = TASKS.get(name_key(name))
    if task is None:
        raise InputError(f"task: `{name}` is not a GLUE task, must be one of {', '.join(TASKS)}.{nearest(name, TASKS)}")
    return task


def name_key(name: str) -> str:
    """What is compared of a task's or a folder's name."""
    return re.sub(r"[-_ ]", "", name.lower())


def quoted(names: Iterable[str]) -> str:
    """The names in backticks, as messages list them."""
    return ", ".join(f"`{name}`" for name in names) or "none"
