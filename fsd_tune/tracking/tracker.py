"""Log runs to Weights & Biases through a separate process (`tracking/process.py`), so that the search never waits.

If that process fails (W&B's service died, the disk is full, the network is gone), tracking ends with one line to the
user, and everything else continues. The search's own files are complete, so an interrupted run is written again.
"""

import contextlib
import json
import queue
import re
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fsd_tune.python_command import python
from fsd_tune.settings.wandb_section import Wandb
from fsd_tune.storage.artifacts import digest

# Name of the file that marks a run's folder as complete: W&B has received all data of the run.
SEAL = "fsd_tune.json"
_CLOSE_SECONDS = 15.0
Row = Mapping[str, Any]


def safe_id(name: str) -> str:
    """Return a name in the form that W&B accepts for ids and groups.

    Args:
        name: any text. Characters other than letters, digits, dots, dashes and underscores become dashes. The end of a
            name of more than 100 characters is replaced by a digest, so that different names stay different.
    """
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
    return safe if len(safe) <= 100 else f"{safe[:83]}-{digest(name)}"


def folders_of(folder: Path, group: str, name: str) -> list[Path]:
    """Return the folders that hold a run's files; several if the run was interrupted.

    Args:
        folder: the folder that holds `wandb/`.
        group: the run's group.
        name: the run's name within the group.
    """
    return sorted((folder / "wandb").glob(f"*run-*-{safe_id(f'{group}-{name}')}"))


class Tracker:
    """A logger of the runs of one group. Every call returns at once; with `mode: off` it does nothing.

    Attributes:
        group: the name of the group in W&B.
        failure: the reason why tracking ended early; empty while it works.
    """

    def __init__(
        self, settings: Wandb, folder: Path, group: str, say: Callable[[str], None] = lambda text: None
    ) -> None:
        """Start the process that writes the runs, unless the mode is off.

        Args:
            settings: mode, project, entity and tags.
            folder: the folder whose `wandb/` receives the runs' files and W&B's caches.
            group: the name of the group, such as a search.
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
                python("-m", "fsd_tune.tracking.process"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C must interrupt the search, but not this process.
            )
            for target in (self._send, self._listen):
                self._threads.append(threading.Thread(target=target, args=(self._process,), daemon=True))
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
        """True while runs are logged."""
        return self._process is not None and not self.failure

    def begin(self, name: str, kind: str, config: Row, rows: Iterable[Row] = ()) -> None:
        """Open a run, or reopen it with its earlier reports. If it is open, do nothing.

        Args:
            name: the name of the run within the group.
            kind: W&B's job type, such as trial, search-summary or distill.
            config: the configuration, flat, one value per key.
            rows: earlier reports of the run, each with its `report`, the index of the evaluation.
        """
        self._put("begin", name, kind, config, [dict(row) for row in rows])

    def log(self, name: str, row: Row) -> None:
        """Log a report of an open run. Each report is logged once.

        Args:
            name: the name of the run.
            row: metrics by name, and `report`, the index of the evaluation, which is the x-axis of charts.
        """
        self._put("log", name, row)

    def draw(self, name: str, table: Row, figures: Mapping[str, str]) -> None:
        """Log a table and figures to an open run.

        Args:
            name: the name of the run.
            table: a mapping {"columns", "data"}.
            figures: Plotly figures as JSON, by name.
        """
        self._put("draw", name, table, figures)

    def end(self, name: str, summary: Row, failed: bool = False) -> None:
        """Close a run.

        Args:
            name: the name of the run.
            summary: figures for the run as a whole.
            failed: true if the run failed.
        """
        self._put("end", name, summary, failed)

    def write(self, name: str, kind: str, config: Row, rows: Iterable[Row], summary: Row, failed: bool = False) -> None:
        """Write a whole run at once; see `begin` and `end`.

        Args:
            name: the name of the run within the group.
            kind: W&B's job type.
            config: the configuration, flat, one value per key.
            rows: the reports of the run.
            summary: figures for the run as a whole.
            failed: true if the run failed.
        """
        self.begin(name, kind, config, rows)
        self.end(name, summary, failed)

    def holds(self, name: str) -> bool:
        """Return true if W&B has received all data of a run.

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
            # W&B's service would hang forever, so kill it, too.
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
        # The pipe closes if the process ends; `_listen` then reads the reason.
        with contextlib.suppress(OSError, ValueError):
            while (line := self._calls.get()) is not None:
                process.stdin.write(line)
                process.stdin.flush()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        reason = process.stdout.read().strip()
        if process.wait() != 0:
            self._stop(reason or "its process has died")

    def _stop(self, reason: str) -> None:
        if not self.failure:
            self.failure = reason
            self._say(
                f"Weights & Biases: logging has stopped ({reason}); everything else continues, "
                f"and is kept in {self._folder}."
            )


def _plain(value: Any) -> Any:
    """Return a NumPy scalar, mapping or other value of a configuration as a JSON type."""
    return value.item() if hasattr(value, "item") else dict(value) if isinstance(value, Mapping) else str(value)


@contextmanager
def tracked(
    settings: Wandb, folder: Path, kind: str, name: str, config: Row, say: Callable[[str], None]
) -> Iterator["WandbRun"]:
    """Track the block as one run, and yield the run; an error in the block makes it a failed run.

    Args:
        settings: mode, project, entity and tags.
        folder: the folder whose `wandb/` receives the run's files.
        kind: W&B's job type, and the name of the group.
        name: the start of the run's name.
        config: the configuration, flat, one value per key.
        say: called once with a line for the user if tracking ends early.
    """
    tracker = Tracker(settings, folder, kind, say)
    # The suffix makes the name unique, because the same work can be repeated, also in other folders.
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
        name: the name of the run.
        summary: figures for the run as a whole, filled in by the caller.
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
