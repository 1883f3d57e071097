"""An experiment folder behind a URI (s3://, gs://), with a working copy on the driver's disk.

Each file is uploaded as soon as it is written, so that the storage has it even if the driver's machine is lost.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typing_extensions import override

from fsd_tune.errors import InputError
from fsd_tune.storage import artifacts, checkpoints, layout
from fsd_tune.storage.experiment_folder import ExperimentFolder, cache
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.remote import RemoteFolder
from fsd_tune.storage.remote_lock import LOCKS, RemoteLock
from fsd_tune.storage.sqlite_copy import copy_database
from fsd_tune.storage.uri import last_name
from fsd_tune.storage.waiting import WaitedTooLongError

# The study can be rebuilt from the trials' files, so a copy once a minute is enough.
_STUDY_SECONDS = 60.0
_INPUTS = "inputs"
# Artefacts are published separately, and lock files belong to one machine.
_NOT_SYNCED = (layout.MEMORY, layout.LOCK)
_NOT_DOWNLOADED = (*_NOT_SYNCED, LOCKS, _INPUTS)


class RemoteExperimentFolder(ExperimentFolder):
    """An experiment folder behind a URI, with a working copy in this machine's cache.

    Attributes:
        storage: the remote folder.
    """

    def __init__(self, uri: str, purpose: str = "work") -> None:
        """Create the object without contacting the storage.

        Args:
            uri: the folder's URI, such as s3://bucket/runs/rte.
            purpose: "work" for the driver's copy. Another word names a separate copy for reading, because a search
                may be running on the driver's copy.
        """
        super().__init__(cache() / artifacts.digest(uri) / purpose / last_name(uri))
        self.name = uri
        self.storage = RemoteFolder(uri)
        self._lock = RemoteLock(self.storage)
        # Size and modification time of each file at its last upload or download.
        self._synced: dict[str, tuple[int, int]] = {}
        self._unfinished_trials: set[str] = set()
        self._study_uploaded_at = time.monotonic()

    @override
    def check_writable(self, flag: str) -> None:
        self.storage.require(flag)

    @override
    def download(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._forget()
        stored_names = self.storage.sizes()
        wanted = [name for name in stored_names if _is_downloaded(name)]
        self._delete_all_but({self.folder / name for name in wanted})
        for name in wanted:
            self.storage.get(name, self.folder / name)
            self._remember(self.folder / name)
        for trial in _trials(stored_names):
            if self._state(trial) not in (TrialState.FINISHED, TrialState.STOPPED):
                self._unfinished_trials.add(trial)
                self._download_checkpoints(trial, stored_names)

    def _delete_all_but(self, kept: set[Path]) -> None:
        """Delete the other files of the working copy, and folders that then are empty.

        Files that stay are replaced one by one, so that whoever reads the copy always finds them.
        """
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.relative_to(self.folder).parts[0] in _NOT_SYNCED or (path in kept and path.is_file()):
                continue
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):  # It is not empty.
                    path.rmdir()
            else:
                path.unlink()

    @override
    @contextmanager
    def look(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, last_name(self.name))
            folder.mkdir()
            for name in {name.split("/")[0] for name in self.storage.sizes()} - set(_NOT_DOWNLOADED):
                (folder / name).touch()
            for name in (layout.SUMMARY, layout.SETTINGS):
                if (folder / name).exists():
                    self.storage.get(name, folder / name)
            with named_in_errors(folder, self.name):
                yield folder

    def _state(self, trial: str) -> str:
        """Return the recorded state of a trial; empty if there is none."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            path = self.folder / layout.RESULTS / trial / layout.TRIAL_ENDING
            return str(json.loads(path.read_text(encoding="utf-8")).get("state"))
        return ""

    def _download_checkpoints(self, trial: str, stored_names: Iterable[str]) -> None:
        for name in stored_names:
            if name.startswith(f"{layout.RESULTS}/{trial}/") and _in_checkpoint(name):
                self.storage.get(name, self.folder / name)

    @override
    def memory_folder(self, given: str | Path | None) -> tuple[Path, str | None]:
        if given is not None:
            return super().memory_folder(given)
        return self.folder / layout.MEMORY, self.storage.below(layout.MEMORY).uri

    @override
    def ray_storage(self) -> dict[str, Any]:
        return {"storage_path": self.storage.root, "storage_filesystem": self.storage.filesystem}

    @override
    def path_for_workers(self, path: Path) -> str:
        return self.storage.below(self._relative(path)).uri

    def _relative(self, path: Path) -> str:
        """Return the name of a file relative to the folder, which is its name in the storage."""
        return path.absolute().relative_to(self.folder.absolute()).as_posix()

    def _remember(self, path: Path) -> bool:
        """Record that a file is being synced, and return whether it has changed since its last sync."""
        name, status = self._relative(path), path.stat()
        state = (status.st_size, status.st_mtime_ns)
        changed = self._synced.get(name) != state
        self._synced[name] = state
        return changed

    def _forget(self) -> None:
        self._synced = {}
        self._unfinished_trials = set()

    @override
    def upload(self, path: Path) -> None:
        self._lock.check_held()
        self._remember(path)
        self.storage.put(path, self._relative(path))

    @override
    def delete(self, path: Path) -> None:
        self._lock.check_held()
        super().delete(path)
        self.storage.delete(self._relative(path))

    @override
    def delete_checkpoints(self, trial: Path) -> None:
        super().delete_checkpoints(trial)
        # Trials upload checkpoints from their own nodes, so the storage has some that are not on this disk.
        name = self._relative(trial)
        for checkpoint in {file.split("/")[2] for file in self.storage.sizes(name) if _in_checkpoint(file)}:
            self.storage.delete(f"{name}/{checkpoint}")

    @override
    def clear(self) -> None:
        for name in {file.split("/")[0] for file in self.storage.sizes()}:
            if name not in _NOT_DOWNLOADED:
                self.storage.delete(name)
        self._forget()

    @override
    def download_checkpoint(self, trial: str) -> None:
        if not any((self.folder / layout.RESULTS / trial).glob(layout.CHECKPOINTS)):
            self._download_checkpoints(trial, self.storage.sizes(f"{layout.RESULTS}/{trial}"))

    @override
    def download_folder(self, folder: Path) -> None:
        self.storage.get_folder(self._relative(folder), folder)

    @override
    def sync_unfinished(self) -> None:
        for trial in self._unfinished_trials:
            folder = self.folder / layout.RESULTS / trial
            local_names = {self._relative(path) for path in folder.rglob("*") if path.is_file()}
            # Upload before deleting, so that an interruption in between loses nothing.
            for name in sorted(local_names):
                self.storage.put(self.folder / name, name)
            for name in self.storage.sizes(f"{layout.RESULTS}/{trial}"):
                if name not in local_names:
                    self.storage.delete(name)

    @override
    def sync_if_due(self) -> None:
        if time.monotonic() - self._study_uploaded_at > _STUDY_SECONDS:
            self._study_uploaded_at = time.monotonic()
            self._upload_study()

    def _upload_study(self) -> None:
        """Upload a copy of the study, unless it is damaged; the search then rebuilds it from its trials."""
        self._lock.check_held()
        if not (self.folder / layout.STUDY).is_file():
            return
        # A study that another program has locked is uploaded the next time.
        with contextlib.suppress(WaitedTooLongError), tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary, layout.STUDY)
            if copy_database(self.folder / layout.STUDY, copy):
                self.storage.put(copy, layout.STUDY)

    @override
    def sync_all(self) -> None:
        self._lock.check_held()
        for path in sorted(self.folder.rglob("*")):
            name = self._relative(path)
            parts = name.split("/")
            # `_upload_study` copies the study; hidden files and folders are temporary.
            skipped = parts[0] in (*_NOT_SYNCED, layout.STUDY) or any(part.startswith(".") for part in parts)
            if path.is_file() and not skipped and not _in_checkpoint(name) and self._remember(path):
                self.storage.put(path, name)
        self._upload_study()

    @override
    def upload_inputs(self, paths: list[str]) -> tuple[tuple[str, str], ...]:
        path_uris = []
        for path in dict.fromkeys(paths):
            target = self.storage.below(_INPUTS, artifacts.folder_digest(Path(path), ("*",)))
            stored_sizes = target.sizes()
            for file in Path(path).iterdir():
                if file.is_file() and stored_sizes.get(file.name) != file.stat().st_size:
                    target.put(file, file.name)
            path_uris.append((path, target.uri))
        return tuple(path_uris)

    @override
    @contextmanager
    def lock(self) -> Iterator[None]:
        with self._lock.hold():
            self.download()
            yield


