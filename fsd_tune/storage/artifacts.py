"""Artefacts on disk: named by their content, checksummed, and written atomically.

An artefact is a folder with a manifest. It is built once, even if several processes need it. A start compares sizes and
times with the manifest; the checksum of a file is compared when the file is first read on a node, because reading all
files at each start would take minutes for a large task.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_tune.errors import DamagedError, FsdTuneError
from fsd_tune.storage import json_file
from fsd_tune.storage.files import MANIFEST as MANIFEST
from fsd_tune.storage.files import MODEL_RECORD as MODEL_RECORD
from fsd_tune.storage.files import atomic_file as atomic_file
from fsd_tune.storage.files import atomic_folder as atomic_folder
from fsd_tune.storage.files import make_folder
from fsd_tune.storage.records import Manifest


def digest(*parts: Any) -> str:
    """Return 16 hex digits that identify content.

    Args:
        parts: bytes and NumPy arrays, which are hashed as they are; everything else is hashed as sorted JSON.
    """
    sha256 = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            data = f"{part.dtype.str}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
        else:
            data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        sha256.update(len(data).to_bytes(8, "big") + data)
    return sha256.hexdigest()[:16]


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hex.

    Args:
        path: the file, which is read in parts.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path, patterns: tuple[str, ...]) -> str:
    """Return a `digest` of files in a folder.

    Args:
        folder: the folder; its subfolders are not searched.
        patterns: glob patterns; a file counts if any of them matches.
    """
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return digest([[path.name, checksum(path)] for path in paths])


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, completely or not at all.

    Args:
        path: the file, which is replaced if it exists; its folder is created if it is missing.
        text: the complete content.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all.

    Args:
        path: the file, which is replaced if it exists; its folder is created if it is missing.
        content: the complete content.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    try:
        with atomic_file(path) as stream:
            stream.write(content)
    except OSError as error:
        # A stream does not know its name, and the name of the temporary file says nothing to users.
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, completely or not at all.

    Args:
        path: the file, which is replaced if it exists; its folder is created if it is missing.
        value: any value that `json.dumps` accepts.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    write_text(path, json.dumps(value, indent=1) + "\n")


@contextmanager
def writing(folder: Path, bytes_needed: int = 0) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Build an artefact: an `atomic_folder` with a manifest of its files' sizes and checksums.

    Args:
        folder: the artefact's final name.
        bytes_needed: free disk space in bytes that is required before the work starts.

    Yields:
        The temporary folder to fill, and a dictionary for the facts of the manifest.

    Raises:
        FsdTuneError: the disk is full, before or during the work.
    """
    make_folder(folder.parent)
    require_space(folder.parent, bytes_needed)
    facts: dict[str, Any] = {}
    try:
        with atomic_folder(folder) as temporary:
            yield temporary, facts
            files = {
                path.name: [path.stat().st_size, checksum(path), path.stat().st_mtime_ns // 1000]
                for path in sorted(temporary.iterdir())
            }
            (temporary / MANIFEST).write_text(json.dumps({"files": files, "facts": facts}, indent=1), encoding="utf-8")
        for name in files:
            _mark_checked(folder / name)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_space(folder.parent) from error
        raise


def reserved(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Return a new .npy file of zeros, mapped for writing, with its disk space allocated.

    Writing to a mapped file on a full disk would kill the process (SIGBUS). Allocation raises an error instead.

    Args:
        path: the file to create.
        shape: the shape of the array.
        dtype: the data type of the array.

    Raises:
        OSError: the disk is full.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array


def require_space(folder: Path, bytes_needed: int) -> None:
    """Check that a disk has enough free space.

    Args:
        folder: a folder on the disk.
        bytes_needed: the required free space in bytes.

    Raises:
        FsdTuneError: the disk has less.
    """
    free = shutil.disk_usage(folder).free
    if bytes_needed > free:
        raise no_space(folder, bytes_needed, free)


def no_space(folder: Path, needed: int | None = None, free: int | None = None) -> FsdTuneError:
    """Return the error for a full disk.

    Args:
        folder: a folder on the disk.
        needed: the required bytes, if known.
        free: the free bytes, if known.
    """
    amount = "" if needed is None or free is None else f": {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"
    return FsdTuneError(f"{folder}: no space left{amount}.", hint="Free some, or give another --output or --memory.")


def facts_of(folder: Path) -> dict[str, Any] | None:
    """Return the facts of an artefact that is complete and seems undamaged by the sizes and times of its files.

    A file with another time than in the manifest is a copy or was changed, so its checksum is compared. If it agrees,
    the file gets the time of the manifest and is not read again at the next start.

    Args:
        folder: the artefact's folder.

    Returns:
        The facts of its manifest; None if the artefact is missing, or if the size or a compared checksum differs.
    """
    try:
        manifest = _manifest(folder)
        for name, (size, expected, *recorded) in manifest.files.items():
            path = folder / name
            status = path.stat()
            if status.st_size != size:
                return None
            if [status.st_mtime_ns // 1000] == recorded:
                continue
            if checksum(path) != expected:
                return None
            if recorded:
                with contextlib.suppress(OSError):  # The folder may be read-only.
                    os.utime(path, ns=(status.st_atime_ns, recorded[0] * 1000))
            _mark_checked(path)
    except (OSError, ValueError):
        return None
    return manifest.facts


def damaged_files(folder: Path) -> list[str]:
    """Compare the checksums of all files of an artefact, and return the names of the missing and damaged ones.

    Args:
        folder: the artefact's folder; it has a manifest.

    Raises:
        OSError: the manifest cannot be read.
        ValueError: the manifest is damaged.
    """
    return [name for name in _manifest(folder).files if not _is_whole(folder / name)]


def check_once(path: Path) -> None:
    """Compare the checksum of an artefact's file before it is read, once per node and version of the file.

    Args:
        path: the file, in the folder of its artefact.

    Raises:
        DamagedError: the checksum differs. The next start builds the artefact again.
    """
    marker = _marker(path)
    if marker.exists():
        return
    from filelock import FileLock

    with contextlib.ExitStack() as stack:
        # The other processes of this node wait, instead of reading the file as well.
        with contextlib.suppress(OSError):
            marker.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(marker.with_suffix(".lock")))
        if marker.exists():
            return
        if not _is_whole(path):
            # With a new time its checksum is compared at the next start.
            with contextlib.suppress(OSError):
                path.touch()
            raise DamagedError(
                f"{path}: is damaged, because its checksum is not that in {MANIFEST}.",
                hint=f"The next start builds {path.parent.name} again.",
            )
        _mark_checked(path)


def _manifest(folder: Path) -> Manifest:
    return Manifest.model_validate(json_file.read_mapping(folder / MANIFEST))


def _is_whole(path: Path) -> bool:
    """Return whether a file of an artefact has its recorded size and checksum."""
    size, expected, *_ = _manifest(path.parent).files[path.name]
    return path.is_file() and path.stat().st_size == size and checksum(path) == expected


def _marker(path: Path) -> Path:
    """Return the file that tells the processes of this node that a file was checked; restarting the machine clears it.

    Its name contains the file's time and inode, so that a changed file is checked again.
    """
    status = path.stat()
    name = digest(str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino)
    return Path(tempfile.gettempdir()) / f"fsd_tune-checked-{os.getuid()}" / name


def _mark_checked(path: Path) -> None:
    with contextlib.suppress(OSError):
        marker = _marker(path)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()


def read_array(path: Path, mapped: bool = False) -> NDArray[Any]:
    """Return an array of an artefact, after checking its file on the first read.

    Args:
        path: a .npy file.
        mapped: map the file instead of reading it into memory.

    Raises:
        DamagedError: the checksum of the file differs.
    """
    check_once(path)
    array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None)
    return array
