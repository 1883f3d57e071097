"""Checkpoints on disk, each with a manifest against which it is checked before use."""

import json
from pathlib import Path

from fsd_tune.storage import artifacts, layout

SEAL = "checkpoint.json"
# The checkpoint from which a resumed trial starts. It has its own name, because Ray numbers checkpoints from 0 again.
RESTART = "restart"


def seal(folder: Path, report: int) -> None:
    """Write the manifest of a checkpoint; all its other files must exist already.

    Args:
        folder: the checkpoint's folder.
        report: the number of reports that the run has made.
    """
    files = {
        str(path.relative_to(folder)): [path.stat().st_size, artifacts.checksum(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    artifacts.write_json(folder / SEAL, {"report": report, "files": files})


def report_of(folder: Path) -> int | None:
    """Return the number of reports that the run of a checkpoint had made.

    Args:
        folder: the checkpoint's folder.

    Returns:
        The number; None if the checkpoint is missing, incomplete or damaged.
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
    """Return the undamaged checkpoint with the most reports in a trial's folder.

    Args:
        trial: the trial's folder.

    Returns:
        The checkpoint's folder and its number of reports; None if there is no undamaged checkpoint.
    """
    checkpoints = [(report_of(path), path) for path in (*trial.glob(layout.CHECKPOINTS), trial / RESTART)]
    undamaged = [(report, path) for report, path in checkpoints if report is not None]
    if not undamaged:
        return None
    report, path = max(undamaged)
    return path, report


def any_in(trial: Path) -> bool:
    """Return whether a trial's folder has a checkpoint, damaged or not.

    Args:
        trial: the trial's folder.
    """
    return (trial / RESTART).exists() or any(trial.glob(layout.CHECKPOINTS))
