"""Artefacts on disk: named by their content, checksummed, and written atomically.

An artefact is a folder with a manifest. It is built once, even if several processes need it.
"""

import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fsd_tune.errors import FsdTuneError
from fsd_tune.storage import json_file
from fsd_tune.storage.records import Manifest

# The file in a model's folder that records how the model was made.
MODEL_RECORD = "fsd_tune.json"

MANIFEST = "manifest.json"


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
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing, and rename it to `path` if the block succeeds.

    A reader sees the old or the new file, never half of it. A failure leaves the old file as it was.

    Args:
        path: the file to write; its folder is created if it is missing.

    Yields:
        The open binary stream.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with temporary.open("xb") as stream:
            yield stream
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Create a temporary folder beside `folder`, and rename it to `folder` if the block succeeds.

    The new folder replaces an existing one. A failure leaves the existing one as it was. Temporary folders of
    interrupted processes on this machine are deleted first.

    Args:
        folder: the folder to write; its parents are created if they are missing.

    Yields:
        The temporary folder, empty.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _delete_leftovers(folder)
    temporary = _beside(folder)
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    """Return an unused path beside `path` that names this machine and this process."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")


def _delete_leftovers(folder: Path) -> None:
    """Delete the temporary folders for `folder` whose processes have ended."""
    import psutil

    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.{glob.escape(socket.gethostname())}-*-*"):
        process_id = leftover.name.split("-")[-2]
        if process_id.isdigit() and not psutil.pid_exists(int(process_id)):
            shutil.rmtree(leftover, ignore_errors=True)


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
    folder.parent.mkdir(parents=True, exist_ok=True)
    require_space(folder.parent, bytes_needed)
    facts: dict[str, Any] = {}
    try:
        with atomic_folder(folder) as temporary:
            yield temporary, facts
            files = {path.name: [path.stat().st_size, checksum(path)] for path in sorted(temporary.iterdir())}
            (temporary / MANIFEST).write_text(json.dumps({"files": files, "facts": facts}, indent=1), encoding="utf-8")
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
    """Return the facts of an artefact that is complete and undamaged.

    Args:
        folder: the artefact's folder.

    Returns:
        The facts of its manifest; None if the artefact is missing, or if the size or checksum of a file differs.
    """
    try:
        manifest = Manifest.model_validate(json_file.read_mapping(folder / MANIFEST))
        for name, (size, expected) in manifest.files.items():
            path = folder / name
            if path.stat().st_size != size or checksum(path) != expected:
                return None
    except (OSError, ValueError):
        return None
    return manifest.facts


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an artefact, so that one process builds it while the others wait.

    Args:
        folder: the artefact's folder. The lock is a file beside it.
    """
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        yield