@contextmanager
def named_in_errors(folder: Path, uri: str) -> Iterator[None]:
    """Name a URI instead of its copy in the problems that the block finds.

    Args:
        folder: the copy on this machine.
        uri: what the user gave.

    Raises:
        InputError: as the block raised it.
    """
    try:
        yield
    except InputError as error:
        raise InputError([problem.replace(str(folder), uri) for problem in error.problems], error.hint) from error


def _trials(names: Iterable[str]) -> set[str]:
    """Return the folder names of the trials among stored names."""
    return {name.split("/")[1] for name in names if name.startswith(f"{layout.RESULTS}/") and name.count("/") > 1}


def _is_downloaded(name: str) -> bool:
    """Whether a stored file belongs into the working copy from the start."""
    return name.split("/")[0] not in _NOT_DOWNLOADED and not _in_checkpoint(name) and not _written_by_ray(name)


def _in_checkpoint(name: str) -> bool:
    """Return whether a stored name is in a trial's checkpoint."""
    parts = name.split("/")
    return len(parts) > 3 and parts[0] == layout.RESULTS and parts[2].startswith(("checkpoint_", checkpoints.RESTART))


def _written_by_ray(name: str) -> bool:
    """Return whether a stored name is a file that only Ray Tune uses."""
    parts = name.split("/")
    trial_files = (layout.TRIAL_CONFIG, layout.TRIAL_REPORTS, layout.TRIAL_ENDING)
    return parts[0] == layout.RESULTS and (len(parts) < 3 or (len(parts) == 3 and parts[2] not in trial_files))
