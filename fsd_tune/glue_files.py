"""GLUE splits from a folder with the layout of the official download: `SST-2/train.tsv` and so on.

Quotation marks are text. Every problem of a file is found before any is reported, with its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fsd_tune.errors import InputError, nearest
from fsd_tune.glue_tasks import Split, Task, name_key, quoted

SHOWN_PER_FILE = 10
_MRPC_IDS = ("#1 ID", "#2 ID")
_AX_FOLDERS = ("AX", "diagnostic")
_AX_FILES = ("AX.tsv", "diagnostic.tsv", "diagnostic-full.tsv")
_AX_COLUMNS = {"Premise": "sentence1", "Hypothesis": "sentence2", "Label": "gold_label"}  # of diagnostic-full.tsv


class NoDiagnosticSetError(InputError):
    """The data hold no file of GLUE's diagnostic set, the split ax of mnli."""


def load_from_folder(task: Task, name: str, data: Path) -> Split:
    """One split from `data`, the folder that holds the tasks' folders, or from the task's own folder.

    Raises:
        InputError: a folder or file is missing, unreadable or malformed.
    """
    folder = _task_folder(task, data)
    if task.id == "mrpc" and not (folder / f"{name}.tsv").exists():
        original = folder / ("msr_paraphrase_test.txt" if name == "test" else "msr_paraphrase_train.txt")
        if original.exists():
            return _read_mrpc_original(task, name, original)
    if name == "ax":
        return _read_split(task, name, _ax_file(folder))
    stem = f"{name}_matched" if task.id == "mnli" and name in ("dev", "test") else name
    return _read_split(task, name, folder / f"{stem}.tsv")


def _task_folder(task: Task, data: Path) -> Path:
    if not data.is_dir():
        found = "is a file" if data.exists() else "no such folder"
        hint = nearest(data.name, _entries(data.parent)[0]) if data.parent.is_dir() else ""
        raise InputError(f"{data}: {found}, must be the folder that holds {task.folder}/.{hint}")
    folders, _ = _entries(data)
    matching = [name for name in folders if name_key(name) == task.id]
    if task.folder in matching or len(matching) == 1:
        return data / (task.folder if task.folder in matching else matching[0])
    if matching:
        raise InputError(f"{data}: {quoted(matching)} all name {task.id}; keep one, best as `{task.folder}`")
    if name_key(data.resolve().name) == task.id:
        return data
    held = _some([f"{name}/" for name in folders]) or "no folder"
    raise InputError(f"{data}: holds {held}, but needs {task.folder}/.{nearest(task.folder, folders)}")


def _ax_file(mnli: Path) -> Path:
    """The file of GLUE's diagnostic set, which downloads put beside MNLI's folder or into it."""
    beside = mnli.absolute().parent
    keys = [name_key(name) for name in _AX_FOLDERS]
    folders = [*(beside / name for name in _entries(beside)[0] if name_key(name) in keys), mnli]
    for folder in folders:
        for file in _AX_FILES:
            if (folder / file).is_file():
                return folder / file
    if len(folders) > 1:
        files = _entries(folders[0])[1]
        held = f"{folders[0]}: holds {_some(files) or 'no file'}"
    else:
        held = f"{beside}: holds neither AX/ nor diagnostic/"
    raise NoDiagnosticSetError(f"{held}, but the diagnostic set (ax) needs one of {', '.join(_AX_FILES)}.")


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    return [path.name for path in paths if path.is_dir()], [path.name for path in paths if path.is_file()]


