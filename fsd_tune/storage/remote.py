"""Files behind a pyarrow URI (s3://, gs://): put there whole, fetched once a node, with patience for an outage.

Nothing here knows what the files mean. pyarrow is imported when a storage is first used.
"""

import contextlib
import errno
import functools
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.storage import artifacts
from fsd_tune.storage.uri import is_uri, joined, problems_of

# Storage that does not answer is asked again for so long before work is given up.
PATIENCE_SECONDS = 120.0
_ANSWER_SECONDS = 15.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteFolder:
    """The files below a URI, by their names relative to it.

    Attributes:
        uri: such as s3://bucket/runs/rte. Keys come from the environment or files, as pyarrow finds them.
        patience: seconds for which storage that does not answer is asked again.
    """

    uri: str
    patience: float = PATIENCE_SECONDS

    @cached_property
    def _place(self) -> tuple[Any, str]:
        parts = urlsplit(self.uri)
        try:
            system, root = _system(urlunsplit(parts._replace(path="/")))
        except (ValueError, OSError) as error:  # an option that it does not know, a scheme that it was built without
            raise InputError(f"{self.uri}: cannot be used: {_line(error)}") from error
        return system, f"{root}/{unquote(parts.path).strip('/')}".rstrip("/")

    @property
    def filesystem(self) -> Any:
        """pyarrow's."""
        return self._place[0]

    @property
    def root(self) -> str:
        """The path of this place in `filesystem`."""
        return self._place[1]

    def below(self, *names: str) -> "RemoteFolder":
        """A place below this one."""
        return RemoteFolder(joined(self.uri, *names), self.patience)

    def sizes(self, name: str = "") -> dict[str, int]:
        """Every file below `name` by its name relative to this place, with its bytes; empty where there is none."""
        from pyarrow import fs

        def look() -> dict[str, int]:
            selector = fs.FileSelector(self._path(name), recursive=True, allow_not_found=True)
            try:
                found = self.filesystem.get_file_info(selector)
            except NotADirectoryError:  # of a disk's file; a bucket has nothing below one
                return {}
            return {one.path[len(self.root) + 1 :]: one.size for one in found if one.type == fs.FileType.File}

        return self._patiently(look)

    def read(self, name: str) -> bytes:
        """A file's content. Raises FileNotFoundError when there is none."""

        def load() -> bytes:
            with self.filesystem.open_input_stream(self._path(name)) as stream:
                content: bytes = stream.read()
            return content

        return self._patiently(load)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""

        def save() -> None:
            self._parent(name)
            with self.filesystem.open_output_stream(self._path(name)) as stream:
                stream.write(content)

        self._patiently(save)

    def put(self, here: Path, name: str) -> None:
        """Copy a file, or a folder's files, from here."""
        for path in sorted(here.rglob("*")) if here.is_dir() else [here]:
            if path.is_file():
                self._put(path, f"{name}/{path.relative_to(here).as_posix()}".lstrip("/") if path != here else name)

    def _put(self, here: Path, name: str) -> None:
        def copy() -> None:
            self._parent(name)
            with here.open("rb") as source, self.filesystem.open_output_stream(self._path(name)) as target:
                shutil.copyfileobj(source, target, 1 << 22)

        self._patiently(copy)

    def get(self, name: str, here: Path) -> None:
        """Fetch a file, written beside and renamed. Raises FileNotFoundError when there is none."""

        def copy() -> None:
            with artifacts.atomic_file(here) as target, self.filesystem.open_input_stream(self._path(name)) as source:
                shutil.copyfileobj(source, target, 1 << 22)

        self._patiently(copy)

    def get_folder(self, name: str, here: Path) -> bool:
        """Fetch every file below `name` into the folder `here`, which appears whole or not; False if there is none."""
        found = self.sizes(name)
        if not found:
            return False
        with artifacts.atomic_folder(here) as temporary:
            for each in found:
                self.get(each, temporary / each[len(name) :].lstrip("/"))
        return True

    def delete(self, name: str) -> None:
        """Delete a file, or every file below a name; nothing happens where there is none."""
        for each in [*self.sizes(name), name]:
            with contextlib.suppress(FileNotFoundError):
                self._patiently(lambda each=each: self._delete(each))  # type: ignore[misc]

    def _delete(self, name: str) -> None:
        from pyarrow import fs

        (found,) = self.filesystem.get_file_info([self._path(name)])
        if found.type == fs.FileType.File:
            self.filesystem.delete_file(found.path)
        elif found.type == fs.FileType.Directory:
            self.filesystem.delete_dir(found.path)

    def require(self, flag: str) -> None:
        """Refuse a place that cannot be written and read back now.

        Raises:
            InputError: it is one.
        """
        problems = problems_of(self.uri, flag)
        if problems:
            raise InputError(problems)
        now, mark, failed = RemoteFolder(self.uri, patience=0.0), ".writable", list[Exception]()

        def try_it() -> None:
            try:
                now.write(mark, b"fsd_tune")
                now.read(mark)
                now.delete(mark)
            except (OSError, InputError) as error:
                failed.append(error)

        # pyarrow asks storage that says nothing for minutes.
        trying = threading.Thread(target=try_it, daemon=True)
        trying.start()
        trying.join(_ANSWER_SECONDS)
        if trying.is_alive():
            raise InputError(f"{flag}: {self.uri} has not answered within {_ANSWER_SECONDS:g} s.")
        if failed and isinstance(failed[0], InputError):
            raise failed[0]
        if failed:
            raise InputError(f"{flag}: {self.uri} cannot be written: {_line(failed[0])}") from failed[0]

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _parent(self, name: str) -> None:
        """Where folders are things of their own, the file's must be there."""
        if urlsplit(self.uri).scheme in ("file", "hdfs"):
            self.filesystem.create_dir(self._path(name).rpartition("/")[0], recursive=True)

    def _patiently(self, work: Callable[[], Result]) -> Result:
        return retry_until_available(work, self.patience)


