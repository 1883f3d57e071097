"""Checkpoints of a run on disk: sealed by a manifest when they are whole, checked against it before they are used."""

import json
from pathlib import Path

from fsd_tune.storage import artifacts

SEAL = "checkpoint.json"
# Where a trial that is taken up again starts from: Ray numbers its own checkpoints anew.
RESTART = "restart"


def seal(folder: Path, report: int) -> None:
    """Write the manifest of a checkpoint, after everything else in it.

    Args:
        folder: the checkpoint's.
        report: reports that the run had made.
    """
    held = {
        str(path.relative_to(folder)): [path.stat().st_size, artifacts.checksum(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    artifacts.write_json(folder / SEAL, {"report": report, "files": held})


def report_of(folder: Path) -> int | None:
    """The reports that a whole checkpoint's run had made; None for one that is missing, half written or damaged."""
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
    """The whole checkpoint with most reports in a trial's folder, and how many it has; None without any."""
    found = [(report_of(path), path) for path in (*trial.glob("checkpoint_*"), trial / RESTART)]
    whole = [(report, path) for report, path in found if report is not None]
    if not whole:
        return None
    report, path = max(whole)
    return path, report


def any_in(trial: Path) -> bool:
    """Whether a trial's folder has a checkpoint, whole or not."""
    return (trial / RESTART).exists() or any(trial.glob("checkpoint_*"))
