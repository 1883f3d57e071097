"""Checkpoints of a run on disk: a manifest completes them, and they are checked against it before they are used."""

import json
from pathlib import Path

from fsd_tune.storage import artifacts, layout

SEAL = "checkpoint.json"
# The checkpoint from which a resumed trial starts, kept apart because Ray numbers its checkpoints from 0 again.
RESTART = "restart"


def seal(folder: Path, report: int) -> None:
    """Write the manifest of a checkpoint, after everything else in it.

    Args:
        folder: of the checkpoint.
        report: the number of reports that the run had made.
    """
    files = {
        str(path.relative_to(folder)): [path.stat().st_size, artifacts.checksum(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    artifacts.write_json(folder / SEAL, {"report": report, "files": files})


def report_of(folder: Path) -> int | None:
    """Return the number of reports that a checkpoint's run had made.

    Args:
        folder: the checkpoint's folder.

    Returns:
        The number; None if the checkpoint is missing, half written or damaged.
    """
    try:
        manifest = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        for name, (size, expected) in manifest["files"].items():
            path = folder / name
            if path.stat().st_size != size or artifacts.checksum(path) != expected:
                return None
        return int(manifest["report"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def newest(trial: Path) -> tuple[Path, int] | None:
    """Return the undamaged checkpoint with most reports in a trial's folder.

    Args:
        trial: the trial's folder.

    Returns:
        The checkpoint's folder and its number of reports; None if there is no undamaged checkpoint.
    """
    checkpoints = [(report_of(path), path) for path in (*trial.glob(layout.CHECKPOINTS), trial / RESTART)]
    whole = [(report, path) for report, path in checkpoints if report is not None]
    if not whole:
        return None
    report, path = max(whole)
    return path, report


def any_in(trial: Path) -> bool:
    """Return whether a trial's folder has a checkpoint, damaged or not.

    Args:
        trial: the trial's folder.
    """
    return (trial / RESTART).exists() or any(trial.glob(layout.CHECKPOINTS))
