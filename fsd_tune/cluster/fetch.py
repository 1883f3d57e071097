"""Download a finished search from a cluster or from its URI."""

import contextlib
import json
import re
import shlex
from collections.abc import Collection
from pathlib import Path

from fsd_tune.cluster import job_inputs
from fsd_tune.cluster.jobs import Cluster
from fsd_tune.errors import InputError
from fsd_tune.storage import files, layout

# The fetched files of a search. Checkpoints, the memory and Ray's own files stay on the cluster.
_FETCHED_FILES = (
    layout.REPORT,
    layout.LEADERBOARD,
    layout.SUMMARY,
    layout.SETTINGS,
    layout.COMMAND,
    layout.VERSIONS,
    layout.STUDY,
)
_FETCHED_FOLDERS = (layout.BEST, layout.CONFIRM)


def fetch_uri(uri: str, local: Path) -> list[str]:
    """Download a search's report, tables and student from its URI, without a cluster.

    Args:
        uri: the URI of the experiment folder.
        local: a new folder, or one with the same search.

    Returns:
        The names of the files and folders that were downloaded.

    Raises:
        InputError: there is no such search, the storage does not answer, or `local` has other content.
    """
    from fsd_tune.storage.remote import RemoteFolder

    storage = RemoteFolder(uri)
    storage.require("URI", write=False)
    present = {name.split("/")[0] for name in storage.sizes()}
    names = _names_to_fetch(present, uri, "there")
    _check_same_search(local, storage.read(layout.SUMMARY).decode())
    for name in names:
        if name in _FETCHED_FOLDERS:
            storage.get_folder(name, local / name)
        else:
            storage.get(name, local / name)
    return names


def fetch_search(cluster: Cluster, name: str, local: Path) -> list[str]:
    """Download a search's report, tables and student from a cluster.

    Args:
        cluster: the cluster.
        name: the experiment folder, relative to the shared folder or absolute.
        local: a new folder, or one with the same search.

    Returns:
        The names of the files and folders that were downloaded.

    Raises:
        InputError: there is no such search, or `local` has other content.
        FsdTuneError: the cluster cannot be reached.
    """
    folder = job_inputs.path_on_cluster(cluster.shared, name, "fetch")
    present = cluster.run(f"ls -1 {shlex.quote(folder)} 2>/dev/null || true").split()
    fetched_names = _names_to_fetch(present, name, f"at {folder} on the cluster")
    _check_same_search(local, cluster.run(f"cat {shlex.quote(folder)}/{layout.SUMMARY}"))
    files.make_folder(local)
    for file in fetched_names:
        # The slash tells rsync to copy the folder's contents into the local folder of that name.
        cluster.fetch(f"{folder}/{file}/" if file in _FETCHED_FOLDERS else f"{folder}/{file}", local / file)
    return fetched_names


def _names_to_fetch(present: Collection[str], search: str, location: str) -> list[str]:
    """Return the names of the files and folders to fetch from an experiment folder.

    Raises:
        InputError: the folder has no search, or one that has not started.
    """
    names = [name for name in (*_FETCHED_FILES, *_FETCHED_FOLDERS) if name in present]
    if not names:
        raise InputError(f"{search}: no search was found {location}.")
    if layout.SUMMARY not in present:
        raise InputError(f"{search}: the search has not started its trials yet; fetch it later.")
    return names


def _check_same_search(local: Path, remote_summary: str) -> None:
    """Check that a folder has no content but the search to fetch, because its folders would be replaced."""
    if not local.is_dir() or not files.contents(local):
        return
    group = None
    with contextlib.suppress(OSError):
        group = _group_of((local / layout.SUMMARY).read_text(encoding="utf-8"))
    if group is None or group != _group_of(remote_summary):
        contents = "other files" if group is None else "another search"
        raise InputError(f"{local}: holds {contents}; give a new folder with --output.")


def _group_of(summary: str) -> str | None:
    """Return the group, which identifies a search, from the text of its summary; None if there is none.

    Lines that ssh or Ray print before or after the summary are ignored.
    """
    with contextlib.suppress(ValueError, KeyError, TypeError):
        start = re.search(r"^\{", summary, re.MULTILINE)
        content, _ = json.JSONDecoder().raw_decode(summary, start.start() if start else 0)
        return str(content["group"])
    return None
