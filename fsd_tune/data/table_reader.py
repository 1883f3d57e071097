"""Load the splits of a task of your own from TSV, CSV, JSONL or parquet files.

Errors list all problems of a file, each with its line, or its row in parquet.
"""

from __future__ import annotations

import csv
import glob
import json
import re
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
from fsd_tune.storage.uri import local_path

# The name of a row in messages (file and line), and its cells by column, or a text about its problem.
Row = tuple[str, dict[str, Any] | str]
_DELIMITERS = {"tsv": "\t", "csv": ","}
# Words for the errors of Python's csv module, by a part of their text.
_CSV_PROBLEMS = (
    ("unexpected end of data", "a quoted cell begins here and does not end"),
    ("expected after", "text follows a closing quote"),
    ("new-line character", "a carriage return stands inside a cell without quotes"),
)


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
    paths = _paths_of(task.tables, name, data)
    texts: list[list[str]] = [[] for _ in task.columns]
    labels: list[float] = []
    unlabelled = ""
    problems: list[str] = []
    skipped = 0
    for row_name, row in (row for path in paths for row in _rows(task, name, path)):
        if isinstance(row, str):
            problems.append(f"{row_name}: {row}")
            continue
        row_problems = [
            f"{row_name}: {column}: {problem}" for column in task.columns if (problem := _text_problem(row[column]))
        ]
        value = row.get(task.label_column)
        cell = _label_cell(task, value)
        if cell in task.tables.skip_labels:
            skipped += 1
            continue
        if cell is None:
            problem = f"found {describe(value)}, but must be text, a number, or true or false"
            row_problems.append(f"{row_name}: {task.label_column}: {problem}")
        elif name == "test" and _is_no_label(task, cell):
            unlabelled = unlabelled or row_name
        else:
            label = read_label(task, cell)
            if isinstance(label, str):
                row_problems.append(f"{row_name}: {label}")
            else:
                labels.append(label)
        problems += row_problems
        if not row_problems:
            for column, column_texts in zip(task.columns, texts, strict=True):
                column_texts.append(row[column])
    if not problems and labels and unlabelled:
        problems.append(f"{unlabelled}: {task.label_column}: has no label, but either all rows or none must have one")
    if problems:
        raise InputError(first_problems(paths[0], problems))
    if not texts[0]:
        reason = f" ({count(skipped, 'row')} skipped)" if skipped else ""
        raise InputError(f"{paths[0]}: has no examples{reason}")
    array = np.array(labels, dtype=np.float32 if task.regression else np.int64) if labels else None
    source = str(paths[0]) + (f" and {count(len(paths) - 1, 'more file')}" if len(paths) > 1 else "")
    return Split(task, name, texts[0], texts[1] if len(texts) == 2 else None, array, skipped, source)


def _text_problem(value: Any) -> str:
    """Return what is wrong with a text; empty text if nothing is."""
    if not isinstance(value, str):
        return f"found {describe(value)}, but must be text"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = f"\\u{ord(value[error.start]):04x}"
        return f"found {code} without its other half at character {error.start + 1}, but must be valid Unicode"
    return ""


def _label_cell(task: Task, value: Any) -> str | None:
    """Return a label as the task's YAML writes it; None if the value can be no label.

    pandas writes the labels 0 and 1 as `0.0` and `1.0` if one row of the column was empty, and `True` for `true`.
    """
    cell = cell_text(value)
    if cell is None or task.regression or cell in task.cells:
        return cell
    number = cell.rstrip("0").removesuffix(".") if re.fullmatch(r"-?\d+\.0+", cell) else cell
    return next((form for form in (number, cell.lower()) if form in task.cells), cell)


def _is_no_label(task: Task, cell: str) -> bool:
    """Return whether a cell of a test file means that the row has no label; the hub's data sets have -1 there."""
    return not cell or (cell == "-1" and not task.regression and cell not in task.cells)


