"""Read the YAML of a task of your own: its files, text and label columns, labels and metric."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fsd_tune.data.tasks import TASKS, Tables, Task, name_key
from fsd_tune.errors import nearest
from fsd_tune.settings import yaml_file
from fsd_tune.settings.fields import Truth, note_errors
from fsd_tune.settings.problems import Problems, as_number, listed

Kind = Literal["tsv", "csv", "jsonl", "parquet"]
ENDINGS: dict[str, Kind] = {
    ".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_METRICS_BY_KIND = {
    "regression": ("pearson", "spearman"),
    "two labels": ("accuracy", "f1", "matthews_correlation"),
    "several labels": ("accuracy", "macro_f1", "matthews_correlation"),
}


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", value):
        raise ValueError("must be a name of letters, digits, `_`, `-` and `.`, at most 64")
    if name_key(value) in TASKS:
        raise ValueError("must not be the name of a GLUE task")
    return value


def _column(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError("must be a column's name, or its number from 1 in files without a header")
    return str(value)


def _columns(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list | tuple) else [value]
    if len(names) not in (1, 2):
        raise ValueError("must be one column or a list of two")
    columns = tuple(_column(name) for name in names)
    if len(set(columns)) < len(columns):
        raise ValueError("must be two different columns")
    return columns


def cell_text(value: Any) -> str | None:
    """Return a label as text, the same for every kind of file: 1 and 1.0 are `1`, true is `true`.

    Args:
        value: a label in a task's YAML or in a cell of a data file.

    Returns:
        The text, empty for nothing and for NaN; None if `value` is neither text nor a number nor a boolean.
    """
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal) and value == value // 1:
        return str(int(value))
    return str(value) if isinstance(value, str | int | float | Decimal) else None


def _labels(value: Any) -> Any:
    pairs = list(value.items()) if isinstance(value, dict) else [(item, item) for item in _items(value)]
    labels = [(cell_text(cell), cell_text(word)) for cell, word in pairs]
    accepted = "must be a list of at least two labels, or a mapping from the files' cells to the labels' words"
    if len(labels) < 2 or not all(cell and word and word.strip() for cell, word in labels):
        raise ValueError(accepted)
    if not all(word and word.isprintable() for _, word in labels):
        raise ValueError("must be labels without line ends and control characters")
    for texts in zip(*labels, strict=True):
        if len({str(text).lower() for text in texts}) < len(texts):
            raise ValueError("must be different labels, even if upper and lower case are ignored")
    return tuple((str(cell), str(word)) for cell, word in labels)


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _scores(value: Any) -> Any:
    accepted = "must be [lowest, highest], two numbers, such as [0, 5]"
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(accepted)
    try:
        low, high = (as_number(number, float, -1e9, 1e9) for number in value)
    except ValueError:
        raise ValueError(accepted) from None
    if low >= high:
        raise ValueError(f"{accepted}, the lower first")
    return (low, high)


def _paths(value: Any) -> tuple[str, ...]:
    paths = value if isinstance(value, list | tuple) else [value]
    if not paths or not all(isinstance(path, str) and path.strip() and "\0" not in path for path in paths):
        raise ValueError("must be a file's path, a pattern such as train-*.csv, or a list of these")
    return tuple(paths)


def _delimiter(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 1 or value in '"\r\n':
        raise ValueError('must be one character, such as ";" or "\\t" in quotes')
    return value


def _skip_labels(value: Any) -> tuple[str, ...]:
    cells = [cell_text(item) for item in _items(value)]
    if not cells or not all(cells):
        raise ValueError('must be a list of labels, such as ["-"]')
    return tuple(map(str, cells))


Paths = Annotated[tuple[str, ...], BeforeValidator(_paths)]


class Files(BaseModel):
    """The files of the splits."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    train: Paths = Field(description="the training split's file, a pattern such as train-*.csv, or a list of these")
    dev: Paths = Field(description="the dev split's file or files")
    test: Paths | None = Field(default=None, description="the test split's file or files; they need no labels")


