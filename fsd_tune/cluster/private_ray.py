"""A local Ray instance that only its own process can use: a random token, the loopback address, a private folder."""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsd_tune.errors import InputError
from fsd_tune.storage.uri import local_path

# What is appended to the folder for Ray's files, with a process id of seven digits. Linux limits the paths of sockets
# to 107 bytes.
_SOCKET = "/fsd-0123/r/session_2026-01-31_12-00-00_123456_1234567/sockets/plasma_store"
_LONGEST_FOLDER = 107 - len(_SOCKET)
_REMOVAL_SECONDS = 5.0
# What workers import as they start, and the environment variable with the folder in which those that do so make a file.
_PRELOAD = "fsd_tune.cluster.preload"
PLACES = "FSD_TUNE_PRELOAD_PLACES"


@contextmanager
def private_instance(temporary: Path | None) -> Iterator[dict[str, Any]]:
    """Prepare `ray.init` for a local instance of this process alone; the block starts and ends it.

    Every connection to it needs a token that is only in the environment of this process and its children. It listens
    on 127.0.0.1. Its files lie in a new folder that other users cannot enter and that is removed afterwards.

    Args:
        temporary: where to make that folder; None for RAY_TMPDIR, TMPDIR or /tmp.

    Yields:
        The keyword arguments for `ray.init`.

    Raises:
        InputError: the folder cannot be made.
    """
    from ray._private import ray_constants

    check_folder(temporary)
    flag, base = _base(temporary)
    clustered = ray_constants.ENABLE_RAY_CLUSTER
    with _private_folder(flag, base) as folder, _token(), _few_processes(), variables({PLACES: str(folder)}):
        # Ray replaces 127.0.0.1 by the address that other hosts see unless it believes that clusters are impossible.
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            # Ray makes its folder writable for all, so it is one level below ours.
            yield {
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": str(folder / "r"),
                "_system_config": {"preload_python_modules": [] if _has_gpus() else [_PRELOAD]},
            }
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = clustered


@contextmanager
def _few_processes() -> Iterator[None]:
    """Start Ray without the processes that only a cluster or a dashboard needs, which take half of its start.

    They are the autoscaler, the dashboard's server, and what brings the workers' output to the driver.
    """
    from ray._private.node import Node

    names = ("start_monitor", "start_api_server", "start_log_monitor")
    before = {name: getattr(Node, name) for name in names}
    for name in names:
        setattr(Node, name, lambda self, **_: None)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)


def _has_gpus() -> bool:
    """Return whether Ray finds a GPU on this machine."""
    from ray._private.accelerators import get_accelerator_manager_for_resource

    return bool(get_accelerator_manager_for_resource("GPU").get_current_node_num_accelerators())


def check_folder(temporary: Path | None) -> None:
    """Refuse a folder below which Ray cannot make its sockets.

    Args:
        temporary: the folder of `--temp-dir`; None for that of RAY_TMPDIR or TMPDIR.

    Raises:
        InputError: it is a file, its path is too long, or it cannot be written.
    """
    flag, base = _base(temporary)
    remedy = "give one of" if temporary is not None else "give --temp-dir a folder of"
    existing = next(path for path in (base, *base.parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"{flag}: {existing} is a file, but must be a folder or new.")
    if len(os.fsencode(base)) > _LONGEST_FOLDER:
        raise InputError(
            f"{flag}: {base} is too long for the paths of Ray's sockets; {remedy} at most {_LONGEST_FOLDER} bytes."
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{flag}: {existing} cannot be written; {remedy} at most {_LONGEST_FOLDER} bytes that can.")


def _base(temporary: Path | None) -> tuple[str, Path]:
    """Return the folder in which Ray's folder is made, and the flag or variable that names it."""
    named = {"--temp-dir": temporary, "RAY_TMPDIR": os.environ.get("RAY_TMPDIR")}
    if sys.platform != "darwin":  # Its TMPDIR is always too long.
        named["TMPDIR"] = os.environ.get("TMPDIR")
    flag, folder = next(((flag, folder) for flag, folder in named.items() if folder), ("--temp-dir", "/tmp"))
    return flag, local_path(folder).absolute()


@contextmanager
def _private_folder(flag: str, base: Path) -> Iterator[Path]:
    """Make a folder that only this user can enter, and remove it afterwards.

    The process locks it, so that the next one can tell the folder of a killed process from one in use.
    """
    _remove_leftovers(base)
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder = _new_folder(base)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{flag}: {base} cannot hold Ray's files: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def _new_folder(base: Path) -> Path:
    """Make a new folder; `tempfile.mkdtemp` would make a name that leaves less of the length of a socket's path."""
    while True:
        folder = base / f"fsd-{secrets.token_hex(2)}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            return folder


def _remove_leftovers(base: Path) -> None:
    """Remove the folders of killed processes: those of this user, made by `_private_folder`, that nobody locks."""
    for folder in base.glob("fsd-*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            ours = status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700
            made = re.fullmatch(r"fsd-[0-9a-f]{4}", folder.name) and (folder / "r" / "session_latest").is_symlink()
            if not (stat.S_ISDIR(status.st_mode) and ours and made):
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder)
            finally:
                os.close(lock)


def _remove(folder: Path) -> None:
    """Remove Ray's folder; its last processes may still write their logs."""
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.0 if not folder.exists() else 0.05)


@contextmanager
def _token() -> Iterator[None]:
    """Make Ray ask for a token of this process's own, whatever the user's environment says for clusters."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_AUTH_TOKEN_PATH": None}
    with variables(token):
        _read_auth_again()
        yield
    _read_auth_again()


def _read_auth_again() -> None:
    """Make Ray read mode and token from the environment; it keeps what it read first."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    # In this order, because a thread of a connection that ends must find a token as long as the mode asks for one.
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def variables(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables for the duration of the block.

    Args:
        values: by name; None deletes the variable.
    """
    before = {name: os.environ.get(name) for name in values}
    _set_variables(values)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
