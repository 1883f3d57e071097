"""Tasks (columns, labels, metrics) and loaded splits, with the table of GLUE's nine tasks.

Metrics are those of docs/explanation/method.md, "Metrics"; the label order is that of `nyu-mll/glue`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsd_tune.errors import InputError, nearest

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Tables:
    """The files of a task of your own, as its YAML describes them.

    Attributes:
        file: the YAML, absolute; the files' paths start from its folder unless `--data` names another.
        files: pairs of split and its paths as written in the YAML; a path can be a pattern such as `train-*.csv`.
        kinds: pairs of split and format: tsv, csv, jsonl or parquet.
        header: whether tsv and csv files begin with the columns' names; otherwise columns are called 1, 2, ...
        quoting: whether quotation marks in tsv and csv files are quotes; None means only in csv.
        delimiter: what separates the cells of tsv and csv files; None for the tab and the comma.
        skip_labels: labels of rows that are skipped.
    """

    file: Path
    files: tuple[tuple[str, tuple[str, ...]], ...]
    kinds: tuple[tuple[str, str], ...]
    header: bool = True
    quoting: bool | None = None
    delimiter: str | None = None
    skip_labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A task of GLUE or of your own.

    Attributes:
        id: the name that users give; for GLUE the hub's name.
        folder: name of its folder in the official download.
        columns: header names of the one or two text columns in the TSV files.
        hub_columns: names of the same columns on the hub.
        label_column: header name of the label column in the TSV files.
        labels: label words in index order; empty for regression.
        metrics: all reported metrics, the one that selection uses first.
        numbered: whether the files hold the label's index instead of its word.
        headerless: the column names of train and dev files that have no header line (CoLA); empty otherwise.
        skips_incomplete: whether rows with missing columns are skipped and counted instead of refused (QQP).
        scores: lowest and highest label of a regression task.
        own_cells: the cell for each label in the files of a task of your own, in index order.
        tables: the files of a task of your own; None for GLUE's.

    Example:
        >>> import fsd_tune as fsd
        >>> task = fsd.load_task("mrpc")
        >>> task.metric, task.num_labels
        ('f1', 2)
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
        """True if the label is a score (STS-B: from 0 to 5)."""
        return not self.labels

    @property
    def cells(self) -> tuple[str, ...]:
        """The cell for each label in the files, in index order."""
        return self.own_cells or (tuple(map(str, range(self.num_labels))) if self.numbered else self.labels)

    @property
    def num_labels(self) -> int:
        """Width of the logits: the number of classes, 1 for regression."""
        return len(self.labels) or 1

    @property
    def default_centroids(self) -> int:
        """Number of centroids of the teacher memory if the settings give no number, as in Jung et al. (2023)."""
        return 300 if self.id in ("mnli", "qqp") else 100

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits. MNLI's `dev` and `test` are the matched ones; `ax` is GLUE's diagnostic set."""
        if self.tables is not None:
            return tuple(name for name, _ in self.tables.files)
        mnli_splits = ("dev_mismatched", "test_mismatched", "ax") if self.id == "mnli" else ()
        return ("train", "dev", "test", *mnli_splits)

    @property
    def words(self) -> list[str]:
        """The command-line arguments that select the task."""
        return ["--task", self.id] if self.tables is None else ["--task-file", str(self.tables.file)]

    @property
    def definition(self) -> str | dict[str, Any]:
        """The task as plain JSON, without paths: the id of a GLUE task, or the full description of your own."""
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
    """The examples of one split in the file's order, with unchanged texts.

    Attributes:
        task: the task.
        name: `train`, `dev`, `test`, or MNLI's `dev_mismatched`, `test_mismatched` and `ax`.
        first: N texts.
        second: N texts, or None for a task of single sentences.
        labels: [N] int64 class indices or float32 scores; None if the split has no labels.
        skipped: number of rows left out: rows of QQP with missing columns, rows of MNLI without a gold label.
        source: the file or the hub dataset that the split was read from.
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
        """Number of examples with a blank text. QQP has some; they are used, but users should know of them."""
        texts = zip(self.first, self.second or self.first, strict=True)
        return sum(not first.strip() or not second.strip() for first, second in texts)


def glue_task(name: str) -> Task:
    """Return a GLUE task by its id or folder name, in any case, with or without hyphen or underscore.

    Args:
        name: the name, such as `sst2`, `SST-2` or `sst_2`.

    Returns:
        The task.

    Raises:
        InputError: no task has this name.
    """
    task = TASKS.get(name_key(name))
    if task is None:
        raise InputError(f"task: `{name}` is not a GLUE task, must be one of {', '.join(TASKS)}.{nearest(name, TASKS)}")
    return task


def name_key(name: str) -> str:
    """Return the name of a task or folder in the form in which names are compared.

    Args:
        name: the name.

    Returns:
        The name in lower case, without hyphens, underscores and spaces.
    """
    return re.sub(r"[-_ ]", "", name.lower())
