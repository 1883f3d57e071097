"""Places by name: a path on a disk, or a URI that pyarrow takes. Plain text; nothing is opened."""

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from fsd_tune.errors import nearest

_KEY = re.compile("key|secret|token|password", re.IGNORECASE)
SCHEMES = ("s3", "gs", "gcs", "hdfs", "file")


def is_uri(place: object) -> bool:
    """Whether a place is a URI, not a path on a disk."""
    return "://" in str(place)


def misses_slash(place: object) -> bool:
    """Whether a path on a disk was rather meant as a URI: `s3:/bucket`."""
    return not is_uri(place) and str(place).startswith(tuple(f"{scheme}:/" for scheme in SCHEMES))


def joined(place: str, *names: str) -> str:
    """A place below another one, a path or a URI; a URI's query (`?endpoint_override=...`) stays at its end."""
    if not is_uri(place):
        return str(Path(place, *names))
    parts = urlsplit(place)
    path = "/".join([parts.path.rstrip("/"), *names])
    return urlunsplit(parts._replace(path=path))


def last_name(uri: str) -> str:
    """The last part of a URI's path: what lies there is called so; the bucket's name where there is no path."""
    parts = urlsplit(uri)
    return parts.path.rstrip("/").rpartition("/")[2] or parts.netloc or "root"


def problems_of(place: str, flag: str) -> list[str]:
    """What is wrong with a URI as it is written; nothing is asked of the storage."""
    try:
        parts = urlsplit(place)
    except ValueError:
        return [f"{flag}: found {place}, but must be a URI such as s3://bucket/runs/rte."]
    if parts.scheme not in SCHEMES:
        return [f"{flag}: found {parts.scheme}://, but must be a folder or a URI of {', '.join(SCHEMES)}."
                f"{nearest(parts.scheme, SCHEMES)}"]  # fmt: skip
    keys = [name for name, _ in parse_qsl(parts.query) if _KEY.search(name)]
    # A secret may hold a slash: what stands before the @ is then no longer the host's part.
    if parts.username or parts.password or "@" in place.partition("?")[0] or keys:
        # A command line is seen by others, and a search's folder holds the one that made it.
        return [f"{flag}: holds a key; take it out, and give keys by the environment or a credentials file."]
    if any(letter.isspace() for letter in place):
        return [f"{flag}: {place} holds a space; write it as %20."]
    if not (parts.netloc + parts.path).strip("/"):
        return [f"{flag}: {place} names no bucket."]
    return []
