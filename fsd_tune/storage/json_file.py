"""Read JSON files that others may have damaged: every problem is a `ValueError` in one line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def parse(text: str | bytes) -> Any:
    """Return the value of JSON text.

    Whole numbers of more than 18 digits become floats, which may be infinite, because neither NumPy nor SQLite holds
    them. Halves of characters become question marks, because no file can hold them.

    Args:
        text: the text, or its bytes in UTF-8.

    Raises:
        ValueError: the text is not JSON.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 19 else float(digits))
        return _whole(value) if "\\ud" in text.lower() else value
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: byte {error.start + 1} is 0x{error.object[error.start]:02x}") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping of a JSON file.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not JSON, or not a mapping.
    """
    value = parse(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}, not a mapping")
    return value


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield the mappings of a file of one JSON mapping per line.

    Args:
        path: the file.

    Yields:
        The number of each line that is not empty, and its mapping; None for a damaged line.

    Raises:
        OSError: the file cannot be read.
    """
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = parse(line)
        except ValueError:
            row = None
        yield number, row if isinstance(row, dict) else None


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return value