@functools.lru_cache
def _system(bucket: str) -> tuple[Any, str]:
    """pyarrow's file system for a URI without a path, and the path of that.

    Made once: the client of s3:// asks for a machine of AWS around it first, which takes seconds where there is none.
    """
    from pyarrow import fs

    system, root = fs.FileSystem.from_uri(bucket)
    return system, root.rstrip("/")


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."


def retry_until_available(work: Callable[[], Result], patience: float = PATIENCE_SECONDS) -> Result:
    """Do something that fails while the storage is away, again and again for `patience` seconds.

    Raises:
        OSError: it failed all the time, or was refused.
    """
    deadline, pause = time.monotonic() + patience, _FIRST_PAUSE
    while True:
        try:
            return work()
        except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError):
            raise
        except OSError as error:
            # What is refused stays refused; a full disk is the reader's own.
            if "ACCESS_DENIED" in str(error) or error.errno == errno.ENOSPC or time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)


def provide(folder: Path, uri: str) -> None:
    """See to it that a folder of another machine is on this one's disk, under the same path; fetched once a node.

    Raises:
        FsdTuneError: the storage does not have it, or this disk does not take it.
    """
    if folder.is_dir():
        return
    try:
        with artifacts.locked(folder):
            if not folder.is_dir() and not RemoteFolder(uri).get_folder("", folder):
                raise FsdTuneError(f"{uri}: is not there.")
    except PermissionError as error:
        raise FsdTuneError(f"{folder}: cannot be made on this node: {error.strerror}") from error


@contextlib.contextmanager
def folder_of(place: str) -> Iterator[Path]:
    """A folder by its path or URI, for as long as the body runs.

    Raises:
        FsdTuneError: there is none at the URI.
    """
    if not is_uri(place):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as beside:
        folder = Path(beside) / "folder"
        if not RemoteFolder(place).get_folder("", folder):
            raise FsdTuneError(f"{place}: is not there.")
        yield folder


@contextlib.contextmanager
def folder_to_fill(place: str) -> Iterator[Path]:
    """A folder for the body to write, which then lies at a path or URI, in the place of what was there."""
    if not is_uri(place):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as beside:
        folder = Path(beside) / "folder"
        yield folder
        RemoteFolder(place).delete("")
        RemoteFolder(place).put(folder, "")


def fetched(folder: Path, remote: str | None) -> bool:
    """Whether an artefact is whole on this node's disk, after a look at the storage that holds it for all nodes.

    The caller holds the artefact's lock (`files.locked`).

    Args:
        folder: the artefact's final name here.
        remote: the URI of the folder that holds the artefacts; None when they lie on a disk that all nodes share.
    """
    if artifacts.facts_of(folder) is not None:
        return True
    return (
        remote is not None
        and RemoteFolder(remote).get_folder(folder.name, folder)
        and artifacts.facts_of(folder) is not None
    )


def publish(folder: Path, remote: str | None) -> None:
    """Let the other nodes have an artefact that was built here; its manifest goes last: then all of it is there."""
    if remote is None:
        return
    there, manifest = RemoteFolder(remote), folder / artifacts.MANIFEST
    for path in sorted(folder.iterdir(), key=lambda path: path == manifest):
        there.put(path, f"{folder.name}/{path.name}")
