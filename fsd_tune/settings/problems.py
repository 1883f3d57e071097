"""Shared parts of the checks of YAML files: numbers in a range, words for values, and the collection of problems."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from fsd_tune.errors import InputError, nearest
from fsd_tune.settings.yaml_file import Issue, KeyPath, Lines

_AFTER_THE_FILE = 10**9


def quote_value(value: float | int) -> str:
    """Return a number as text, whole numbers without a decimal point: 16 for 16.0.

    Args:
        value: the number.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def describe(value: Any) -> str:
    """Return a value in words that fit into one line.

    Args:
        value: a value of a YAML file: None, a boolean, a number, text, a list or a mapping.

    Returns:
        Such as `nothing`, `0.5`, `text 'a'` or `a list`, at most 60 characters.
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        text = quote_value(value)
    elif isinstance(value, str):
        text = f"text {value!r}"
    else:
        return "a mapping" if isinstance(value, Mapping) else "a list"
    return text if len(text) <= 60 else text[:57] + "..."


def listed(names: Iterable[Any]) -> str:
    """Return names or numbers as text, separated by commas.

    Args:
        names: the names or numbers, in the order of the text.
    """
    return ", ".join(quote_value(name) if isinstance(name, int | float) else str(name) for name in names)


def span(kind: type, low: float, high: float, low_open: bool = False) -> str:
    """Return the accepted numbers in words.

    Args:
        kind: `int` or `float`.
        low: the lowest accepted number.
        high: the highest accepted number.
        low_open: whether `low` itself is excluded.
    """
    return f"{'a whole number' if kind is int else 'a number'} {_range(low, high, low_open)}"


def as_number(value: Any, kind: type, low: float, high: float, low_open: bool = False) -> Any:
    """Return `value` as `kind` if it is a number in the range.

    A whole number counts as a float, and a float without a fraction (16.0, 1e3) as a whole number. Booleans do not
    count as numbers. NaN and infinity are outside of every range.

    Args:
        value: any value.
        kind: `int` or `float`.
        low: the lowest accepted number.
        high: the highest accepted number.
        low_open: whether `low` itself is excluded.

    Raises:
        ValueError: the value is not accepted; the message says what is accepted.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be {span(kind, low, high, low_open)}")
    if isinstance(value, float) and (not math.isfinite(value) or (kind is int and not value.is_integer())):
        raise ValueError(f"must be {span(kind, low, high, low_open)}")
    if value < low or value > high or (low_open and value == low):
        raise ValueError(f"must be {_range(low, high, low_open)}")
    return kind(value)


def _range(low: float, high: float, low_open: bool) -> str:
    return (
        f"above {quote_value(low)} and at most {quote_value(high)}"
        if low_open
        else f"in {quote_value(low)}..{quote_value(high)}"
    )


class Problems:
    """The problems of one YAML file and of the values that override it, each with its line or flag."""

    def __init__(self, file: str, lines: Lines, issues: Iterable[Issue], flags: Mapping[KeyPath, str]) -> None:
        """Start with the problems of the text.

        Args:
            file: the path of the file; empty if the values do not come from a file.
            lines: the line of each key path.
            issues: problems of the text.
            flags: the flag, or another place, of each overridden key path. Problems at and below it are reported
                there.
        """
        self._file = file
        self._lines = lines
        self._flags = flags
        self._noted: list[tuple[int, str]] = []
        self._unusable: list[KeyPath] = []
        for issue in issues:
            self._note(issue.line, issue.path, issue.message)
            if issue.unusable and self._flag_of(issue.path) is None:
                self._unusable.append(issue.path)

    def add(self, path: KeyPath, message: str) -> None:
        """Note a problem. It is ignored if its value could not be read, because that is already noted.

        Args:
            path: the key path.
            message: what is wrong.
        """
        if any(path[: len(unusable)] == unusable for unusable in self._unusable):
            return
        flag_path = self._flag_of(path)
        if flag_path is not None:
            key_below = dotted(path[len(flag_path) :])
            self._noted.append(
                (_AFTER_THE_FILE, f"{self._flags[flag_path]}: {key_below and key_below + ': '}{message}")
            )
            return
        # A missing key is reported at the line of the mapping that lacks it.
        known_path = next(path[:end] for end in range(len(path), -1, -1) if end == 0 or path[:end] in self._lines)
        self._note(self._lines.get(known_path, 1), path, message)

    def unusable(self, path: KeyPath, message: str) -> None:
        """Note that a value could not be read, and ignore its further problems.

        Args:
            path: the key path.
            message: what is wrong.
        """
        self.add(path, message)
        self._unusable.append(path)

    def found(self, path: KeyPath, value: Any, accepted: str, names: Iterable[str] = ()) -> None:
        """Note a value that is not accepted.

        Args:
            path: the key path.
            value: the value.
            accepted: what is accepted, beginning with "must".
            names: accepted names, of which the message suggests the nearest.
        """
        close = nearest(value, names) if isinstance(value, str) else ""
        self.add(path, f"found {describe(value)}, but {accepted}.{close}")

    def number(self, path: KeyPath, value: Any, kind: type, low: float, high: float, low_open: bool = False) -> Any:
        """Return a value as a number, or note the problem and return None.

        Args:
            path: the key path.
            value: the value.
            kind: `int` or `float`.
            low: the lowest accepted number.
            high: the highest accepted number.
            low_open: whether `low` itself is excluded.
        """
        try:
            return as_number(value, kind, low, high, low_open)
        except ValueError as error:
            self.found(path, value, str(error))
            return None

    def raise_any(self) -> None:
        """Raise one `InputError` with all problems, those of the file by line and then those of flags.

        Raises:
            InputError: there is at least one problem.
        """
        if self._noted:
            raise InputError(dict.fromkeys(text for _, text in sorted(self._noted, key=lambda noted: noted[0])))

    def _flag_of(self, path: KeyPath) -> KeyPath | None:
        return next((path[:end] for end in range(len(path), 0, -1) if path[:end] in self._flags), None)

    def _note(self, line: int, path: KeyPath, message: str) -> None:
        location = f"{self._file}:{line}: " if self._file else ""
        name = dotted(path)
        self._noted.append((line, f"{location}{name and name + ': '}{message}"))


def dotted(path: KeyPath) -> str:
    """Return a key path as users write it: `search.first[1].alpha`.

    Args:
        path: the keys from the outermost to the innermost; an int is an index into a list.
    """
    return "".join(f"[{key}]" if isinstance(key, int) else f".{_one_line(key)}" for key in path).removeprefix(".")


def _one_line(key: str) -> str:
    text = key if key.isprintable() and key else repr(key)
    return text if len(text) <= 60 else text[:57] + "..."
