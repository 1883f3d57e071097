"""Artefacts on disk: named by content, checksummed, written beside and renamed, built once whoever asks."""

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

from fsd_tune.errors import FsdTuneError

# What a folder of ours says of its making.
MODEL_RECORD = "fsd_tune.json"

MANIFEST = "manifest.json"


def digest(*parts: Any) -> str:
    """A name of 16 hex digits for content: bytes and NumPy arrays as they are, everything else as sorted JSON."""
    whole = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            data = f"{part.dtype.str}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
        else:
            data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:16]


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path, patterns: tuple[str, ...]) -> str:
    """A name for the contents of a folder's files that match any of the patterns."""
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return digest([[path.name, checksum(path)] for path in paths])


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file beside and rename it, so that a reader sees the old or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        # mkstemp makes private files; results are to be read like any other file that the user writes.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            # A stream does not know its name, and that of the temporary file says nothing to people.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=1) + "\n")


@contextmanager
def writing(folder: Path, bytes_needed: int = 0) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Build an artefact: yields a folder to fill and a dictionary of facts that goes into its manifest.

    On leaving, the files are checksummed and the folder takes its final name; a failure leaves nothing behind.

    Raises:
        FsdTuneError: the disk has no room, found before the work or on the way.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    require_space(folder.parent, bytes_needed)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    facts: dict[str, Any] = {}
    try:
        yield temporary, facts
        files = {path.name: [path.stat().st_size, checksum(path)] for path in sorted(temporary.iterdir())}
        (temporary / MANIFEST).write_text(json.dumps({"files": files, "facts": facts}, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError as error:
        if error.errno == 28:
            raise no_space(folder.parent) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def reserved(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """A new .npy file of zeros, mapped for writing, whose room on the disk is taken now.

    A mapped write to a disk that has become full would end the process (SIGBUS) where this raises OSError.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array


def require_space(folder: Path, bytes_needed: int) -> None:
    """Raises FsdTuneError when the disk of `folder` has less room than `bytes_needed`."""
    free = shutil.disk_usage(folder).free
    if bytes_needed > free:
        raise no_space(folder, bytes_needed, free)


def no_space(folder: Path, needed: int | None = None, free: int | None = None) -> FsdTuneError:
    """The error for a full disk."""
    amount = "" if needed is None or free is None else f": {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"
    return FsdTuneError(f"{folder}: no space left{amount}.", hint="Free some, or give another --output or --memory.")


def facts_of(folder: Path) -> dict[str, Any] | None:
    """The facts of a whole, undamaged artefact; None when it is missing or damaged (sizes and checksums differ)."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, (size, expected) in manifest["files"].items():
            path = folder / name
            if path.stat().st_size != size or checksum(path) != expected:
                return None
        facts: dict[str, Any] = manifest["facts"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return facts


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time builds the artefact `folder`; the others wait, then find it built."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        yield
