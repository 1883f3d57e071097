"""Wait for storage that is temporarily unavailable, so that a search does not lose its progress."""

import errno
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fsd_tune.errors import FsdTuneError
from fsd_tune.storage import waiting

# The longest time for which an operation on remote storage is retried, and for which a shared folder is waited for.
RETRY_SECONDS = 120.0
TIMEOUT_SECONDS = 180.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 5.0
# Waiting does not help against these.
_PERMANENT = (errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EROFS)
# Waiting does not free a full disk, and the code that writes to it reports the error.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOTIFY_AFTER_SECONDS = 3.0
_CHECK_EVERY_SECONDS = 0.5

Result = TypeVar("Result")


def retry_until_available(work: Callable[[], Result], patience: float = RETRY_SECONDS) -> Result:
    """Call `work`, and retry it with growing pauses while its storage is unavailable.

    Args:
        work: an operation that can safely be repeated.
        patience: seconds after which the last error is raised.

    Returns:
        The result of `work`.

    Raises:
        OSError: the storage stayed unavailable, or refused the operation.
    """
    pause, problem = _FIRST_PAUSE, ""
    wait = waiting.Wait(lambda: f"storage that is unavailable ({problem})", patience, "")
    while True:
        try:
            return work()
        except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError):
            raise
        except OSError as error:
            permanent = "ACCESS_DENIED" in str(error) or error.errno in _PERMANENT
            if permanent or wait.seconds + pause > patience:
                raise
            problem = (str(error).splitlines() or [type(error).__name__])[0]
            wait.pause(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)


class StorageUnavailableError(FsdTuneError):
    """The error for a folder that stayed unavailable for the whole timeout."""


class FolderWatch:
    """A watch that waits until an experiment folder can be written.

    Attributes:
        lost: the error after a timeout, else None. Ray Tune wraps errors of its callbacks, so this is the original.
    """

    def __init__(self, folder: Path, notify: Callable[[str], None], timeout: float = TIMEOUT_SECONDS) -> None:
        """Create the watch; `wait` checks the folder.

        Args:
            folder: a folder that exists unless its storage is unavailable.
            notify: called with a line for the user when waiting starts and when the folder is available again.
            timeout: the longest wait in seconds.
        """
        self.lost: StorageUnavailableError | None = None
        self._folder = folder
        self._notify = notify
        self._timeout = timeout

    def wait(self) -> None:
        """Wait until the folder can be written; normally this returns at once.

        Raises:
            StorageUnavailableError: it could not be written within the timeout of this call or an earlier one.
        """
        if self.lost is not None:
            raise self.lost
        began, notified = time.monotonic(), False
        while (problem := _problem(self._folder)) is not None:
            waited = time.monotonic() - began
            if waited > self._timeout:
                self.lost = StorageUnavailableError(
                    f"{self._folder}: cannot be written for {waited:.0f} s ({problem}).",
                    "Finished work is kept there; `fsd-tune resume` continues when the folder is back.",
                )
                raise self.lost
            if waited > _NOTIFY_AFTER_SECONDS and not notified:
                notified = True
                self._notify(
                    f"{self._folder} cannot be written ({problem}); waiting up to {self._timeout:.0f} s for it"
                )
            time.sleep(_CHECK_EVERY_SECONDS)
        if notified:
            self._notify(f"{self._folder} is back after {time.monotonic() - began:.0f} s")


def _problem(folder: Path) -> str | None:
    """Return why no file can be created in `folder`; None if one can, or if only the disk is full."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return None if error.errno in _DISK_FULL else error.strerror
    return None
