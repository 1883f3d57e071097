"""Text files as people write them: their lines, the entries of folders, and the words for what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fsd_tune.errors import InputError, nearest

SHOWN_PER_FILE = 10


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    return [path.name for path in paths if path.is_dir()], [path.name for path in paths if path.is_file()]


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file without their ends (LF or CRLF), a byte order mark and trailing blank lines.

    Only line feeds end a line: sentences may hold other characters that Unicode calls line separators.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        _, files = entries(path.parent)
        held = some(files) or "no file"
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
        raise InputError(first_problems(path, list(_undecodable(path, content)))) from None
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


def count(number: int, noun: str) -> str:
    """`1 column`, `3 columns`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """The first of the names, with commas."""
    return ", ".join(names[:SHOWN_PER_FILE]) + (", ..." if len(names) > SHOWN_PER_FILE else "")


def found_cell(cell: str) -> str:
    """What a cell holds, in words."""
    return f"`{shorten(cell)}`" if cell else "an empty cell"


def shorten(value: str) -> str:
    """The beginning of a text, short enough for a line."""
    return value if len(value) <= 40 else value[:37] + "..."


def first_problems(path: Path, problems: Sequence[str]) -> list[str]:
    """The first problems of a file, and how many more there are: a wrong file has one for every line."""
    more = len(problems) - SHOWN_PER_FILE
    return [*problems[:SHOWN_PER_FILE], *([f"{path}: and {more} more"] if more > 0 else [])]
