"""Upload offline runs with the command `wandb sync`."""

import subprocess
import sys
from pathlib import Path

from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.python_command import python


def sync(folder: Path) -> dict[str, int]:
    """Upload the offline runs below `folder`; the output of `wandb sync` goes to standard error.

    Args:
        folder: a search's folder, or any folder above `wandb/`.

    Returns:
        {"runs": number of uploaded runs, "already": number of runs that had been uploaded before}.

    Raises:
        InputError: the folder does not exist, or holds no offline runs.
        FsdTuneError: `wandb sync` fails. The next call does not upload finished runs again.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is a file' if folder.exists() else 'no such folder'}; give a search's folder.")
    runs = sorted(path for path in folder.rglob("offline-run-*") if path.is_dir() and list(path.glob("*.wandb")))
    if not runs:
        raise InputError(f"{folder}: holds no offline runs; `--wandb offline` makes them.")
    new_runs = [path for path in runs if not list(path.glob("*.wandb.synced"))]
    if new_runs:
        command = python("-m", "wandb", "sync", "--yes", *map(str, new_runs))
        process = subprocess.run(command, stdout=sys.stderr, check=False)
        if process.returncode:
            raise FsdTuneError(f"`wandb sync` has failed with exit code {process.returncode}; its output is above.")
    return {"runs": len(new_runs), "already": len(runs) - len(new_runs)}