class TaskFile(BaseModel):
    """All keys of a task's YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, BeforeValidator(_name)] = Field(description="the name of the task")
    text: Annotated[tuple[str, ...], BeforeValidator(_columns)] = Field(
        description="the text's column, or a list of the two columns of a pair"
    )
    label: Annotated[str, BeforeValidator(_column)] = Field(description="the label's column")
    labels: Annotated[tuple[tuple[str, str], ...] | None, BeforeValidator(_labels)] = Field(
        default=None,
        description="labels in the order of their index: a list of the words in the files, or a mapping from the "
        "files' cells to words",
    )
    scores: Annotated[tuple[float, float] | None, BeforeValidator(_scores)] = Field(
        default=None, description="instead of labels, for regression: [lowest, highest]"
    )
    metric: Literal["accuracy", "f1", "macro_f1", "matthews_correlation", "pearson"] | None = Field(
        default=None,
        description="the metric that selection maximises; the other metrics of such a task are reported, too",
    )
    files: Files = Field(
        description="a mapping from train, dev and test to paths, relative to the YAML's folder or to --data"
    )
    format: Kind | None = Field(default=None, description="the format of all files; by default their endings decide")
    header: Truth = Field(default=True, description="whether tsv and csv files begin with the columns' names")
    quoting: Truth | None = Field(
        default=None, description="whether quotation marks in tsv and csv files are quotes; by default in csv alone"
    )
    delimiter: Annotated[str, BeforeValidator(_delimiter)] | None = Field(
        default=None, description='what separates the cells of tsv and csv files; by default "\\t" and ","'
    )
    skip_labels: Annotated[tuple[str, ...], BeforeValidator(_skip_labels)] | None = Field(
        default=None, description="labels of rows that are skipped, such as those on which annotators did not agree"
    )


def read_task_file(path: Path) -> Task:
    """Read the YAML of a task. The files that it names are not opened.

    Args:
        path: the YAML file.

    Returns:
        The task.

    Raises:
        InputError: with every problem of the YAML as `file:line: key: ...`.
    """
    document = yaml_file.read_yaml(path, "name")
    problems = Problems(str(path), document.lines, document.issues, {})
    described: TaskFile | None = None
    try:
        # A key without a value counts as missing.
        values = {key: value for key, value in document.data.items() if value is not None}
        described = TaskFile.model_validate(values)
    except ValidationError as error:
        note_errors(error, TaskFile, problems)
    if described is not None:
        _check(described, problems)
    problems.raise_any()
    assert described is not None
    metrics = _metrics(described)
    chosen = described.metric or metrics[0]
    files = _files(described)
    return Task(
        id=described.name,
        folder="",
        columns=described.text,
        hub_columns=described.text,
        label_column=described.label,
        labels=tuple(word for _, word in described.labels or ()),
        metrics=(chosen, *(metric for metric in metrics if metric != chosen)),
        scores=described.scores or (0.0, 5.0),
        own_cells=tuple(cell for cell, _ in described.labels or ()),
        tables=Tables(
            file=path.absolute(),
            files=tuple(files.items()),
            kinds=tuple((split, described.format or _kind(paths[0])) for split, paths in files.items()),
            header=described.header,
            quoting=described.quoting,
            delimiter=described.delimiter,
            skip_labels=described.skip_labels or (),
        ),
    )


def _files(described: TaskFile) -> dict[str, tuple[str, ...]]:
    return {split: paths for split, paths in described.files.model_dump().items() if paths is not None}


def _kind(file: str) -> Any:
    return ENDINGS.get(Path(file).suffix.lower())


def _metrics(described: TaskFile) -> tuple[str, ...]:
    if described.labels is None:
        return _METRICS_BY_KIND["regression"]
    return _METRICS_BY_KIND["two labels" if len(described.labels) == 2 else "several labels"]


def _check(described: TaskFile, problems: Problems) -> None:
    """Check the keys that depend on each other."""
    if (described.labels is None) == (described.scores is None):
        problem = (
            "must not be together with scores"
            if described.labels
            else "is missing: give labels, or scores: [low, high]"
        )
        problems.add(("labels",), f"{problem}.")
        return
    if described.label in described.text:
        problems.found(("label",), described.label, "must be another column than the text's")
    # The bootstrap of `fsd-tune confirm` has no formula for Spearman's ranks.
    metrics = tuple(metric for metric in _metrics(described) if metric != "spearman")
    if described.metric is not None and described.metric not in metrics:
        kind = "scores" if described.labels is None else f"{len(described.labels)} labels"
        problems.found(("metric",), described.metric, f"must be one of {listed(metrics)} for {kind}", metrics)
    cells = {cell.lower() for cell, _ in described.labels or ()}
    if clash := [cell for cell in described.skip_labels or () if cell.lower() in cells]:
        problems.add(("skip_labels",), f"must not hold {listed(clash)}, which `labels:` lists.")
    kinds = set()
    for split, paths in _files(described).items():
        split_kinds = {described.format or _kind(path) for path in paths}
        kinds |= split_kinds
        if None in split_kinds:
            file = next(path for path in paths if _kind(path) is None)
            problems.add(
                ("files", split),
                f"found {file}, but must end in one of {listed(ENDINGS)}, or "
                f"`format:` must name its format ({listed(get_args(Kind))}).{nearest(Path(file).suffix, ENDINGS)}",
            )
        elif len(split_kinds) > 1:
            problems.add(("files", split), f"found {listed(sorted(split_kinds))}, but must be files of one format.")
    if not kinds & {"tsv", "csv", None}:
        for key in ("header", "quoting", "delimiter"):
            if key in described.model_fields_set:
                problems.add((key,), "does not apply to jsonl and parquet files.")
    elif not described.header:
        numbered_columns = [(("label",), described.label), *((("text",), column) for column in described.text)]
        for path, column in numbered_columns:
            if not column.isdecimal() or int(column) < 1:
                problems.found(path, column, "must be a column's number from 1 with `header: false`")
