"""Checkpoints on disk, each with a manifest against which it is checked before use, and when the next one is due."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsd_tune.storage import artifacts, json_file, layout
from fsd_tune.storage.records import Seal

SEAL = "checkpoint.json"
# The checkpoint from which a resumed trial starts. It has its own name, because Ray numbers checkpoints from 0 again.
RESTART = "restart"
# Weights and optimiser of a run that has not ended; the checkpoint of its end has the student alone.
STATE = "state.pt"
# The students of the best finished trials stay on disk: one is exported, the others take its place if it is damaged.
STUDENTS = 3
# A checkpoint is due when the work since the last one has taken this many times as long as a save.
TIMES_ITS_COST = 10
# Less work than this is not worth a checkpoint, because resuming takes longer.
LEAST_SECONDS = 2.0
# Until a save has been measured.
_BYTES_PER_SECOND = 200e6


class Pace:
    """Decides when the next checkpoint of a run is due, from the measured cost of the last save.

    What a kill can cost is therefore bounded: the work of ten saves or of `LEAST_SECONDS`, whichever is more.

    Attributes:
        seconds_per_byte: as measured at the last save, of this run or of an earlier one.
    """

    def __init__(self) -> None:
        self.seconds_per_byte = 1 / _BYTES_PER_SECOND
        self._since = time.monotonic()

    def begin(self) -> None:
        """Count the work from now on, because a run starts or continues from a checkpoint."""
        self._since = time.monotonic()

    def due(self, size: int) -> bool:
        """Return whether the work since the last checkpoint is worth another one.

        Args:
            size: the bytes of the next checkpoint.
        """
        least = max(TIMES_ITS_COST * size * self.seconds_per_byte, LEAST_SECONDS)
        return time.monotonic() - self._since > least

    @contextmanager
    def measured(self, size: int) -> Iterator[None]:
        """Measure the save that the block makes, and count the work from its end.

        Args:
            size: the bytes of the checkpoint.
        """
        started = time.monotonic()
        yield
        self._since = time.monotonic()
        self.seconds_per_byte = (self._since - started) / max(size, 1)


def seal(folder: Path, report: int, step: int = 0) -> None:
    """Write the manifest of a checkpoint; all its other files must exist already.

    Args:
        folder: the checkpoint's folder.
        report: the number of reports that the run has made.
        step: the number of steps that the run has made.
    """
    files = {
        str(path.relative_to(folder)): [path.stat().st_size, artifacts.checksum(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    artifacts.write_json(folder / SEAL, {"report": report, "step": step, "files": files})


def report_of(folder: Path) -> int | None:
    """Return the number of reports that the run of a checkpoint had made.

    Args:
        folder: the checkpoint's folder.

    Returns:
        The number; None if the checkpoint is missing, incomplete or damaged.
    """
    seal = _undamaged(folder)
    return None if seal is None else seal.report


def _undamaged(folder: Path) -> Seal | None:
    """Return the manifest of a checkpoint; None if the checkpoint is missing, incomplete or damaged."""
    try:
        seal = Seal.model_validate(json_file.read_mapping(folder / SEAL))
        for name, (size, expected) in seal.files.items():
            path = folder / name
            if path.stat().st_size != size or artifacts.checksum(path) != expected:
                return None
    except (OSError, ValueError):
        return None
    return seal


def newest(trial: Path) -> tuple[Path, int] | None:
    """Return the undamaged checkpoint with the most steps in a trial's folder.

    Args:
        trial: the trial's folder.

    Returns:
        The checkpoint's folder and its number of reports; None if there is no undamaged checkpoint.
    """
    checkpoints = [(_undamaged(path), path) for path in (*trial.glob(layout.CHECKPOINTS), trial / RESTART)]
    undamaged = [(seal.report, seal.step, path) for seal, path in checkpoints if seal is not None]
    if not undamaged:
        return None
    report, _, path = max(undamaged)
    return path, report


def any_in(trial: Path) -> bool:
    """Return whether a trial's folder has a checkpoint, damaged or not.

    Args:
        trial: the trial's folder.
    """
    return (trial / RESTART).exists() or any(trial.glob(layout.CHECKPOINTS))
