"""Whole folders and artefacts that go from one machine to another by way of a URI."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fsd_tune.errors import FsdTuneError
from fsd_tune.storage import artifact_lock, artifacts
from fsd_tune.storage.remote import RemoteFolder
from fsd_tune.storage.uri import is_uri


def provide(folder: Path, uri: str) -> None:
    """Make a folder of another machine available under the same path on this one, by one download per node.

    Args:
        folder: the path on both machines.
        uri: the URI to which the other machine has uploaded the folder.

    Raises:
        FsdTuneError: there is nothing at the URI, or this disk cannot be written.
    """
    if folder.is_dir():
        return
    try:
        with artifact_lock.locked(folder):
            if not folder.is_dir() and not RemoteFolder(uri).get_folder("", folder):
                raise FsdTuneError(f"{uri}: is not there.")
    except PermissionError as error:
        raise FsdTuneError(f"{folder}: cannot be made on this node: {error.strerror}") from error


@contextlib.contextmanager
def folder_of(place: str) -> Iterator[Path]:
    """Provide the folder at a path, or a temporary copy of the folder at a URI, while the block runs.

    Args:
        place: the folder's path or URI.

    Raises:
        FsdTuneError: there is nothing at the URI.
    """
    if not is_uri(place):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "folder"
        if not RemoteFolder(place).get_folder("", folder):
            raise FsdTuneError(f"{place}: is not there.")
        yield folder


@contextlib.contextmanager
def folder_to_fill(place: str) -> Iterator[Path]:
    """Provide the path of a folder that the block creates; for a URI, it then replaces the stored folder.

    Args:
        place: the folder's path or URI.
    """
    if not is_uri(place):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "folder"
        yield folder
        RemoteFolder(place).delete("")
        RemoteFolder(place).put(folder, "")


def fetched(folder: Path, remote: str | None) -> bool:
    """Download an artefact unless this node has it, and return whether it is now complete.

    The caller holds the artefact's lock (`artifact_lock.locked`).

    Args:
        folder: the artefact's final name on this machine.
        remote: the URI of the folder with all artefacts; None if they are on a disk that all nodes share.

    Returns:
        True if `folder` is a complete and undamaged artefact.
    """
    if artifacts.facts_of(folder) is not None:
        return True
    return (
        remote is not None
        and RemoteFolder(remote).get_folder(folder.name, folder)
        and artifacts.facts_of(folder) is not None
    )


def publish(folder: Path, remote: str | None) -> None:
    """Upload an artefact for the other nodes.

    Args:
        folder: the artefact on this machine.
        remote: the URI of the folder with all artefacts; None if they are on a disk that all nodes share.
    """
    if remote is None:
        return
    storage, manifest = RemoteFolder(remote), folder / artifacts.MANIFEST
    # The manifest is uploaded last, so that an artefact with a manifest is complete.
    for path in sorted(folder.iterdir(), key=lambda path: path == manifest):
        storage.put(path, f"{folder.name}/{path.name}")
