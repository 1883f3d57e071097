"""A shared folder that goes away for a while: a search waits for it a stated time, instead of losing what it has."""

import errno
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fsd_tune.errors import FsdTuneError

SECONDS = 180.0
# A full disk does not come back by itself; what writes to it says so.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SAID_AFTER = 3.0


class StorageUnavailableError(FsdTuneError):
    """The folder did not come back in time."""


class FolderWatch:
    """Waits for a search's folder before it is written to.

    Attributes:
        lost: how waiting ended without it. Kept, for Ray Tune tells of its callbacks' errors in its own words.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], seconds: float = SECONDS) -> None:
        """
        Args:
            folder: one that is there unless its storage is away.
            say: told once when it is, and when it is back.
            seconds: to wait at most.
        """
        self.lost: StorageUnavailableError | None = None
        self._folder, self._say, self._seconds = folder, say, seconds

    def wait(self) -> None:
        """Return when the folder can be written, which is at once as a rule.

        Raises:
            AwayError: it cannot, after so many seconds.
        """
        if self.lost is not None:
            raise self.lost
        began, told = time.monotonic(), False
        while (problem := _problem(self._folder)) is not None:
            away = time.monotonic() - began
            if away > self._seconds:
                self.lost = StorageUnavailableError(
                    f"{self._folder}: cannot be written for {away:.0f} s ({problem}).",
                    "What was finished is kept there; `fsd-tune resume` goes on when it is back.",
                )
                raise self.lost
            if away > _SAID_AFTER and not told:
                told = True
                self._say(f"{self._folder} cannot be written ({problem}); waiting up to {self._seconds:.0f} s for it")
            time.sleep(0.5)
        if told:
            self._say(f"{self._folder} is back after {time.monotonic() - began:.0f} s")


def _problem(folder: Path) -> str | None:
    """Why nothing can be written into a folder that was there; None where it can."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return None if error.errno in _FULL else error.strerror
    return None
