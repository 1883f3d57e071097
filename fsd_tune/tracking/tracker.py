"""Runs in Weights & Biases, written by a process of its own (`tracking_process.py`), so that nothing waits for them.

What that process cannot do (W&B's service has died, the disk is full, the network is gone) ends the tracking, which is
said once, and nothing else. The truth is in the search's own files: a run that was broken off is written anew.
"""

import contextlib
import json
import queue
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fsd_tune.settings.schema import Wandb

# Written into a run's folder once everything of it has been handed to W&B.
SEAL = "fsd_tune.json"
_CLOSE_SECONDS = 15.0
Row = Mapping[str, Any]


def safe_id(name: str) -> str:
    """A name as W&B takes it for ids and groups: letters, digits, dots, dashes and underscores, at most 100."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:100]


def folders_of(folder: Path, group: str, name: str) -> list[Path]:
    """Where a run's files lie; several when a part of it was broken off."""
    return sorted((folder / "wandb").glob(f"*run-*-{safe_id(f'{group}-{name}')}"))


class Tracker:
    """Runs of one group. Every call returns at once; with `mode: off` it does nothing.

    Attributes:
        group: what the runs have in common, as W&B knows it.
        failure: why the tracking has ended early; empty while it goes on.
    """

    def __init__(
        self, settings: Wandb, folder: Path, group: str, say: Callable[[str], None] = lambda text: None
    ) -> None:
        """Begin to track.

        Args:
            settings: mode, project, entity and tags.
            folder: the runs' files go to `wandb/` in it, all that W&B caches or stages with them.
            group: what the runs have in common, such as a search.
            say: told once when the tracking ends early.
        """
        self._folder, self.group, self._say = folder, safe_id(group), say
        self.failure = ""
        self._process: subprocess.Popen[str] | None = None
        self._calls: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        if settings.mode != "off":
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fsd_tune.tracking.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is the search's
            )
            for work in (self._send, self._listen):
                self._threads.append(threading.Thread(target=work, args=(self._process,), daemon=True))
                self._threads[-1].start()
            place = str(folder.resolve())
            self._put("open", place, self.group, settings.mode, settings.project, settings.entity, settings.tags)

    @property
    def active(self) -> bool:
        """Whether anything is logged."""
        return self._process is not None and not self.failure

    def begin(self, name: str, kind: str, config: Row, rows: Iterable[Row] = ()) -> None:
        """Open a run, or take it up again with the rows that it has made before; nothing if it is open.

        Args:
            name: of the run within the group.
            kind: W&B's job type: trial, search-summary, distill, ...
            config: flat.
            rows: what the run has reported before; each has its `report`.
        """
        self._put("begin", name, kind, config, [dict(row) for row in rows])

    def log(self, name: str, row: Row) -> None:
        """A report of an open run; `report` is its axis, and each is logged once."""
        self._put("log", name, row)

    def draw(self, name: str, table: Row, figures: Mapping[str, str]) -> None:
        """A table ({"columns", "data"}) and Plotly figures (as JSON, by name) of an open run."""
        self._put("draw", name, table, figures)

    def end(self, name: str, summary: Row, failed: bool = False) -> None:
        """Close a run, with figures that stand for the whole of it."""
        self._put("end", name, summary, failed)

    def write(self, name: str, kind: str, config: Row, rows: Iterable[Row], summary: Row, failed: bool = False) -> None:
        """A whole run at once."""
        self.begin(name, kind, config, rows)
        self.end(name, summary, failed)

    def holds(self, name: str) -> bool:
        """Whether everything of a run has been handed over already."""
        return any((path / SEAL).is_file() for path in folders_of(self._folder, self.group, name))

    def close(self) -> None:
        """Wait for what is left to do, at most 15 s; runs that are still open stay unfinished."""
        if self._process is None:
            return
        self._put("close")
        self._calls.put(None)
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._stop(f"it has not answered for {_CLOSE_SECONDS:g} s")
            # W&B's service with it, which would hang for ever.
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(1.0)
        self._process = None

    def _put(self, call: str, *arguments: Any) -> None:
        if self.active:
            self._calls.put(json.dumps([call, arguments], default=_plain) + "\n")

    def _send(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        # A closed pipe: `_listen` hears why.
        with contextlib.suppress(OSError, ValueError):
            while (line := self._calls.get()) is not None:
                process.stdin.write(line)
                process.stdin.flush()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        why = process.stdout.read().strip()
        if process.wait() != 0:
            self._stop(why or "its process has died")

    def _stop(self, why: str) -> None:
        if not self.failure:
            self.failure = why
            self._say(
                f"Weights & Biases: logging has stopped ({why}); all else goes on, and is kept in {self._folder}."
            )


def _plain(value: Any) -> Any:
    """NumPy's scalars, and whatever else a configuration may hold."""
    return value.item() if hasattr(value, "item") else dict(value) if isinstance(value, Mapping) else str(value)


@contextmanager
def tracked(
    settings: Wandb, folder: Path, kind: str, name: str, config: Row, say: Callable[[str], None]
) -> Iterator["WandbRun"]:
    """One run around a piece of work; a failure of the work is a failed run."""
    tracker = Tracker(settings, folder, kind, say)
    name = f"{name}-{secrets.token_hex(3)}"  # the same output may be made again, in other folders too
    single = WandbRun(tracker, name)
    tracker.begin(name, kind, config)
    try:
        yield single
    except BaseException:
        tracker.end(name, single.summary, failed=True)
        raise
    else:
        tracker.end(name, single.summary)
    finally:
        tracker.close()


@dataclass
class WandbRun:
    """The run that `tracked` yields.

    Attributes:
        summary: figures for the run as a whole, filled by the work.
    """

    tracker: Tracker
    name: str
    summary: dict[str, Any] = field(default_factory=dict)

    def log(self, row: Row) -> None:
        """A report."""
        self.tracker.log(self.name, row)
