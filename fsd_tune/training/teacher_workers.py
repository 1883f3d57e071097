"""Train the candidates of a grid of teachers as tasks on Ray, and show the progress of each."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from fsd_tune.cluster import connection, nodes
from fsd_tune.cluster.task_pool import TaskPool
from fsd_tune.errors import FsdTuneError
from fsd_tune.progress import Display
from fsd_tune.settings import loader
from fsd_tune.storage import artifacts
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.training.teacher import TeacherConfig, fine_tune

# Seconds between two writes of a candidate's progress.
_WRITE_INTERVAL = 0.5


@dataclass(frozen=True)
class Trained:
    """A candidate that has ended: its record, or the reason why there is none."""

    name: str
    record: dict[str, Any] | None
    reason: str = ""


class _ProgressFile(Display):
    """A display that writes a candidate's progress and its last line to a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(quiet=True)
        self._path = path
        self._last_line = ""
        self._written = 0.0

    def line(self, text: str) -> None:
        self._last_line = text.strip() if text.startswith(" ") else ""

    def stage(self, what: str, done: int, total: int) -> None:
        if done >= total or time.monotonic() - self._written > _WRITE_INTERVAL:
            self._written = time.monotonic()
            artifacts.write_json(self._path, [done, total, self._last_line])


def _progress(folder: Path, name: str) -> Path:
    return folder / f".{name}.progress"


def _train(run: TeacherConfig, threads: int) -> tuple[dict[str, Any] | None, str]:
    """Train a candidate; return (its record, "") or (None, the reason why there is none)."""
    torch.set_num_threads(threads)
    path = _progress(run.output.parent, run.output.name)
    try:
        return fine_tune(run, True, _ProgressFile(path)), ""
    except (FsdTuneError, OSError, RuntimeError) as error:  # RuntimeError: torch's, such as a full GPU
        return None, str(error).strip().splitlines()[0]
    finally:
        path.unlink(missing_ok=True)


class Workers:
    """A context manager that connects to Ray and trains candidates."""

    def __init__(self, cpus: float, gpus: float, candidates: int, address: str | None, temporary: Path | None) -> None:
        """Connect to nothing yet.

        Args:
            cpus: CPUs of a candidate.
            gpus: GPUs of a candidate.
            candidates: number of candidates.
            address: of a Ray cluster, as for `connection.connect`.
            temporary: folder of Ray's own files, as for `connection.connect`.
        """
        self._cpus = cpus
        self._gpus = gpus
        self._candidates = candidates
        self._connection, self._stack = (address, temporary), contextlib.ExitStack()

    def __enter__(self) -> "Workers":
        self._stack.enter_context(connection.connect(*self._connection))
        overrides = {
            "method": "ce",
            "resources.cpus_per_trial": str(self._cpus),
            "search.trials": str(self._candidates),
        }
        try:
            limit = connection.workers(loader.load(None, overrides), self._gpus)
        except BaseException:
            self._stack.close()
            raise
        self._pool: TaskPool[str] = TaskPool(_train, limit=limit, cpus=self._cpus, gpus=self._gpus)
        self._stack.callback(self._pool.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def require(self, folder: Path, paths: Sequence[str]) -> None:
        """Check that all nodes share the folder and can read the paths that exist on this machine.

        Args:
            folder: of the candidates.
            paths: folders of models and data, or hub ids, which are not checked.

        Raises:
            InputError: with a line for each problem and its node.
        """
        nodes.require(
            ExperimentFolder(folder), nodes.Needs(self._gpus, [path for path in paths if Path(path).exists()])
        )

    def train(self, runs: Mapping[str, TeacherConfig], display: Display, before: int) -> Iterator[Trained]:
        """Train the runs side by side and yield each when it ends.

        A worker that dies, with its node or for lack of memory, is retried twice; other runs go on if that fails, too.

        Args:
            runs: the candidates by name.
            display: shows progress.
            before: number of candidates that ended before this call, for the display.

        Yields:
            The ended candidates, in the order in which they end.
        """
        ended: list[str] = []
        threads = max(1, int(self._cpus))
        for outcome in self._pool.run(
            [(name, (run, threads)) for name, run in runs.items()],
            lambda running: self._show(runs, display, running, f"{before + len(ended)}/{before + len(runs)}"),
            interval=0.5,
        ):
            record, reason = (None, outcome.reason) if outcome.error else outcome.result
            ended.append(outcome.item)
            yield Trained(outcome.item, record, reason)

    def _show(self, runs: Mapping[str, TeacherConfig], display: Display, running: Sequence[str], ended: str) -> None:
        if not running:
            return
        table, shares = Table(box=None, padding=(0, 2), show_header=False), []
        for name in running:
            run = runs[name]
            with contextlib.suppress(OSError, ValueError):
                done, steps, last_line = json.loads(_progress(run.output.parent, name).read_text(encoding="utf-8"))
                label = f"learning rate {run.config['learning_rate']:g}, seed {run.seed}"
                table.add_row("", label, f"step {done}/{steps}", last_line)
                shares.append(f"{done / steps:.0%}")
        percentages = f" ({', '.join(shares)})" if shares else ""
        text = f"  {ended} candidates ended · {len(running)} running{percentages}"
        view = Table.grid()
        view.add_row(text)
        view.add_row(table)
        display.live(text, view=view)
