"""Load GLUE splits from a folder: the official download (`SST-2/train.tsv`) or a copy of the hub (`sst2/*.parquet`).

Quotation marks in TSV files are text. Errors list all problems of a file, each with its line.
"""

from __future__ import annotations

from pathlib import Path

from fsd_tune.data.glue_hub import load_shards, shards_of
from fsd_tune.data.tasks import Split, Task, name_key
from fsd_tune.data.text_lines import (
    check_folder,
    columns_problem,
    count,
    entries,
    first_problems,
    found_cell,
    meant,
    quoted,
    read_lines,
    shorten,
    some,
)
from fsd_tune.errors import InputError, nearest

_MRPC_IDS = ("#1 ID", "#2 ID")
_AX_FOLDERS = ("AX", "diagnostic")
_AX_FILES = ("AX.tsv", "diagnostic.tsv", "diagnostic-full.tsv")
_AX_COLUMNS = {"Premise": "sentence1", "Hypothesis": "sentence2", "Label": "gold_label"}  # of diagnostic-full.tsv


class NoDiagnosticSetError(InputError):
    """An error for data without a file of GLUE's diagnostic set, the split `ax` of MNLI."""


def load_from_folder(task: Task, name: str, data: Path) -> Split:
    """Load one split from the official download or a copy of the hub's files.

    Args:
        task: the task.
        name: one of its splits.
        data: the folder that holds the tasks' folders, or the task's own folder.

    Returns:
        The split.

    Raises:
        InputError: a folder or file is missing, unreadable or malformed.
    """
    folder = _task_folder(task, data)
    if task.id == "mrpc" and not (folder / f"{name}.tsv").exists():
        original = folder / ("msr_paraphrase_test.txt" if name == "test" else "msr_paraphrase_train.txt")
        if original.exists():
            return _read_mrpc_original(task, name, original)
    if name == "ax":
        folders = _ax_folders(folder)
        for ax_folder in folders:
            if shards := shards_of(task, name, ax_folder):
                return load_shards(task, name, shards)
        return _read_split(task, name, _ax_file(folders))
    stem = f"{name}_matched" if task.id == "mnli" and name in ("dev", "test") else name
    file, shards = folder / f"{stem}.tsv", shards_of(task, name, folder)
    if shards and file.exists():
        raise InputError(f"{folder}: holds {file.name} as well as {shards[0].name}, but must hold one of them.")
    return load_shards(task, name, shards) if shards else _read_split(task, name, file)


def _task_folder(task: Task, data: Path) -> Path:
    check_folder(data, f"the folder that holds {task.folder}/")
    folders, _ = entries(data)
    matching = [name for name in folders if name_key(name) == task.id]
    if task.folder in matching or len(matching) == 1:
        return data / (task.folder if task.folder in matching else matching[0])
    if matching:
        raise InputError(f"{data}: {quoted(matching)} all name {task.id}; keep one, best as `{task.folder}`")
    if name_key(data.resolve().name) == task.id:
        return data
    content = some([f"{name}/" for name in folders]) or "no folder"
    raise InputError(f"{data}: holds {content}, but needs {task.folder}/.{meant(folders, [task.folder])}")


def _ax_folders(mnli: Path) -> list[Path]:
    """Return the folders that can hold GLUE's diagnostic set: those beside MNLI's folder and, last, that folder."""
    parent = mnli.absolute().parent
    keys = [name_key(name) for name in _AX_FOLDERS]
    return [*(parent / name for name in entries(parent)[0] if name_key(name) in keys), mnli]


def _ax_file(folders: list[Path]) -> Path:
    for folder in folders:
        for file in _AX_FILES:
            if (folder / file).is_file():
                return folder / file
    if len(folders) > 1:
        files = entries(folders[0])[1]
        content = f"{folders[0]}: holds {some(files) or 'no file'}"
    else:
        content = f"{folders[0].absolute().parent}: holds neither AX/ nor diagnostic/"
    raise NoDiagnosticSetError(f"{content}, but the diagnostic set (ax) needs one of {', '.join(_AX_FILES)}.")


