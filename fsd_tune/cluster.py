"""Connecting to Ray: a local instance or a cluster, and whether it has what a search asks for."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.memory_actor import NAMESPACE
from fsd_tune.settings import Settings

# Set before Ray is imported by `connected`'s callers' processes; a user's own values stay.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # The truth is on disk after each report (scribe.py): Ctrl-C needs no graceful end, and must not hang in one.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


# What Ray puts below its folder, with a process id of seven digits; Linux takes no longer paths of sockets.
_SOCKET = "/session_2026-01-31_12-00-00_123456_1234567/sockets/plasma_store"
_LONGEST_SOCKET = 107


@contextmanager
def connected(address: str | None = None, temporary: Path | None = None) -> Iterator[None]:
    """A connection to the cluster at `address` (or RAY_ADDRESS), or a Ray instance of this process.

    Args:
        address: of a running cluster; None starts a local instance, unless RAY_ADDRESS is set.
        temporary: Ray's folder for sockets and logs; a short path. Local instances only.

    Raises:
        InputError: nobody answers at the address, or Ray cannot use the folder.
        FsdTuneError: Ray cannot be reached or started.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    # Tune copies snapshots of its own, which nobody reads (the truth is on disk, scribe.py), while it replaces them: a
    # search that ends quickly would print the traceback of a snapshot that has gone.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield
        return
    if temporary is not None:
        _holds_sockets(temporary)
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        _answers(address)
    local = {} if address else {"include_dashboard": False, "_temp_dir": None if temporary is None else str(temporary)}
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=True,
            **local,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        where = f"--address: {address}" if address else "Ray"
        raise FsdTuneError(f"{where} cannot be reached or started: {str(error).splitlines()[0]}") from error
    if threading.current_thread() is threading.main_thread():
        # ray.init takes SIGTERM for itself, to print a stack and die on the spot: folders would stay unfinished.
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    """Refuse an address at which nobody listens; Ray itself would try for a minute.

    Raises:
        InputError: it is one.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # `auto`
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise InputError(f"--address: nobody answers at {address}: {error.strerror or error}.") from None


def _holds_sockets(folder: Path) -> None:
    """Refuse a folder below which Ray's sockets cannot be made.

    Raises:
        InputError: it is a file, or its path is too long.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--temp-dir: {folder} is a file, but must be a folder or new.")
    longest = _LONGEST_SOCKET - len(_SOCKET)
    if len(str(folder.absolute())) > longest:
        raise InputError(
            f"--temp-dir: {folder} is too long for the paths of Ray's sockets; give one of {longest} bytes."
        )


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def workers(settings: Settings, gpus: float) -> int:
    """How many trials run side by side on the connected cluster.

    Args:
        settings: of the search.
        gpus: of a trial.

    Raises:
        InputError: a trial asks for more than any node has. Said at once: Ray would wait for such a node for ever.
    """
    import ray

    asked = {"CPU": settings.resources.cpus_per_trial, "GPU": gpus}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    to_come = _nodes_to_come()
    problems = []
    for kind, amount in asked.items():
        most = max((node.get(kind, 0.0) for node in (*nodes, *to_come)), default=0.0)
        if amount > most:
            key = f"resources.{kind.lower()}s_per_trial"
            problems.append(f"{key}: found {amount:g}, but the largest node of this cluster has {most:g} {kind}s.")
    if problems:
        raise InputError(problems)
    room = max(_room(nodes, asked), _room(to_come, asked))
    limit = settings.resources.max_concurrent
    return max(1, min(room, settings.search.trials, limit or room))


def _room(nodes: Sequence[Mapping[str, float]], asked: Mapping[str, float]) -> int:
    """Trials that fit side by side."""
    return sum(
        int(min(node.get(kind, 0.0) / amount for kind, amount in asked.items() if amount > 0) + 1e-9) for node in nodes
    )


def _nodes_to_come() -> list[dict[str, float]]:
    """The resources of every node that the autoscaler may have at most, those of its workers now among them."""
    from ray._private.state import state

    config = state.get_cluster_config()
    groups = [] if config is None else [group for group in config.node_group_configs if group.max_count > 0]
    return [
        {name: float(amount) for name, amount in group.resources.items()}
        for group in groups
        for _ in range(group.max_count)
    ]


def device_for(settings: Settings, device: str) -> str:
    """Where trials run: `auto` is cuda when they get a share of a GPU; where that is auto too, what torch finds."""
    if device == "auto" and settings.resources.gpus_per_trial != "auto":
        return "cuda" if settings.resources.gpus_per_trial else "cpu"
    return device


def gpus_for(settings: Settings, device: str) -> float:
    """GPUs of a trial on cpu or cuda before anything is known of its memory: a whole one where `auto` may share it."""
    asked = settings.resources.gpus_per_trial
    return asked if not isinstance(asked, str) else float(device == "cuda")


def largest_node_cpus() -> int:
    """CPUs of the largest node, at least 1."""
    import ray

    return max(1, *(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"]))


def dead_hosts() -> set[str]:
    """The addresses of nodes that were in the connected cluster and are no more."""
    import ray

    nodes = ray.nodes()
    return {str(node["NodeManagerAddress"]) for node in nodes if not node["Alive"]} - {
        str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]
    }
