"""The experiment folder of a search on a disk that all nodes share.

`RemoteExperimentFolder` extends it to a folder behind a URI. On a disk, uploads and downloads do nothing.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsd_tune.errors import InputError
from fsd_tune.storage import artifacts, layout
from fsd_tune.storage.outputs import output_problems
from fsd_tune.storage.uri import expanded, is_uri, local_path


def cache() -> Path:
    """Return the folder for this machine's copies of remote folders: $FSD_TUNE_CACHE, or ~/.cache/fsd_tune."""
    configured = os.environ.get("FSD_TUNE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return local_path(configured or base / "fsd_tune").absolute()


class ExperimentFolder:
    """The experiment folder of a search on a disk.

    Attributes:
        name: the path or URI as the user gave it.
        folder: the folder in which this process reads and writes its files.
    """

    def __init__(self, name: str | Path) -> None:
        self.name = str(name)
        self.folder = Path(expanded(str(name)))

    def download(self) -> None:
        """Replace the working copy by the stored files."""

    @contextmanager
    def look(self) -> Iterator[Path]:
        """Provide what tells which search is stored, for reading; the working copy of a running search stays as it is.

        Yields:
            A folder with `summary.json` and `settings.yaml`. Behind a URI the other names in it are empty files.

        Raises:
            InputError: as the block raised it.
        """
        yield self.folder

    def check_writable(self, flag: str) -> None:
        """Check that the folder or the storage can be written now.

        Args:
            flag: the option to name in the message.

        Raises:
            InputError: it cannot be written.
        """
        if problems := output_problems(self.name, flag, uri=True):
            raise InputError(problems)

    def memory_folder(self, given: str | Path | None) -> tuple[Path, str | None]:
        """Return the folder for teacher outputs and memories.

        Args:
            given: the value of `--memory`; None for `memory` in this folder.

        Returns:
            The folder on this machine, and its URI for all nodes; the URI is None if the folder is on a shared disk.
        """
        if given is not None and is_uri(given):
            return cache() / artifacts.digest(str(given)) / layout.MEMORY, str(given)
        return Path(expanded(str(given))) if given else self.folder / layout.MEMORY, None

    def ray_storage(self) -> dict[str, Any]:
        """Return the arguments of Ray's RunConfig for the storage of checkpoints."""
        return {"storage_path": str(self.folder.resolve())}

    def path_for_workers(self, path: Path) -> str:
        """Return a path or URI at which every node can read `path` of this folder.

        Args:
            path: a file or folder below this folder.
        """
        return str(path)

    def upload(self, path: Path) -> None:
        """Upload a new or changed file of the folder.

        Args:
            path: the file, in the working copy.
        """

    def delete(self, path: Path) -> None:
        """Delete a folder below this one, in the working copy and in the storage.

        Args:
            path: the folder, in the working copy; it need not exist.
        """
        shutil.rmtree(path, ignore_errors=True)

    def delete_checkpoints(self, trial: Path) -> None:
        """Delete the checkpoints in a trial's folder, in the working copy and in the storage.

        Args:
            trial: the trial's folder, in the working copy.
        """
        for checkpoint in trial.glob(layout.CHECKPOINTS):
            self.delete(checkpoint)

    def clear(self) -> None:
        """Delete everything except the memory from the storage; the caller has cleared the working copy."""

    def download_checkpoint(self, trial: str) -> None:
        """Download the checkpoint of a finished trial, unless the working copy has it.

        Args:
            trial: the name of the trial's folder.
        """

    def download_folder(self, folder: Path) -> None:
        """Download a folder that another node has uploaded.

        Args:
            folder: the folder's path in the working copy.
        """

    def sync_unfinished(self) -> None:
        """Make remote storage match the local folders of unfinished trials."""

    def sync_if_due(self) -> None:
        """Upload files whose upload interval has passed; a running search calls this often."""

    def sync_all(self) -> None:
        """Upload every file that has changed."""

    def upload_inputs(self, paths: list[str]) -> tuple[tuple[str, str], ...]:
        """Upload folders of this machine for other nodes.

        Args:
            paths: the folders, which contain models.

        Returns:
            (path, URI) of each folder; empty on a shared disk.
        """
        return ()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock remote storage for this process while the block runs, and replace the working copy by what is stored.

        Disks have the folder's own lock file.

        Raises:
            InputError: another process holds the lock.
        """
        yield
