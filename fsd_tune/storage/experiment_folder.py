"""Where a search's folder lies: on a disk that all nodes share, or behind a URI (mirror.py).

What a search writes goes through `kept` and `gone`, which a disk does not need and a URI follows at once.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsd_tune.storage import artifacts
from fsd_tune.storage.uri import is_uri


def cache() -> Path:
    """The folder for what this machine keeps of places behind URIs: $FSD_TUNE_CACHE, or ~/.cache/fsd_tune."""
    own = os.environ.get("FSD_TUNE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return (Path(own) if own else base / "fsd_tune").expanduser().absolute()


class ExperimentFolder:
    """A search's folder on a disk.

    Attributes:
        name: as the user gave it.
        folder: where its files are read and written here.
    """

    def __init__(self, name: str | Path) -> None:
        self.name, self.folder = str(name), Path(name)

    def download(self) -> None:
        """Bring the working copy up to what is stored."""

    def check_writable(self, flag: str) -> None:
        """Refuse a place that cannot be written now; a disk's is looked at by `search_folder.check`."""

    def memory_folder(self, given: str | Path | None) -> tuple[Path, str | None]:
        """The folder for teacher outputs and memories, and the URI that holds them for all nodes, if one does.

        Args:
            given: `--memory`; None for `memory` in this place.
        """
        if given is not None and is_uri(given):
            return cache() / artifacts.digest(str(given)) / "memory", str(given)
        return Path(given) if given else self.folder / "memory", None

    def ray_storage(self) -> dict[str, Any]:
        """What Ray's RunConfig is told of where trials save their checkpoints."""
        return {"storage_path": str(self.folder.resolve())}

    def path_for_workers(self, path: Path) -> str:
        """A path in the folder as every node can read it."""
        return str(path)

    def upload(self, path: Path) -> None:
        """A file of the folder was written."""

    def delete(self, path: Path) -> None:
        """Something in the folder is to be deleted, here and where it is stored."""
        shutil.rmtree(path, ignore_errors=True)

    def delete_checkpoints(self, trial: Path) -> None:
        """Delete the checkpoints in a trial's folder, here and where they are stored."""
        for checkpoint in trial.glob("checkpoint_*"):
            self.delete(checkpoint)

    def clear(self) -> None:
        """Everything but the memory was deleted here."""

    def download_checkpoint(self, trial: str) -> None:
        """See to it that the checkpoint of a finished trial (its folder's name) is here."""

    def download_folder(self, folder: Path) -> None:
        """Bring a folder that another node has stored."""

    def sync_unfinished(self) -> None:
        """Unfinished trials were made ready to go on: what is stored of them is to be what is here."""

    def sync_if_due(self) -> None:
        """Called often while a search runs."""

    def sync_all(self) -> None:
        """Store everything that is new."""

    def upload_inputs(self, paths: list[str]) -> tuple[tuple[str, str], ...]:
        """Make folders of this machine available to nodes that lack them: (path, URI) of each."""
        return ()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep the place to this process, beyond the folder's own lock."""
        yield
