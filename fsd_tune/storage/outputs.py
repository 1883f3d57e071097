"""Decide before any work whether an output can be written. Every verb and Python call asks here."""

from pathlib import Path
from urllib.parse import urlsplit

from fsd_tune.storage import files
from fsd_tune.storage.uri import expanded, is_uri, misses_slash, problems_of


def output_problems(place: str | Path, flag: str = "--output", *, file: bool = False, uri: bool = False) -> list[str]:
    """Return why an output cannot be written; empty if it can be.

    A probe is made and renamed where the output's temporary files will lie: in a folder that exists, else in the
    nearest folder above it. The storage behind a URI is not asked.

    Args:
        place: the output as the user gave it: a path, which may be a link, or a URI.
        flag: the option to name in the message.
        file: the output is a file, not a folder.
        uri: the caller stores in URIs, too.

    Returns:
        One line for an `InputError`, or nothing.
    """
    kind = "file" if file else "folder"
    if is_uri(place) and uri:
        return problems_of(str(place), flag)
    if uri and misses_slash(place):
        return [f"{flag}: found {place}; a URI has two slashes, as in s3://bucket/runs/rte."]
    if is_uri(place) or misses_slash(place):
        # The URI is not repeated, because it may hold a key.
        return [f"{flag}: found a URI ({urlsplit(str(place)).scheme}://), but must be a {kind} on a disk."]
    if not str(place):
        return [f"{flag}: is empty, but must be a {kind}."]
    try:
        str(files.real_path(place)).encode()
    except UnicodeEncodeError:
        return [f"{flag}: {str(place)!a} is not UTF-8, in which the files of models are written."]
    if expanded(str(place)).startswith("~"):
        return [f"{flag}: found {place}, but there is no user {Path(place).parts[0][1:]}; ./~ names a folder ~."]
    try:
        return _disk_problems(place, flag, file)
    except OSError as error:
        return [f"{flag}: {place} cannot be made: {error.strerror}."]


def _disk_problems(place: str | Path, flag: str, file: bool) -> list[str]:
    path = files.real_path(place)
    # Links that can be followed are followed, so that one that is left leads to itself.
    if any(part.is_symlink() for part in (path, *path.parents)):
        return [f"{flag}: {place} cannot be made: its links lead in a circle."]
    if path.exists():
        if file and path.is_dir():
            return [f"{flag}: {place} is a folder, but must be a file or new."]
        if not file and not path.is_dir():
            return [f"{flag}: {place} is a file, but must be a folder or new."]
    # A folder that exists is filled in place, so that a mount point or a folder in a foreign one serves, too.
    above = path if path.is_dir() else next(parent for parent in path.parents if parent.exists())
    if above.is_dir():
        try:
            _probe(above, path.name)
        except PermissionError:
            pass
        except OSError as error:
            return [f"{flag}: {place} cannot be made: {above}: {error.strerror}."]
        else:
            return []
    return [f"{flag}: {place} cannot be made: {above} is not a writable directory."]


def _probe(folder: Path, name: str) -> None:
    """Make, rename and delete a folder with the names that the output and its temporary files will have.

    Raises:
        OSError: it cannot be done.
    """
    temporary = files.unused_name(folder / name)
    temporary.mkdir()
    try:
        renamed = files.unused_name(folder / name)
        temporary.rename(renamed)
        temporary = renamed
    finally:
        temporary.rmdir()
