"""Paths and URIs as text; nothing is opened."""

import os
import re
from collections.abc import Collection
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from fsd_tune.errors import InputError, nearest

_KEY = re.compile("key|secret|token|password", re.IGNORECASE)
SCHEMES = ("s3", "gs", "gcs", "hdfs", "file")
_ONE_SLASH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")


def is_uri(place: object) -> bool:
    """Return whether a location is a URI rather than a path on a disk.

    Args:
        place: a path or URI, as text or as a `Path`.
    """
    return "://" in str(place)


def misses_slash(place: object) -> bool:
    """Return whether a path looks like a URI that lacks a slash: `s3:/bucket`, which is also what `Path` makes of one.

    Args:
        place: a path or URI, as text or as a `Path`.
    """
    return not is_uri(place) and _ONE_SLASH.match(str(place)) is not None


def expanded(place: str) -> str:
    """Return a path with `~` or `~user` at its start replaced by that home folder; everything else unchanged.

    Args:
        place: a path, URI or hub id. The path of an unknown user stays as it is.
    """
    # `Path.expanduser` raises an error for an unknown user.
    return place if is_uri(place) else os.path.expanduser(place)  # noqa: PTH111


def local_path(place: str | Path) -> Path:
    """Return the path of a folder or file on this machine, with `~` replaced as by `expanded`.

    Args:
        place: a path as the user gave it.
    """
    return Path(expanded(str(place)))


def joined(place: str, *names: str) -> str:
    """Return a path or URI below another one.

    Args:
        place: a path, or a URI, whose query (`?endpoint_override=...`) stays at the end.
        names: the names to append to its path.
    """
    if not is_uri(place):
        return str(Path(place, *names))
    parts = urlsplit(place)
    path = "/".join([parts.path.rstrip("/"), *names])
    return urlunsplit(parts._replace(path=path))


def last_name(uri: str) -> str:
    """Return the last part of a URI's path, or the bucket's name if the path is empty.

    Args:
        uri: the URI, with or without a slash at its end.
    """
    parts = urlsplit(uri)
    return parts.path.rstrip("/").rpartition("/")[2] or parts.netloc or "root"


def problems_of(place: str, flag: str) -> list[str]:
    """Return the syntax problem of a URI; the storage is not contacted.

    Args:
        place: the URI.
        flag: the option to name in the messages.

    Returns:
        One line; empty if the URI is valid.
    """
    try:
        parts = urlsplit(place)
    except ValueError:
        return [f"{flag}: found {place}, but must be a URI such as s3://bucket/runs/rte."]
    if parts.scheme not in SCHEMES:
        return [f"{flag}: found {parts.scheme}://, but must be a folder or a URI of {', '.join(SCHEMES)}."
                f"{nearest(parts.scheme, SCHEMES)}"]  # fmt: skip
    secret_options = [name for name, _ in parse_qsl(parts.query) if _KEY.search(name)]
    # A secret may contain a slash, and then urlsplit does not take the text before the @ as a part of the host.
    if parts.username or parts.password or "@" in place.partition("?")[0] or secret_options:
        # Others can see command lines, and the experiment folder records the command of its search.
        return [f"{flag}: holds a key; take it out, and give keys by the environment or a credentials file."]
    if any(letter.isspace() for letter in place):
        return [f"{flag}: {place} holds a space; write it as %20."]
    if not (parts.netloc + parts.path).strip("/"):
        return [f"{flag}: {place} names no bucket."]
    return []


def check_names(names: Collection[str], uri: str) -> None:
    """Refuse stored names that cannot be those of files below the folder that they are downloaded to.

    Whoever can write to a bucket chooses the names in it.

    Args:
        names: the names of all files below a URI, relative to it.
        uri: the URI.

    Raises:
        InputError: a line for each of the first ten such names.
    """

    def is_usable(name: str) -> bool:
        parts = name.split("/")
        folders = ("/".join(parts[:count]) for count in range(1, len(parts)))
        return not (
            {"", ".", ".."} & set(parts)
            or any(character == "\\" or character < " " for character in name)
            or any(folder in names for folder in folders)
        )

    unusable = [name for name in names if not is_usable(name)]
    reason = "which cannot be the name of a file below a folder; delete it there."
    if unusable:
        raise InputError([f"{uri}: holds {name!r}, {reason}" for name in unusable[:10]])
