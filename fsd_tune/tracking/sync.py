"""Upload offline runs with W&B's own command."""

import subprocess
import sys
from pathlib import Path

from fsd_tune.errors import FsdTuneError, InputError


def sync(folder: Path) -> dict[str, int]:
    """Upload the offline runs below `folder`; W&B's own output goes to standard error.

    Args:
        folder: a search's folder, or any folder above `wandb/`.

    Returns:
        {"runs": number of uploaded runs, "already": number of runs that had been uploaded before}.

    Raises:
        InputError: the folder does not exist, or holds no offline runs.
        FsdTuneError: W&B's command fails. Runs that it has uploaded are not uploaded again.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is a file' if folder.exists() else 'no such folder'}; give a search's folder.")
    runs = sorted(path for path in folder.rglob("offline-run-*") if path.is_dir() and list(path.glob("*.wandb")))
    if not runs:
        raise InputError(f"{folder}: holds no offline runs; `--wandb offline` makes them.")
    new = [path for path in runs if not list(path.glob("*.wandb.synced"))]
    if new:
        words = [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, new)]
        done = subprocess.run(words, stdout=sys.stderr, check=False)
        if done.returncode:
            raise FsdTuneError(f"`wandb sync` has failed with exit code {done.returncode}; its output is above.")
    return {"runs": len(new), "already": len(runs) - len(new)}
