"""Tasks (columns, labels, metrics): the nine of GLUE, and what is known of a user's own; what a loaded split is.

The table is method.md's section "GLUE"; the label order is that of `nyu-mll/glue`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsd_tune.errors import InputError, nearest

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Tables:
    """The files of a user's own task, as `task_file.read` finds them described.

    Attributes:
        file: the YAML that describes the task, absolute; its folder is where the files are unless `--data` names one.
        files: (split, path as the YAML has it).
        kinds: (split, one of tsv, csv, jsonl and parquet).
        header: whether tsv and csv files begin with the columns' names; without, columns are called 1, 2, ...
        quoting: whether quotation marks in tsv and csv files are quotes; None for csv alone.
    """

    file: Path
    files: tuple[tuple[str, str], ...]
    kinds: tuple[tuple[str, str], ...]
    header: bool = True
    quoting: bool | None = None


@dataclass(frozen=True)
class Task:
    """One task, of GLUE or of the user's own.

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
        scores: lowest and highest label of a regression task.
        own_cells: what the files of a user's own task hold for each label, in index order.
        tables: the files of a user's own task; None for GLUE's.
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
    scores: tuple[float, float] = (0.0, 5.0)
    own_cells: tuple[str, ...] = ()
    tables: Tables | None = None

    @property
    def metric(self) -> str:
        """The metric that selection maximises."""
        return self.metrics[0]

    @property
    def regression(self) -> bool:
        """Whether the label is a score (STS-B: from 0 to 5)."""
        return not self.labels

    @property
    def cells(self) -> tuple[str, ...]:
        """What files hold for each label, in index order."""
        return self.own_cells or (tuple(map(str, range(self.num_labels))) if self.numbered else self.labels)

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
        if self.tables is not None:
            return tuple(name for name, _ in self.tables.files)
        more = ("dev_mismatched", "test_mismatched", "ax") if self.id == "mnli" else ()
        return ("train", "dev", "test", *more)

    @property
    def words(self) -> list[str]:
        """The words of a command line that name it."""
        return ["--task", self.id] if self.tables is None else ["--task-file", str(self.tables.file)]

    @property
    def definition(self) -> str | dict[str, Any]:
        """What it is, as plain JSON: the id says all of GLUE's; where one's own lies is left out."""
        if self.tables is None:
            return self.id
        return {
            "id": self.id,
            "text": list(self.columns),
            "label": self.label_column,
            "labels": list(self.labels),
            "scores": list(self.scores) if self.regression else [],
            "metrics": list(self.metrics),
        }


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


def glue_task(name: str) -> Task:
    """The GLUE task called `name`: an id or a folder's name, in any case, with or without hyphen or underscore.

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