def _paths_of(tables: Tables, name: str, data: Path | None) -> list[Path]:
    """Return the files of a split, those of a pattern in the order of their names.

    Raises:
        InputError: `data` is not a folder, or no file matches a pattern.
    """
    if data is not None:
        check_folder(data, f"the folder that the paths in {tables.file} start from")
    paths: list[Path] = []
    for text in dict(tables.files)[name]:
        path = (data or tables.file.parent) / local_path(text)
        if path.exists() or not glob.has_magic(text):
            paths.append(path)
            continue
        matching = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207  (absolute patterns, too)
        if not matching:
            raise InputError(f"{tables.file}: files.{name}: found {text}, but no file matches it.")
        paths += matching
    return list(dict.fromkeys(paths))


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
    return _delimited(path, needed, tables.delimiter or _DELIMITERS[kind], tables.header, quoting)


def _delimited(path: Path, needed: list[str], delimiter: str, header: bool, quoting: bool) -> Iterator[Row]:
    lines = read_lines(path)
    if not lines:
        raise InputError(f"{path}: is empty")
    _check_delimiter(f"{path}:1", lines[0], delimiter, needed, header)
    plain = enumerate((line.split(delimiter) for line in lines), start=1)
    names: list[str] = []
    for number, cells in _quoted(lines, delimiter) if quoting else plain:
        if isinstance(cells, str):
            yield f"{path}:{number}", cells
            continue
        if not any(cells) and len(names) != 1:  # A blank line.
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
    # The process has one limit. No cell is longer than the file, which is in memory already.
    limit = csv.field_size_limit(sum(map(len, lines)) + len(lines))
    try:
        for cells in reader:
            yield first_line, cells
            first_line = reader.line_num + 1
    except csv.Error as error:
        reason = next((words for part, words in _CSV_PROBLEMS if part in str(error)), str(error))
        advice = "double the quotes inside quoted cells, or set `quoting: false` to read quotes as text"
        yield first_line, f"{reason}; {advice}"
    finally:
        csv.field_size_limit(limit)


def _check_delimiter(row_name: str, line: str, delimiter: str, needed: list[str], header: bool) -> None:
    """Raise an `InputError` that names the delimiter, if another one gives the first line the needed columns."""

    def fits(separator: str) -> bool:
        columns = [column.strip('"') for column in line.split(separator)]
        return set(needed) <= set(columns) if header else all(int(column) <= len(columns) for column in needed)

    other = next((separator for separator in ",;\t|" if separator in line and fits(separator)), delimiter)
    if other != delimiter and not fits(delimiter):
        raise InputError(
            f"{row_name}: the columns are separated by {_shown(other)}, but read with {_shown(delimiter)}; "
            f"write `delimiter: {json.dumps(other)}` into the task's YAML"
        )


def _shown(delimiter: str) -> str:
    return {"\t": "tabs", ",": "commas", ";": "semicolons"}.get(delimiter, f"`{delimiter}`")


def _jsonl(path: Path, needed: list[str]) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        row_name = f"{path}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = (
                f" at character {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else f": {error}"
            )
            yield row_name, f"is not JSON{reason}; must be a JSON object"
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
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as parquet: {str(error).splitlines()[0]}") from None
    number = 0
    for batch in table.to_batches():
        for index in range(len(batch)):
            number += 1
            row_name = f"{path}: row {number}"
            try:
                yield row_name, {column: batch[column][index].as_py() for column in batch.schema.names}
            except UnicodeDecodeError:
                yield row_name, "holds text that is not UTF-8"


def _check_columns(row_name: str, names: list[str], needed: list[str], has: str) -> None:
    if problem := columns_problem(has, names, needed):
        raise InputError(f"{row_name}: {problem}")
    repeated = [column for column in needed if names.count(column) > 1]
    if repeated:
        raise InputError(f"{row_name}: {has} {quoted(repeated)} twice, but must have each once")
