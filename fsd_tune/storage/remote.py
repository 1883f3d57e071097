"""Files behind a pyarrow URI (s3://, gs://): atomic reads and writes that are retried during outages.

pyarrow is imported only when a storage is used.
"""

import contextlib
import functools
import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from fsd_tune.errors import InputError, first_line
from fsd_tune.storage import artifacts
from fsd_tune.storage.retry import RETRY_SECONDS, retry_until_available
from fsd_tune.storage.uri import check_names, joined, problems_of

_ANSWER_SECONDS = 15.0
_COPY_BYTES = 1 << 22

Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteFolder:
    """A folder behind a URI, whose files are named relative to it.

    Attributes:
        uri: the folder's URI, such as s3://bucket/runs/rte. pyarrow takes keys from the environment or from
            credentials files.
        patience: seconds for which an operation is retried while the storage is unavailable.
    """

    uri: str
    patience: float = RETRY_SECONDS

    @cached_property
    def _system_and_root(self) -> tuple[Any, str]:
        parts = urlsplit(self.uri)
        try:
            system, root = _file_system(urlunsplit(parts._replace(path="/")))
        except (ValueError, OSError) as error:  # An unknown option, or a scheme that pyarrow was built without.
            raise InputError(f"{self.uri}: cannot be used: {first_line(error)}") from error
        return system, f"{root}/{unquote(parts.path).strip('/')}".rstrip("/")

    @property
    def filesystem(self) -> Any:
        """The `pyarrow.fs.FileSystem`."""
        return self._system_and_root[0]

    @property
    def root(self) -> str:
        """The path of this folder in `filesystem`."""
        return self._system_and_root[1]

    def below(self, *names: str) -> "RemoteFolder":
        """Return a folder below this one.

        Args:
            names: the names to append; they may contain slashes.
        """
        return RemoteFolder(joined(self.uri, *names), self.patience)

    def sizes(self, name: str = "") -> dict[str, int]:
        """Return the size in bytes of every file below `name`, by its name relative to this folder.

        Args:
            name: a folder's name; empty for this folder. A missing folder has no files.

        Raises:
            InputError: a stored name cannot be that of a file below a folder, as `../x`.
        """
        return {file: entry.size for file, entry in self._files(name).items()}

    def times(self) -> dict[str, float]:
        """Return when each file was written last by the storage's clock, in seconds since the epoch."""
        return {file: entry.mtime_ns / 1e9 for file, entry in self._files("").items()}

    def _files(self, name: str) -> dict[str, Any]:
        """Return pyarrow's `FileInfo` of every file below `name`, by its name relative to this folder."""
        from pyarrow import fs

        def list_files() -> dict[str, Any]:
            selector = fs.FileSelector(self._path(name), recursive=True, allow_not_found=True)
            try:
                entries = self.filesystem.get_file_info(selector)
            except NotADirectoryError:  # On a disk, `name` is a file; a bucket has nothing below a file.
                return {}
            return {entry.path[len(self.root) + 1 :]: entry for entry in entries if entry.type == fs.FileType.File}

        sizes = self._retry(list_files)
        check_names(sizes, self.uri)
        return sizes

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Args:
            name: the file's name relative to this folder.

        Raises:
            FileNotFoundError: there is no such file.
        """

        def read() -> bytes:
            with self.filesystem.open_input_stream(self._path(name)) as stream:
                content: bytes = stream.read()
            return content

        return self._retry(read)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, completely or not at all.

        Args:
            name: the file's name relative to this folder.
            content: the complete content.
        """

        def write() -> None:
            self._make_parent(name)
            with self.filesystem.open_output_stream(self._path(name)) as stream:
                stream.write(content)

        self._retry(write)

    def put(self, local: Path, name: str) -> None:
        """Upload a file, or every file of a folder.

        Args:
            local: the file or folder on this machine.
            name: its name relative to this folder; empty for a folder whose files go directly into this one.
        """
        if not local.is_dir():
            self._put_file(local, name)
            return
        for path in sorted(local.rglob("*")):
            if path.is_file():
                self._put_file(path, f"{name}/{path.relative_to(local).as_posix()}".lstrip("/"))

    def _put_file(self, local: Path, name: str) -> None:
        def copy() -> None:
            self._make_parent(name)
            with local.open("rb") as source, self.filesystem.open_output_stream(self._path(name)) as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)

        self._retry(copy)

    def get(self, name: str, local: Path) -> None:
        """Download a file, completely or not at all.

        Args:
            name: the file's name relative to this folder.
            local: the file on this machine; replaced if it exists.

        Raises:
            FileNotFoundError: there is no such file in the storage.
        """

        def copy() -> None:
            with (
                artifacts.atomic_file(local) as target,
                self.filesystem.open_input_stream(self._path(name)) as source,
            ):
                shutil.copyfileobj(source, target, _COPY_BYTES)

        self._retry(copy)

    def get_folder(self, name: str, local: Path) -> bool:
        """Download every file below `name`, all of them or none.

        Args:
            name: the folder's name relative to this folder; empty for this folder itself.
            local: the folder on this machine; replaced if it exists.

        Returns:
            True if there was at least one file.
        """
        files = self.sizes(name)
        if not files:
            return False
        with artifacts.atomic_folder(local) as temporary:
            for file in files:
                self.get(file, temporary / file[len(name) :].lstrip("/"))
        return True

    def delete(self, name: str) -> None:
        """Delete a file, or every file below a name; do nothing if there is none.

        Args:
            name: the name of a file or folder; empty for this folder.
        """
        for path in [*self.sizes(name), name]:
            with contextlib.suppress(FileNotFoundError):
                self._retry(functools.partial(self._delete_one, path))

    def _delete_one(self, name: str) -> None:
        from pyarrow import fs

        (entry,) = self.filesystem.get_file_info([self._path(name)])
        if entry.type == fs.FileType.File:
            self.filesystem.delete_file(entry.path)
        elif entry.type == fs.FileType.Directory:
            self.filesystem.delete_dir(entry.path)

    def require(self, flag: str, write: bool = True) -> None:
        """Check that a file can be written to this folder and read back.

        Args:
            flag: the option to name in the message.
            write: if False, check only that the storage answers a reader, who may lack the right to write.

        Raises:
            InputError: the check failed, or the storage did not answer within 15 seconds.
        """
        problems = problems_of(self.uri, flag)
        if problems:
            raise InputError(problems)
        without_retries = RemoteFolder(self.uri, patience=0.0)
        probe = f".writable-{secrets.token_hex(4)}"
        errors: list[Exception] = []

        def write_and_read() -> None:
            try:
                if not write:
                    self.filesystem.get_file_info([self.root])
                    return
                without_retries.write(probe, b"fsd_tune")
                without_retries.read(probe)
                without_retries.delete(probe)
            except (OSError, InputError) as error:
                errors.append(error)

        # pyarrow itself would wait for minutes if the storage does not answer.
        thread = threading.Thread(target=write_and_read, daemon=True)
        thread.start()
        thread.join(_ANSWER_SECONDS)
        if thread.is_alive():
            raise InputError(f"{flag}: {self.uri} has not answered within {_ANSWER_SECONDS:g} s.")
        if errors and isinstance(errors[0], InputError):
            raise errors[0]
        if errors:
            verb = "written" if write else "read"
            raise InputError(f"{flag}: {self.uri} cannot be {verb}: {first_line(errors[0])}") from errors[0]

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _make_parent(self, name: str) -> None:
        """Create the folder of a file, on file systems with real folders."""
        if urlsplit(self.uri).scheme in ("file", "hdfs"):
            self.filesystem.create_dir(self._path(name).rpartition("/")[0], recursive=True)

    def _retry(self, work: Callable[[], Result]) -> Result:
        return retry_until_available(work, self.patience)


# Cached, because the s3:// client looks for the metadata service of AWS first, which takes seconds elsewhere.
@functools.lru_cache
def _file_system(bucket: str) -> tuple[Any, str]:
    """Return pyarrow's file system for a URI without a path, and the root path in it."""
    from pyarrow import fs

    system, root = fs.FileSystem.from_uri(bucket)
    return system, root.rstrip("/")
