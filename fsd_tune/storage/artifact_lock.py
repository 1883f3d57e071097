"""The lock of an artefact: one process builds it, the others wait, and what killed builds left is deleted."""

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsd_tune.storage import waiting
from fsd_tune.storage.files import make_folder, temporary_folders

# The teacher pass over the largest tasks takes hours.
_BUILD_SECONDS = 24 * 3600.0


@contextmanager
def locked(folder: Path, notify: waiting.Notify = waiting.warn) -> Iterator[None]:
    """Hold the lock of an artefact, so that one process builds it while the others wait.

    What killed builds left is deleted first, also of other artefacts beside this one, on whatever machine they ran. The
    features of a large task would otherwise fill the disk, because nobody may build that artefact again.

    Args:
        folder: the artefact's folder. The lock is a file beside it.
        notify: called with a line that says whom this waits for.

    Raises:
        FsdTuneError: the process that has the lock is stopped, or has it for a day.
    """
    from filelock import FileLock, Timeout

    make_folder(folder.parent)
    path = folder.parent / f".{folder.name}.lock"
    lock = FileLock(path, blocking=False)
    wait = waiting.wait_for_holder(path, f"builds {folder}", _BUILD_SECONDS, notify)
    while not lock.is_locked:
        try:
            lock.acquire()
        except Timeout:
            wait.pause()
    try:
        _delete_leftovers(folder)
        yield
    finally:
        lock.release()


def _delete_leftovers(held: Path) -> None:
    """Delete the temporary folders of artefacts that nobody builds: of `held`, and of others whose lock is free."""
    from filelock import FileLock, Timeout

    for path in held.parent.glob(".*.lock"):
        artefact = path.with_name(path.name.removeprefix(".").removesuffix(".lock"))
        if not (leftovers := temporary_folders(artefact)):
            continue
        # Only the holder of an artefact's lock writes its temporary folders.
        with contextlib.suppress(Timeout), contextlib.ExitStack() as stack:
            if artefact.name != held.name:
                stack.enter_context(FileLock(path, blocking=False))
            for leftover in leftovers:
                shutil.rmtree(leftover, ignore_errors=True)