def _read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file without their ends (LF or CRLF), a byte order mark and trailing blank lines.

    Only line feeds end a line: sentences may hold other characters that Unicode calls line separators.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        _, files = _entries(path.parent)
        held = _some(files) or "no file"
        raise InputError(f"{path}: no such file; its folder holds {held}.{nearest(path.name, files)}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, must be a file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}:1: is UTF-16, must be UTF-8")
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        raise InputError(_first_problems(path, list(_undecodable(path, content)))) from None
    lines = [line.removesuffix("\r") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _undecodable(path: Path, content: bytes) -> Iterator[str]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            byte = line[error.start]
            yield f"{path}:{number}: byte {error.start + 1} of the line (0x{byte:02x}) is not UTF-8; save it as UTF-8"


def _read_split(task: Task, name: str, path: Path, dev_ids: set[tuple[str, ...]] | None = None) -> Split:
    """One file of the official layout; with `dev_ids`, only those of its rows that belong to the split `name`."""
    import numpy as np

    lines = _read_lines(path)
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
            problems.append(f"{path}:{number}: {_count(len(cells), 'column')}, but must be {len(header)}")
            continue
        if dev_ids is not None and (tuple(row[column] for column in _MRPC_IDS) in dev_ids) != (name == "dev"):
            continue
        if labelled:
            cell = row[task.label_column]
            if task.id == "mnli" and cell == "-":  # the annotators did not agree: there is no gold label
                skipped += 1
                continue
            label = _label(task, cell)
            if isinstance(label, str):
                problems.append(f"{path}:{number}: {label}")
                continue
            labels.append(label)
        for column, column_texts in zip(task.columns, texts, strict=True):
            column_texts.append(row[column])
    if problems:
        raise InputError(_first_problems(path, problems))
    if not texts[0]:
        reason = f" ({_count(skipped, 'row')} skipped)" if skipped else ""
        raise InputError(f"{path}: has no examples{reason}")
    array = np.array(labels, dtype=np.float32 if task.regression else np.int64) if labelled else None
    return Split(task, name, texts[0], texts[1] if len(texts) == 2 else None, array, skipped, str(path))


def _header(task: Task, name: str, path: Path, lines: list[str], also: tuple[str, ...]) -> tuple[list[str], int]:
    """The column names and the index of the first row below them. Test files need no label column."""
    is_test = name.startswith("test") or name == "ax"
    if task.headerless and not is_test:
        return list(task.headerless), 0
    if not lines:
        raise InputError(f"{path}: is empty")
    header = lines[0].split("\t")
    if name == "ax":
        header = [_AX_COLUMNS.get(column, column) for column in header]
    needed = [*task.columns, *(() if is_test else (task.label_column,)), *also]
    missing = [column for column in needed if column not in header]
    if missing:
        hints = "".join(dict.fromkeys(nearest(column, missing) for column in header if column not in needed))
        raise InputError(
            f"{path}:1: the header has {quoted(map(_shorten, header))}, needed are {quoted(needed)}.{hints}"
        )
    return header, 1


def _label(task: Task, cell: str) -> float | str:
    """The label in a cell, or what is wrong with it."""
    if not task.regression:
        accepted = [str(index) for index in range(task.num_labels)] if task.numbered else list(task.labels)
        if cell in accepted:
            return accepted.index(cell)
        return f"{task.label_column}: {_found(cell)}, must be one of {', '.join(accepted)}.{nearest(cell, accepted)}"
    try:
        score = float(cell)
    except ValueError:
        return f"{task.label_column}: {_found(cell)} is not a number, must be from 0 to 5"
    if not 0 <= score <= 5:  # NaN is in no range
        return f"{task.label_column}: {_shorten(cell)}, must be from 0 to 5"
    return score


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _read_mrpc_original(task: Task, name: str, path: Path) -> Split:
    """A split of MRPC as its authors publish it: `dev_ids.tsv` names the pairs of the training file that are dev."""
    if name == "test":
        return _read_split(task, name, path)
    ids_path = path.with_name("dev_ids.tsv")
    dev_ids: set[tuple[str, ...]] = set()
    problems = []
    for number, line in enumerate(_read_lines(ids_path), start=1):
        cells = line.split("\t")
        if len(cells) != 2:
            problems.append(f"{ids_path}:{number}: {_count(len(cells), 'column')}, but must be 2 (the pair's ids)")
        dev_ids.add(tuple(cells))
    if problems:
        raise InputError(_first_problems(ids_path, problems))
    return _read_split(task, name, path, dev_ids)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN_PER_FILE]) + (", ..." if len(names) > SHOWN_PER_FILE else "")


def _found(cell: str) -> str:
    return f"`{_shorten(cell)}`" if cell else "an empty cell"


def _shorten(value: str) -> str:
    return value if len(value) <= 40 else value[:37] + "..."


def _first_problems(path: Path, problems: Sequence[str]) -> list[str]:
    """The first problems of a file, and how many more there are: a wrong file has one for every line."""
    more = len(problems) - SHOWN_PER_FILE
    return [*problems[:SHOWN_PER_FILE], *([f"{path}: and {more} more"] if more > 0 else [])]
