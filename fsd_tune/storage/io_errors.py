"""Translate libraries' own exceptions for failed reads and writes into `OSError`.

Libraries in Rust (safetensors, tokenizers) raise exceptions of their own, torch a `RuntimeError`, SQLite and Arrow
theirs; a full disk is then no `OSError`, which is what everything else here handles.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsd_tune.errors import FsdTuneError

# How Rust ends the message of an error of the system: "No space left on device (os error 28)".
_RUST = re.compile(r"\(os error (\d+)\)")
# Messages without a number, and the error of the system that they stand for.
_WORDS = (
    (re.compile(r"no space left on device|database or disk is full|disk quota exceeded", re.IGNORECASE), errno.ENOSPC),
    (re.compile(r"read-only file system|readonly database", re.IGNORECASE), errno.EROFS),
    (re.compile(r"disk I/O error|input/output error", re.IGNORECASE), errno.EIO),
    (re.compile(r"unable to open database file", re.IGNORECASE), errno.EACCES),
)
# Torch and C++ streams do not say why they failed.
_STREAM = re.compile(r"PytorchStreamWriter|inline_container\.cc|iostream error|basic_ios")
_STREAM_FAILED = "cannot be written; the disk may be full"


def as_os_error(error: BaseException) -> OSError | None:
    """Return the error of the system that an exception stands for.

    Args:
        error: any exception; the exceptions that caused it count, too.

    Returns:
        The `OSError`, with the cause's number and file if they are known; None if there is none behind it, or if it
        is an error of this package, which says more.
    """
    if isinstance(error, FsdTuneError):
        return None
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if isinstance(cause, OSError):
            return cause
        message = str(cause)
        if found := _RUST.search(message):
            return OSError(int(found[1]), os.strerror(int(found[1])))
        for pattern, code in _WORDS:
            if pattern.search(message):
                return OSError(code, message.strip().splitlines()[0])
        if _STREAM.search(message):
            return OSError(errno.EIO, _STREAM_FAILED)
        seen.append(cause)
        cause = cause.__cause__
    return None


@contextmanager
def library_errors(place: Path) -> Iterator[None]:
    """Raise an `OSError` that names `place` for an exception of the block that stands for one.

    An `OSError` that names no file, or a temporary one of `place`, is made to name `place`.

    Args:
        place: the file or folder that the block writes.

    Raises:
        OSError: the block failed to read or write.
    """
    try:
        yield
    except OSError as error:
        if error.strerror and (error.filename is None or f".{place.name}." in str(error.filename)):
            error.filename = str(place)
        raise
    except Exception as error:
        found = as_os_error(error)
        if found is None:
            raise
        raise OSError(found.errno, found.strerror, found.filename or str(place)) from error
