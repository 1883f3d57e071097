"""Runs in Weights & Biases, written by a process of its own (`tracking/process.py`), so that nothing waits for them.

If that process fails (W&B's service has died, the disk is full, the network is gone), tracking ends, with one line to
the user, and everything else continues. The search's own files are complete: an interrupted run is written again.
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

# Name of the file that marks a run's folder as complete: everything of it has been handed to W&B.
SEAL = "fsd_tune.json"
_CLOSE_SECONDS = 15.0
Row = Mapping[str, Any]


def safe_id(name: str) -> str:
    """Return a name in the form that W&B accepts for ids and groups.

    Args:
        name: any text. Characters other than letters, digits, dots, dashes and underscores become dashes, and it is cut
            after 100.
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:100]


def folders_of(folder: Path, group: str, name: str) -> list[Path]:
    """Return the folders of a run's files; several if the run was interrupted.

    Args:
        folder: the folder that holds `wandb/`.
        group: the run's group.
        name: the run's name within the group.
    """
    return sorted((folder / "wandb").glob(f"*run-*-{safe_id(f'{group}-{name}')}"))


class Tracker:
    """Runs of one group. Every call returns at once; with `mode: off` it does nothing.

    Attributes:
        group: name of the group in W&B.
        failure: why tracking has ended early; empty while it works.
    """

    def __init__(
        self, settings: Wandb, folder: Path, group: str, say: Callable[[str], None] = lambda text: None
    ) -> None:
        """Start the process that writes the runs, unless the mode is off.

        Args:
            settings: mode, project, entity and tags.
            folder: the runs' files go to `wandb/` in it, with everything that W&B caches or stages.
            group: what the runs have in common, such as a search.
            say: called once with a line for the user if tracking ends early.
        """
        self._folder = folder
        self.group = safe_id(group)
        self._say = say
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
                start_new_session=True,  # Ctrl-C interrupts the search, not this process
            )
            for work in (self._send, self._listen):
                self._threads.append(threading.Thread(target=work, args=(self._process,), daemon=True))
                self._threads[-1].start()
            self._put(
                "open",
                str(folder.resolve()),
                self.group,
                settings.mode,
                settings.project,
                settings.entity,
                settings.tags,
            )

    @property
    def active(self) -> bool:
        """Whether runs are logged."""
        return self._process is not None and not self.failure

    def begin(self, name: str, kind: str, config: Row, rows: Iterable[Row] = ()) -> None:
        """Open a run, or reopen it with the rows that it has reported before. If it is open, do nothing.

        Args:
            name: of the run within the group.
            kind: W&B's job type: trial, search-summary, distill, ...
            config: flat, one value per key.
            rows: earlier reports of the run, each with its `report`, the index of the evaluation.
        """
        self._put("begin", name, kind, config, [dict(row) for row in rows])

    def log(self, name: str, row: Row) -> None:
        """Log a report of an open run. Each report is logged once.

        Args:
            name: of the run.
            row: metrics by name, and `report`, the index of the evaluation, which is the axis of charts.
        """
        self._put("log", name, row)

    def draw(self, name: str, table: Row, figures: Mapping[str, str]) -> None:
        """Log a table and figures to an open run.

        Args:
            name: of the run.
            table: {"columns", "data"}.
            figures: Plotly figures as JSON, by name.
        """
        self._put("draw", name, table, figures)

    def end(self, name: str, summary: Row, failed: bool = False) -> None:
        """Close a run.

        Args:
            name: of the run.
            summary: figures for the run as a whole.
            failed: whether the run failed.
        """
        self._put("end", name, summary, failed)

    def write(self, name: str, kind: str, config: Row, rows: Iterable[Row], summary: Row, failed: bool = False) -> None:
        """Write a whole run at once; see `begin` and `end`.

        Args:
            name: of the run within the group.
            kind: W&B's job type.
            config: flat, one value per key.
            rows: its reports.
            summary: figures for the run as a whole.
            failed: whether the run failed.
        """
        self.begin(name, kind, config, rows)
        self.end(name, summary, failed)

    def holds(self, name: str) -> bool:
        """Return whether all data of a run has been handed to W&B already.

        Args:
            name: the run's name within the group.
        """
        return any((path / SEAL).is_file() for path in folders_of(self._folder, self.group, name))

    def close(self) -> None:
        """Wait at most 15 s for the remaining calls. Runs that are still open stay unfinished."""
        if self._process is None:
            return
        self._put("close")
        self._calls.put(None)
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._stop(f"it has not answered for {_CLOSE_SECONDS:g} s")
            # W&B's service would hang for ever, so kill it, too.
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
        # If the pipe is closed, `_listen` reads the reason.
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
                f"Weights & Biases: logging has stopped ({why}); everything else continues, "
                f"and is kept in {self._folder}."
            )


def _plain(value: Any) -> Any:
    """Return NumPy scalars, mappings and other values of a configuration as JSON types."""
    return value.item() if hasattr(value, "item") else dict(value) if isinstance(value, Mapping) else str(value)


@contextmanager
def tracked(
    settings: Wandb, folder: Path, kind: str, name: str, config: Row, say: Callable[[str], None]
) -> Iterator["WandbRun"]:
    """Track a piece of work as one run; an error of the work makes it a failed run.

    Args:
        settings: mode, project, entity and tags.
        folder: the run's files go to `wandb/` in it.
        kind: W&B's job type, and the group.
        name: start of the run's name.
        config: flat, one value per key.
        say: called once with a line for the user if tracking ends early.
    """
    tracker = Tracker(settings, folder, kind, say)
    # The same output can be made again, also in other folders.
    name = f"{name}-{secrets.token_hex(3)}"
    run = WandbRun(tracker, name)
    tracker.begin(name, kind, config)
    try:
        yield run
    except BaseException:
        tracker.end(name, run.summary, failed=True)
        raise
    else:
        tracker.end(name, run.summary)
    finally:
        tracker.close()


@dataclass
class WandbRun:
    """The run that `tracked` yields.

    Attributes:
        tracker: the tracker of the run.
        name: of the run.
        summary: figures for the run as a whole, filled by the work.
    """

    tracker: Tracker
    name: str
    summary: dict[str, Any] = field(default_factory=dict)

    def log(self, row: Row) -> None:
        """Log a report.

        Args:
            row: metrics by name, and `report`, the index of the evaluation.
        """
        self.tracker.log(self.name, row)