def _read_split(task: Task, name: str, path: Path, dev_ids: set[tuple[str, ...]] | None = None) -> Split:
    """Read one file of the official layout.

    With `dev_ids` (MRPC), the split `dev` has the rows with these ids, and any other split has the other rows.
    """
    import numpy as np

    lines = read_lines(path)
    header, start = _header(task, name, path, lines, _MRPC_IDS if dev_ids is not None else ())
    labelled = task.label_column in header
    texts: list[list[str]] = [[] for _ in task.columns]
    labels: list[float] = []
    problems: list[str] = []
    skipped = 0
    for number, line in enumerate(lines[start:], start=start + 1):
        cells = line.split("\t")
        row = dict(zip(header, cells, strict=False))
        if task.skips_incomplete and (len(cells) < len(header) or (labelled and not row[task.label_column])):
            skipped += 1
            continue
        if len(cells) != len(header):
            problems.append(f"{path}:{number}: {count(len(cells), 'column')}, but must be {len(header)}")
            continue
        if dev_ids is not None and (tuple(row[column] for column in _MRPC_IDS) in dev_ids) != (name == "dev"):
            continue
        if labelled:
            cell = row[task.label_column]
            if task.id == "mnli" and cell == "-":  # The annotators did not agree on a gold label.
                skipped += 1
                continue
            label = read_label(task, cell)
            if isinstance(label, str):
                problems.append(f"{path}:{number}: {label}")
                continue
            labels.append(label)
        for column, column_texts in zip(task.columns, texts, strict=True):
            column_texts.append(row[column])
    if problems:
        raise InputError(first_problems(path, problems))
    if not texts[0]:
        reason = f" ({count(skipped, 'row')} skipped)" if skipped else ""
        raise InputError(f"{path}: has no examples{reason}")
    array = np.array(labels, dtype=np.float32 if task.regression else np.int64) if labelled else None
    return Split(task, name, texts[0], texts[1] if len(texts) == 2 else None, array, skipped, str(path))


def _header(task: Task, name: str, path: Path, lines: list[str], id_columns: tuple[str, ...]) -> tuple[list[str], int]:
    """Return the column names and the index of the first row below them. Test files need no label column."""
    is_test = name.startswith("test") or name == "ax"
    if task.headerless and not is_test:
        return list(task.headerless), 0
    if not lines:
        raise InputError(f"{path}: is empty")
    header = lines[0].split("\t")
    if name == "ax":
        header = [_AX_COLUMNS.get(column, column) for column in header]
    needed = [*task.columns, *(() if is_test else (task.label_column,)), *id_columns]
    if problem := columns_problem("the header has", header, needed):
        raise InputError(f"{path}:1: {problem}")
    return header, 1


def read_label(task: Task, cell: str) -> float | str:
    """Return the label in a cell, or what is wrong with it.

    Args:
        task: the task.
        cell: the text of the cell.

    Returns:
        The class index or the score; a text about the problem if the cell is no label.
    """
    if not task.regression:
        if cell in task.cells:
            return task.cells.index(cell)
        accepted = ", ".join(task.cells)
        return f"{task.label_column}: {found_cell(cell)}, must be one of {accepted}.{nearest(cell, task.cells)}"
    low, high = task.scores
    accepted = f"must be from {low:g} to {high:g}"
    try:
        score = float(cell)
    except ValueError:
        return f"{task.label_column}: {found_cell(cell)} is not a number, {accepted}"
    if not low <= score <= high:  # This is also true of NaN.
        return f"{task.label_column}: {shorten(cell)}, {accepted}"
    return score


def _read_mrpc_original(task: Task, name: str, path: Path) -> Split:
    """Read MRPC as its authors publish it: `dev_ids.tsv` lists the pairs of the training file that belong to dev."""
    if name == "test":
        return _read_split(task, name, path)
    ids_path = path.with_name("dev_ids.tsv")
    dev_ids: set[tuple[str, ...]] = set()
    problems = []
    for number, line in enumerate(read_lines(ids_path), start=1):
        cells = line.split("\t")
        if len(cells) != 2:
            problems.append(f"{ids_path}:{number}: {count(len(cells), 'column')}, but must be 2 (the pair's ids)")
        dev_ids.add(tuple(cells))
    if problems:
        raise InputError(first_problems(ids_path, problems))
    return _read_split(task, name, path, dev_ids)
