"""Read UTF-8 text files, and describe problems of files and columns in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fsd_tune.errors import InputError, nearest, nearest_name

SHOWN_PER_FILE = 10


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder, sorted.

    Args:
        folder: the folder to list.

    Returns:
        The names of the folders and the names of the files.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    return [path.name for path in paths if path.is_dir()], [path.name for path in paths if path.is_file()]


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file, without line ends (LF or CRLF), byte order mark and trailing empty lines.

    Only line feeds end a line, because sentences may hold other characters that Unicode calls line separators.

    Args:
        path: the file.

    Returns:
        The lines.

    Raises:
        InputError: the file does not exist, or cannot be read as UTF-8.
    """
    check_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}:1: is UTF-16, must be UTF-8")
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        raise InputError(first_problems(path, list(_undecodable(path, content)))) from None
    lines = [line.removesuffix("\r") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def check_file(path: Path) -> None:
    """Check that a file exists.

    Args:
        path: the file's path, which may be a link.

    Raises:
        InputError: the file does not exist (the message lists the files beside it), or is a folder.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, must be a file")
    if path.exists() or path.is_symlink():
        return
    files = entries(path.parent)[1]
    raise InputError(f"{path}: no such file; its folder holds {some(files) or 'no file'}.{meant(files, [path.name])}")


def check_folder(path: Path, content: str) -> None:
    """Check that a folder exists.

    Args:
        path: the folder.
        content: the expected folder in the error, such as `the folder that holds RTE/`.

    Raises:
        InputError: the folder does not exist; the message suggests a folder with a similar name.
    """
    if path.is_dir():
        return
    state = "is a file" if path.exists() else "no such folder"
    hint = nearest(path.name, entries(path.parent)[0]) if path.parent.is_dir() else ""
    raise InputError(f"{path}: {state}, must be {content}.{hint}")


def columns_problem(has: str, names: Sequence[str], needed: Sequence[str]) -> str:
    """Describe missing columns, with suggestions.

    Args:
        has: the beginning of the sentence, such as `the header has`.
        names: the columns of the file.
        needed: the columns that it must have.

    Returns:
        The problem; empty if no column is missing.
    """
    missing = [column for column in needed if column not in names]
    if not missing:
        return ""
    hints = meant([column for column in names if column not in needed], missing)
    return f"{has} {quoted(map(shorten, names))}, but needs {quoted(needed)}.{hints}"


def meant(names: Iterable[str], needed: Sequence[str]) -> str:
    """Ask for names that are there whether needed ones were meant by them.

    Args:
        names: the names that are there, of columns, files or folders.
        needed: the names that are missing.

    Returns:
        Such as ` Is `SST` meant to be `SST-2`?` for each close pair; empty text if none is close.
    """
    pairs = {(name, close) for name in names if (close := nearest_name(name, needed)) and name != close}
    return "".join(f" Is `{shorten(name)}` meant to be `{close}`?" for name, close in sorted(pairs))


def _undecodable(path: Path, content: bytes) -> Iterator[str]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            byte = line[error.start]
            yield f"{path}:{number}: byte {error.start + 1} of the line (0x{byte:02x}) is not UTF-8; save it as UTF-8"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 column`, `3 columns`.

    Args:
        number: the number.
        noun: the noun in the singular.

    Returns:
        The two as text; the noun gets an s unless the number is 1.
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """Return the first ten names, separated by commas.

    Args:
        names: any number of names.

    Returns:
        The names as text, with `, ...` at the end if there are more than ten.
    """
    return ", ".join(names[:SHOWN_PER_FILE]) + (", ..." if len(names) > SHOWN_PER_FILE else "")


def found_cell(cell: str) -> str:
    """Return the content of a cell for a message.

    Args:
        cell: the text of the cell.

    Returns:
        Its beginning in backticks, or `an empty cell`.
    """
    return f"`{shorten(cell)}`" if cell else "an empty cell"


def quoted(names: Iterable[str]) -> str:
    """Return the names in backticks, as messages list them.

    Args:
        names: the names, in the order of the message.

    Returns:
        The names separated by commas, or `none` if there are none.
    """
    return ", ".join(f"`{name}`" for name in names) or "none"


def shorten(value: str) -> str:
    """Return the beginning of a text, at most 40 characters.

    Args:
        value: the text.

    Returns:
        The whole text, or its first 37 characters and `...`.
    """
    return value if len(value) <= 40 else value[:37] + "..."


def first_problems(path: Path, problems: Sequence[str]) -> list[str]:
    """Return the first ten problems of a file and the number of further ones.

    A file of the wrong kind can have a problem in every line.

    Args:
        path: the file.
        problems: all problems.

    Returns:
        At most eleven lines.
    """
    more = len(problems) - SHOWN_PER_FILE
    return [*problems[:SHOWN_PER_FILE], *([f"{path}: and {more} more"] if more > 0 else [])]
