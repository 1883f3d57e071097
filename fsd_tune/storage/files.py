"""Files and folders that appear whole or not at all, wherever the user wants them: behind links, on mount points."""

import contextlib
import errno
import glob
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fsd_tune.errors import InputError
from fsd_tune.storage.io_errors import library_errors
from fsd_tune.storage.uri import expanded

# The file in a model's folder that records how the model was made.
MODEL_RECORD = "fsd_tune.json"

MANIFEST = "manifest.json"
# Names in an empty folder that belong to the system: a new ext4 disk has lost+found.
SYSTEM_NAMES = ("lost+found",)


def real_path(place: str | Path) -> Path:
    """Return the absolute path behind `~`, links and `.`; the target of a dangling link.

    Args:
        place: a path, which need not exist.
    """
    return Path(os.path.realpath(expanded(str(place))))


def make_folder(folder: Path) -> Path:
    """Make a folder and its parents unless they exist, also behind a dangling link, where `mkdir` refuses.

    Args:
        folder: the folder.

    Returns:
        Its real path.

    Raises:
        InputError: the path is a file.
    """
    real = real_path(folder)
    if real.is_file():
        raise InputError(f"{folder}: is a file, but must be a folder.")
    real.mkdir(parents=True, exist_ok=True)
    return real


def sync(path: Path) -> None:
    """Write a file, or a folder with everything in it, from the system's memory to the disk.

    Args:
        path: the file or folder. Files that another process deletes meanwhile are left out.
    """
    with contextlib.suppress(FileNotFoundError):
        for part in path.iterdir() if path.is_dir() else ():
            if not part.is_symlink():
                sync(part)
        _sync_one(path)


def _sync_one(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing, and rename it to `path` if the block succeeds.

    A reader sees the old or the new file, never half of it, also after a loss of power. A failure leaves the old file
    as it was.

    Args:
        path: the file to write, or a link to it; its folder is made if it is missing.

    Yields:
        The open binary stream.
    """
    path = real_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unused_name(path)
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_one(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Make a temporary folder on the disk of `folder` for the block, and delete it afterwards.

    It lies in `folder` if that exists, because it may be a mount point or lie in a folder that cannot be written, and
    beside it otherwise. Temporary folders that interrupted processes of this machine left are deleted first.

    Args:
        folder: a folder, or a link to it; its parents are made if they are missing.

    Yields:
        The temporary folder, empty.
    """
    folder = real_path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _delete_leftovers(folder)
    temporary = unused_name(folder / folder.name if folder.is_dir() else folder)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Make a `temporary_folder`, and rename it to `folder` when the block has succeeded.

    In a folder that exists, its contents replace the others: the record or manifest, which says that the folder is
    whole, goes first and comes last. A failure of the block leaves an existing folder as it was.

    Args:
        folder: the folder to write, or a link to it; its parents are made if they are missing.

    Yields:
        The temporary folder, empty.

    Raises:
        OSError: the folder cannot be written, also if a library says so by an error of its own.
    """
    folder = real_path(folder)
    with library_errors(folder), temporary_folder(folder) as temporary:
        yield temporary
        _follow_umask(temporary)
        sync(temporary)
        if temporary.parent == folder:
            _replace_contents(folder, temporary)
        else:
            temporary.rename(folder)
        _sync_one(folder)


def _follow_umask(folder: Path) -> None:
    """Give the files in a new folder the rights that the umask gave the folder, because safetensors makes them 0600."""
    rights = folder.stat().st_mode & 0o777
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(rights if path.is_dir() else rights & 0o666)


def _replace_contents(folder: Path, temporary: Path) -> None:
    """Move the contents of `temporary`, which lies in `folder`, into `folder`, in place of what it holds."""
    for path in sorted(folder.iterdir(), key=_declares, reverse=True):
        if path == temporary or path.name in SYSTEM_NAMES:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in sorted(temporary.iterdir(), key=_declares):
        if _declares(path):
            _sync_one(folder)
        path.rename(folder / path.name)


def _declares(path: Path) -> bool:
    return path.name in (MODEL_RECORD, MANIFEST)


def contents(folder: Path) -> list[Path]:
    """Return what a folder holds, without the system's files and the temporary folders of `atomic_folder`.

    Args:
        folder: an existing folder.
    """
    own = re.compile(rf"\.{re.escape(real_path(folder).name)}\..+-\d+-[0-9a-f]{{8}}")
    return [path for path in folder.iterdir() if path.name not in SYSTEM_NAMES and not own.fullmatch(path.name)]


def unused_name(path: Path) -> Path:
    """Return an unused name beside `path` that tells which process of which machine uses it.

    Args:
        path: the file or folder that a temporary one is for.
    """
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")


def temporary_folders(folder: Path, host: str | None = None) -> list[Path]:
    """Return the temporary folders that there are for a folder.

    Args:
        folder: the folder, which need not exist.
        host: the machine whose processes made them; None for any.
    """
    folder = real_path(folder)
    pattern = f".{glob.escape(folder.name)}.{'*' if host is None else glob.escape(host)}-*-*"
    return [path for path in (*folder.parent.glob(pattern), *folder.glob(pattern)) if path.is_dir()]


def _delete_leftovers(folder: Path) -> None:
    """Delete the temporary folders for `folder` whose processes have ended."""
    import psutil

    for leftover in temporary_folders(folder, socket.gethostname()):
        process_id = leftover.name.split("-")[-2]
        if process_id.isdigit() and not psutil.pid_exists(int(process_id)):
            shutil.rmtree(leftover, ignore_errors=True)
