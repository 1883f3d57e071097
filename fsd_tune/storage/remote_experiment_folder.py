"""A search's folder behind a URI (s3://, gs://), with a working copy on the driver's disk that it follows at once.

A driver whose machine is lost leaves behind what had happened until then.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
from typing_extensions import override

from fsd_tune.errors import InputError
from fsd_tune.storage import artifacts, checkpoints
from fsd_tune.storage.experiment_folder import ExperimentFolder, cache
from fsd_tune.storage.remote import RemoteFolder
from fsd_tune.storage.uri import last_name

_STUDY = "study.db"
# The study can be made anew from the trials' files, so that a copy now and then is enough.
_STUDY_SECONDS = 60.0
_LOCK = ".lock.json"
_BEAT_SECONDS = 20.0
# A lock that nobody has renewed for so long is a dead driver's.
_DEAD_SECONDS = 90.0
_ENDED = ("finished", "stopped")
# What stays where it is: artefacts have a way of their own, locks are each machine's.
_APART = ("memory", ".lock")


class RemoteExperimentFolder(ExperimentFolder):
    """A search's folder behind a URI; the working copy lies in this machine's cache."""

    def __init__(self, uri: str, purpose: str = "work") -> None:
        """Args: `purpose` tells the driver's copy from one that is only read, beside a search that may be running."""
        self.storage = RemoteFolder(uri)
        # By the text alone: the storage is not asked before `require` or `pull`.
        super().__init__(cache() / artifacts.digest(uri) / purpose / last_name(uri))
        self.name = uri
        self._stored: dict[str, tuple[int, int]] = {}
        self._open: set[str] = set()
        self._copied = time.monotonic()
        self._driving, self._token = purpose == "work", secrets.token_hex(8)

    @override
    def check_writable(self, flag: str) -> None:
        self.storage.require(flag)

    @override
    def download(self) -> None:
        if self._driving:
            self._refuse_other()  # whose working copy this may be
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name not in _APART:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stored, self._open = {}, set()
        found = self.storage.sizes()
        for name in found:
            if name.split("/")[0] not in (*_APART, _LOCK, "inputs") and not _checkpoint(name) and not _rays(name):
                self.storage.get(name, self.folder / name)
                self._note(self.folder / name)
        for trial in {name.split("/")[1] for name in found if name.startswith("results/") and name.count("/") > 1}:
            if self._state(trial) not in _ENDED:
                self._open.add(trial)
                self._checkpoints(trial, found)

    def _state(self, trial: str) -> str:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            ending = json.loads((self.folder / "results" / trial / "trial.json").read_text(encoding="utf-8"))
            return str(ending.get("state"))
        return ""

    def _checkpoints(self, trial: str, found: dict[str, int]) -> None:
        for name in found:
            if name.startswith(f"results/{trial}/") and _checkpoint(name):
                self.storage.get(name, self.folder / name)

    @override
    def memory_folder(self, given: str | Path | None) -> tuple[Path, str | None]:
        if given is not None:
            return super().memory_folder(given)
        return self.folder / "memory", self.storage.below("memory").uri

    @override
    def ray_storage(self) -> dict[str, Any]:
        return {"storage_path": self.storage.root, "storage_filesystem": self.storage.filesystem}

    @override
    def path_for_workers(self, path: Path) -> str:
        return self.storage.below(self._name(path)).uri

    def _name(self, path: Path) -> str:
        return path.absolute().relative_to(self.folder.absolute()).as_posix()

    def _note(self, path: Path) -> bool:
        """Remember a file as it is stored; whether it had changed."""
        seen, now = self._stored.get(self._name(path)), path.stat()
        self._stored[self._name(path)] = (now.st_size, now.st_mtime_ns)
        return seen != (now.st_size, now.st_mtime_ns)

    @override
    def upload(self, path: Path) -> None:
        self._note(path)
        self.storage.put(path, self._name(path))

    @override
    def delete(self, path: Path) -> None:
        super().delete(path)
        self.storage.delete(self._name(path))

    @override
    def delete_checkpoints(self, trial: Path) -> None:
        super().delete_checkpoints(trial)
        # Trials save theirs from where they run.
        for stored in {name.split("/")[2] for name in self.storage.sizes(self._name(trial)) if _checkpoint(name)}:
            self.storage.delete(f"{self._name(trial)}/{stored}")

    @override
    def clear(self) -> None:
        for name in {one.split("/")[0] for one in self.storage.sizes()}:
            if name not in (*_APART, _LOCK, "inputs"):
                self.storage.delete(name)
        self._stored, self._open = {}, set()

    @override
    def download_checkpoint(self, trial: str) -> None:
        if not any((self.folder / "results" / trial).glob("checkpoint_*")):
            self._checkpoints(trial, self.storage.sizes(f"results/{trial}"))

    @override
    def download_folder(self, folder: Path) -> None:
        self.storage.get_folder(self._name(folder), folder)

    @override
    def sync_unfinished(self) -> None:
        for trial in self._open:
            here, name = self.folder / "results" / trial, f"results/{trial}"
            held = {f"{name}/{path.relative_to(here).as_posix()}" for path in here.rglob("*") if path.is_file()}
            # First what is to be there, then away with what is not: a stop in between loses nothing.
            for one in sorted(held):
                self.storage.put(self.folder / one, one)
            for one in self.storage.sizes(name):
                if one not in held:
                    self.storage.delete(one)

    @override
    def sync_if_due(self) -> None:
        if time.monotonic() - self._copied > _STUDY_SECONDS:
            self._copied = time.monotonic()
            self._put_study()

    def _put_study(self) -> None:
        if not (self.folder / _STUDY).is_file():
            return
        with tempfile.TemporaryDirectory() as beside:
            copy = Path(beside) / _STUDY
            with (
                closing(sqlite3.connect(self.folder / _STUDY)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                try:
                    source.backup(target)
                except sqlite3.DatabaseError as error:
                    if error.sqlite_errorname not in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
                        raise
                    return  # damaged where it came from; the search makes it anew from its trials
            self.storage.put(copy, _STUDY)

    @override
    def sync_all(self) -> None:
        for path in sorted(self.folder.rglob("*")):
            name = self._name(path)
            apart = name.split("/")[0] in (*_APART, _STUDY) or path.name.startswith(".") or _checkpoint(name)
            if path.is_file() and not apart and self._note(path):
                self.storage.put(path, name)
        self._put_study()

    @override
    def upload_inputs(self, paths: list[str]) -> tuple[tuple[str, str], ...]:
        brought = []
        for path in dict.fromkeys(paths):
            there = self.storage.below("inputs", artifacts.folder_digest(Path(path), ("*",)))
            held, own = there.sizes(), {one.name: one.stat().st_size for one in Path(path).iterdir() if one.is_file()}
            for name in own:
                if held.get(name) != own[name]:
                    there.put(Path(path) / name, name)
            brought.append((path, there.uri))
        return tuple(brought)

    @override
    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep it to this process by a lock that is renewed while it lives.

        Raises:
            InputError: another process has it.
        """
        self._refuse_other()
        over, owner = threading.Event(), {"token": self._token, "host": socket.gethostname(), "pid": os.getpid()}

        def beat() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):  # storage that is away for a while; the next beat tries again
                    self.storage.write(_LOCK, json.dumps(owner | {"time": time.time()}).encode())
                over.wait(_BEAT_SECONDS)

        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()
            self.storage.delete(_LOCK)

    def _refuse_other(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            held = json.loads(self.storage.read(_LOCK))
            age = time.time() - float(held["time"])
            gone = held.get("host") == socket.gethostname() and not psutil.pid_exists(int(held["pid"]))
            if held["token"] != self._token and age < _DEAD_SECONDS and not gone:
                raise InputError(
                    f"{self.name}: another search is running there (a sign of life {max(age, 0):.0f} s ago); "
                    f"wait for its end, stop it, or if its machine is gone, wait {_DEAD_SECONDS - age:.0f} s more."
                )


def _checkpoint(name: str) -> bool:
    """Whether a stored name lies in a trial's checkpoint."""
    parts = name.split("/")
    return len(parts) > 3 and parts[0] == "results" and parts[2].startswith(("checkpoint_", checkpoints.RESTART))


def _rays(name: str) -> bool:
    """Whether a stored name is one of Ray's own, which nobody reads (scribe.py)."""
    parts = name.split("/")
    ours = ("config.json", "reports.jsonl", "trial.json")
    return parts[0] == "results" and (len(parts) < 3 or (len(parts) == 3 and parts[2] not in ours))
