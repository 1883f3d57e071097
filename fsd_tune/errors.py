"""The errors that users see. The command line turns each into a message and an exit code."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class FsdTuneError(Exception):
    """A failure after work began; finished work is kept.

    Attributes:
        exit_code: the exit code of the command line.
        hint: the next step for the user, often the command that continues; empty if there is none.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class DamagedError(FsdTuneError):
    """A file of an artefact differs from what was written; the next start builds the artefact again."""


class InputError(FsdTuneError):
    """Wrong input, found before any work starts.

    Attributes:
        problems: all problems, one line each: `location: what was found, what is accepted, nearest valid name`. The
            location is a file and line (`space.yaml:12: space.alpha`), a flag (`--alpha`) or a folder.
    """

    exit_code = 2

    def __init__(self, problems: str | Iterable[str], hint: str = "") -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        assert self.problems, "an InputError needs at least one problem"
        super().__init__("\n".join(self.problems), hint)


class ProblemCollector:
    """A collector of the problems of several checks, so that a user sees all of them at once.

    Example:
        >>> problems = ProblemCollector()
        >>> with problems.collect():
        ...     raise InputError("--task: unknown task.")
        >>> problems.add("--output: is a file.")
        >>> problems.lines
        ['--task: unknown task.', '--output: is a file.']
    """

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.lines: list[str] = list(lines)
        self.hint = ""

    def add(self, *lines: str) -> None:
        """Add problems that a check returned as lines.

        Args:
            *lines: one problem each, as in `InputError.problems`.
        """
        self.lines += lines

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Catch an `InputError` of the block and keep its problems and its hint."""
        try:
            yield
        except InputError as error:
            self.lines += error.problems
            self.hint = error.hint or self.hint

    def raise_any(self) -> None:
        """Raise one `InputError` with all collected problems, if there are any.

        Raises:
            InputError: at least one problem was collected.
        """
        if self.lines:
            raise InputError(self.lines, self.hint)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return " Did you mean `X`?" for the closest valid name, or empty text if none is close.

    Args:
        name: the name that the user gave.
        names: the valid names.
    """
    close = nearest_name(name, names)
    return f" Did you mean `{close}`?" if close else ""


def nearest_name(name: str, names: Iterable[str]) -> str:
    """Return the closest of some names, whatever its case, or empty text if none is close.

    Args:
        name: any name.
        names: the names to choose from.
    """
    by_lower = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else ""


def first_line(error: Exception) -> str:
    """Return the first line of an exception's text with a full stop, or its type if it has no text.

    Args:
        error: an exception of a library.
    """
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."
