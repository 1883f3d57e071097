"""Wait for something that another process holds: say so after five seconds, and give up after a limit."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fsd_tune.errors import FsdTuneError
from fsd_tune.progress import duration

if TYPE_CHECKING:
    import psutil

NOTICE_SECONDS = 5.0
# How long a stopped process is waited for, which goes on only if somebody tells it to.
STOPPED_SECONDS = 30.0
_PAUSE_SECONDS = 0.25

Notify = Callable[[str], None]


class WaitedTooLongError(FsdTuneError):
    """What was waited for did not come within the limit."""


def warn(text: str) -> None:
    """Log a warning, and print it to standard error if nothing handles the logger `fsd_tune`.

    Args:
        text: the line.
    """
    logger = logging.getLogger("fsd_tune")
    logger.warning("%s", text)
    # The package adds a NullHandler, with which Python prints nothing of its own accord.
    if all(isinstance(handler, logging.NullHandler) for handler in (*logger.handlers, *logging.root.handlers)):
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr)


class Wait:
    """A wait: call `pause` as long as the thing is not there.

    Args:
        what: returns for whom and for what this waits, such as "process 12 (fsd-tune memory), which builds outputs-1".
        limit: seconds after which `pause` raises an error.
        way_out: a sentence that says what brings the thing back; may be empty.
        notify: called once, with a line, when the wait has lasted for `notice` seconds.
        notice: seconds before `notify` is called; None for `NOTICE_SECONDS`.

    Attributes:
        limit: as given; it may be changed during the wait.
        way_out: as given; it may be changed during the wait.
    """

    def __init__(
        self,
        what: Callable[[], str],
        limit: float,
        way_out: str,
        notify: Notify = warn,
        notice: float | None = None,
    ) -> None:
        self.limit = limit
        self.way_out = way_out
        self._what = what
        self._notify = notify
        self._notice = NOTICE_SECONDS if notice is None else notice
        self._notified = False
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the wait began."""
        return time.monotonic() - self._began

    def pause(self, seconds: float = _PAUSE_SECONDS) -> None:
        """Sleep a moment.

        Args:
            seconds: how long.

        Raises:
            WaitedTooLongError: the limit is over.
        """
        if not self._notified and self.seconds > min(self._notice, self.limit):
            self._notified = True
            what = self._what()  # It may change the limit and the way out.
            self._notify(
                f"waiting for {what}, for {duration(self.limit)} at most; Ctrl-C ends it. {self.way_out}".strip()
            )
        if self.seconds > self.limit:
            raise WaitedTooLongError(f"Waited {duration(self.seconds)} for {self._what()}. {self.way_out}".strip())
        time.sleep(seconds)


def wait_for_holder(path: Path, does: str, limit: float, notify: Notify = warn) -> Wait:
    """Return a wait for the process that holds a lock on a file; it is short if that process is stopped.

    Args:
        path: the locked file.
        does: what the process does with it, such as "builds outputs-1".
        limit: seconds to wait for a process that runs.
        notify: as for `Wait`.
    """

    def what() -> str:
        holder = holder_of(path)
        if holder is None:
            return f"another process, perhaps on another machine, which {does}"
        name, stopped = _name_and_state(holder)
        if not stopped:
            wait.way_out = f"`kill {holder.pid}` ends that process."
            return f"{name}, which {does}"
        wait.limit = min(wait.limit, STOPPED_SECONDS)
        wait.way_out = f"`kill -CONT {holder.pid}` lets it go on, `kill -KILL {holder.pid}` ends it."
        return f"{name}, which {does} and is stopped"

    wait = Wait(what, limit, "", notify)
    return wait


def _name_and_state(process: "psutil.Process") -> tuple[str, bool]:
    """Return a process in words, and whether it is stopped."""
    import psutil

    words: list[str] = []
    stopped = False
    with contextlib.suppress(psutil.Error):
        words = [Path(word).name for word in process.cmdline()]
        stopped = process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    # The name of the interpreter says nothing.
    command = " ".join(" ".join(words[1:] if words[:1] and words[0].startswith("python") else words).split())[:60]
    return f"process {process.pid}" + (f" ({command})" if command else ""), stopped


def holder_of(path: Path) -> "psutil.Process | None":
    """Return the process of this machine that holds a lock on a file; None if there is none or it is unknown.

    Args:
        path: the file.
    """
    import psutil

    with contextlib.suppress(OSError):
        status = path.stat()
        # As in Linux's list of locks.
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for pid in dict.fromkeys(_lock_owners(place)):
            with contextlib.suppress(psutil.Error):
                if pid != os.getpid():
                    return psutil.Process(pid)
    return None


def _lock_owners(place: str) -> Iterator[int]:
    """Yield the ids of the processes that have locked a file (major:minor:inode), from Linux's list of locks."""
    for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        # A line with an arrow is a process that waits.
        # A lock of an open file description belongs to no process: its id is -1.
        if "->" not in fields and fields[5] == place and int(fields[4]) > 0:
            yield int(fields[4])
