"""Load the splits of a task of your own from TSV, CSV, JSONL or parquet files.

Errors list all problems of a file, each with its line, or its row in parquet.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fsd_tune.data.glue_tsv import read_label
from fsd_tune.data.task_file import cell_text
from fsd_tune.data.tasks import Split, Tables, Task
from fsd_tune.data.text_lines import (
    check_file,
    check_folder,
    columns_problem,
    count,
    first_problems,
    quoted,
    read_lines,
)
from fsd_tune.errors import InputError
from fsd_tune.settings.problems import describe

# The name of a row in messages (file and line), and its cells by column, or a text about its problem.
Row = tuple[str, dict[str, Any] | str]
_DELIMITERS = {"tsv": "\t", "csv": ","}


def load_from_tables(task: Task, name: str, data: Path | None) -> Split:
    """Load one split of a task of your own.

    Args:
        task: a task with `tables`.
        name: one of its splits.
        data: the folder that relative paths start from; None for the YAML's folder.

    Returns:
        The split.

    Raises:
        InputError: the file is missing, unreadable or malformed; each problem with its line.
    """
    import numpy as np

    assert task.tables is not None
    path = path_of(task.tables, name, data)
    texts: list[list[str]] = [[] for _ in task.columns]
    cells: list[str | None] = []
    labels: list[float] = []
    problems: list[str] = []
    for row_name, row in _rows(task, name, path):
        if isinstance(row, str):
            problems.append(f"{row_name}: {row}")
            continue
        row_problems = [
            f"{row_name}: {column}: found {describe(row[column])}, but must be text"
            for column in task.columns
            if not isinstance(row[column], str)
        ]
        cell = cell_text(row.get(task.label_column))
        cells.append(cell)
        if name != "test" or not _is_no_label(task, cell):
            label = read_label(task, cell or "")
            if isinstance(label, str):
                row_problems.append(f"{row_name}: {label}")
            else:
                labels.append(label)
        problems += row_problems
        if not row_problems:
            for column, column_texts in zip(task.columns, texts, strict=True):
                column_texts.append(row[column])
    if not problems and 0 < len(labels) < len(cells):
        unlabelled = next(number for number, cell in enumerate(cells, start=1) if _is_no_label(task, cell))
        problems.append(
            f"{path}: {task.label_column}: row {unlabelled} has no label, but either all rows or none must have one"
        )
    if problems:
        raise InputError(first_problems(path, problems))
    if not cells:
        raise InputError(f"{path}: has no examples")
    array = np.array(labels, dtype=np.float32 if task.regression else np.int64) if labels else None
    return Split(task, name, texts[0], texts[1] if len(texts) == 2 else None, array, 0, str(path))


def _is_no_label(task: Task, cell: str | None) -> bool:
    """Return whether a cell of a test file means that the row has no label; the hub's data sets have -1 there."""
    return not cell or (cell == "-1" and not task.regression and cell not in task.cells)


def path_of(tables: Tables, name: str, data: Path | None) -> Path:
    """Return the file of a split.

    Args:
        tables: the task's files.
        name: the split.
        data: the folder that relative paths start from; None for the YAML's folder.

    Returns:
        The path of the file, which is not checked.

    Raises:
        InputError: `data` is not a folder.
    """
    if data is not None:
        check_folder(data, f"the folder that the paths in {tables.file} start from")
    return (data or tables.file.parent) / Path(dict(tables.files)[name]).expanduser()


def _rows(task: Task, name: str, path: Path) -> Iterator[Row]:
    assert task.tables is not None
    tables, kind = task.tables, dict(task.tables.kinds)[name]
    # A test split needs no labels.
    needed = [*task.columns, *(() if name == "test" else (task.label_column,))]
    if kind == "jsonl":
        return _jsonl(path, needed)
    if kind == "parquet":
        return _parquet(path, needed, task.label_column)
    quoting = kind == "csv" if tables.quoting is None else tables.quoting
    return _delimited(path, needed, _DELIMITERS[kind], tables.header, quoting)


def _delimited(path: Path, needed: list[str], delimiter: str, header: bool, quoting: bool) -> Iterator[Row]:
    lines = read_lines(path)
    if not lines:
        raise InputError(f"{path}: is empty")
    plain = enumerate((line.split(delimiter) for line in lines), start=1)
    names: list[str] = []
    for number, cells in _quoted(lines, delimiter) if quoting else plain:
        if isinstance(cells, str):
            yield f"{path}:{number}", cells
            continue
        if not names:
            names = cells if header else [str(column) for column in range(1, len(cells) + 1)]
            _check_columns(f"{path}:{number}", names, needed, "the header has" if header else "has the columns")
            if header:
                continue
        if len(cells) == len(names):
            yield f"{path}:{number}", dict(zip(names, cells, strict=True))
        else:
            yield f"{path}:{number}", f"{count(len(cells), 'column')}, but must be {len(names)}"


def _quoted(lines: Sequence[str], delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the number of each record's first line, and its cells or a text about the problem.

    A record can have several lines, because quoted cells may hold line ends.
    """
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    first_line = 1
    try:
        for cells in reader:
            yield first_line, cells
            first_line = reader.line_num + 1
    except csv.Error as error:
        advice = "double the quotes inside quoted cells, or set `quoting: false` to read quotes as text"
        yield first_line, f"{error}; {advice}"


def _jsonl(path: Path, needed: list[str]) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path), start=1):
        row_name = f"{path}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = (
                f" at character {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else f": {error}"
            )
            yield row_name, f"{'is not JSON' + reason if line.strip() else 'is blank'}; must be a JSON object"
            continue
        if isinstance(record, dict):
            yield row_name, columns_problem("has", list(record), needed) or record
        else:
            yield row_name, f"found {describe(record)}, but must be a JSON object"


def _parquet(path: Path, needed: list[str], label: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    check_file(path)
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        _check_columns(str(path), names, needed, "has the columns")
        table = file.read(columns=[name for name in dict.fromkeys([*needed, label]) if name in names])
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as parquet: {str(error).splitlines()[0]}") from None
    for number, row in enumerate(rows, start=1):
        yield f"{path}: row {number}", row


def _check_columns(row_name: str, names: list[str], needed: list[str], has: str) -> None:
    if problem := columns_problem(has, names, needed):
        raise InputError(f"{row_name}: {problem}")
    repeated = [column for column in needed if names.count(column) > 1]
    if repeated:
        raise InputError(f"{row_name}: {has} {quoted(repeated)} twice, but must have each once")
