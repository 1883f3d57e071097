"""Connecting to Ray: a local instance or a cluster, and whether it has what a search asks for."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fsd_tune.cluster.placement import HEAD
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.settings.loader import Settings

# The Ray namespace of everything this package starts on a cluster.
NAMESPACE = "fsd_tune"

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
def connect(address: str | None = None, temporary: Path | None = None) -> Iterator[None]:
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
            # Without an address Ray would first ask the cluster that was last started here, for minutes if it is gone.
            address=address or "local",
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
    found = _meant_by_auto() if address == "auto" else address
    host, colon, port = found.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        where = address if found == address else f"{found}, which is {address} here"
        raise InputError(f"--address: nobody answers at {where}: {error.strerror or error}.") from None


def _meant_by_auto() -> str:
    """The address that Ray takes for `auto`, as far as it is known without asking; empty where Ray is to find it."""
    from ray._private.services import find_gcs_addresses
    from ray._private.utils import read_ray_address

    told = os.environ.get("RAY_ADDRESS", "")
    if told not in ("", "auto"):
        return told
    # The last `ray start` here has left one, which may have ended; a head that runs here is found by itself.
    return "" if find_gcs_addresses() else read_ray_address() or ""


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
    to_come = _nodes_to_come(asked)
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


def _nodes_to_come(asked: Mapping[str, float]) -> list[dict[str, float]]:
    """The resources of the nodes that the autoscaler may have at most, those of its workers now among them.

    Where the sum over all types is limited, those that hold most trials.
    """
    config = _autoscaling()
    found = []
    for name, one in (config.get("available_node_types") or {}).items():
        if name != config.get("head_node_type"):
            resources = {kind: float(amount) for kind, amount in (one.get("resources") or {}).items()}
            found += [resources] * int(one.get("max_workers", 0))
    found.sort(key=lambda node: _room([node], asked), reverse=True)
    return found[: int(config.get("max_workers", len(found)))]


def _autoscaling() -> dict[str, Any]:
    """The autoscaler's node types, as in a YAML of `ray up`; empty where there is no autoscaler.

    Ray tells nobody what may come. `ray up` leaves its YAML on the head; where another made the cluster (Kubernetes),
    the environment variable FSD_TUNE_NODES may hold the same.
    """
    import ray
    from ray._private.worker import _global_node
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    told = os.environ.get("FSD_TUNE_NODES")
    if told is None:
        if _global_node is not None and _global_node.is_head():
            return {}  # an instance of this process alone
        heads = [node for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]]
        if not heads:
            return {}
        if heads[0]["NodeManagerAddress"] == ray.util.get_node_ip_address():
            told = _left_by_ray_up()
        else:
            there = NodeAffinitySchedulingStrategy(heads[0]["NodeID"], soft=False)
            ask = ray.remote(num_cpus=0, max_retries=0)(_left_by_ray_up).options(scheduling_strategy=there)
            told = ray.get(ask.remote())
    config = yaml.safe_load(told)
    return config if isinstance(config, dict) else {}


def _left_by_ray_up() -> str:
    try:
        return Path("~/ray_bootstrap_config.yaml").expanduser().read_text(encoding="utf-8")
    except OSError:
        return ""


def elsewhere(address: str | None) -> bool:
    """Whether `connected(address)` is a cluster, whose machines may have GPUs where this one has none."""
    return bool(address or os.environ.get("RAY_ADDRESS"))


def device_for(settings: Settings, device: str, address: str | None = None) -> str:
    """Where trials run: `auto` is cuda when they get a share of a GPU.

    Where that is auto too, it is what torch finds; on a cluster, cuda.
    """
    if device == "auto" and (settings.resources.gpus_per_trial != "auto" or elsewhere(address)):
        return "cuda" if settings.resources.gpus_per_trial else "cpu"
    return device


def gpus_for(settings: Settings, device: str) -> float:
    """GPUs of a trial on cpu or cuda before anything is known of its memory: a whole one where `auto` may share it."""
    asked = settings.resources.gpus_per_trial
    return asked if not isinstance(asked, str) else float(device == "cuda")


def build_cpus(gpus: float) -> int:
    """CPUs for the task that builds a memory: those of the largest node that has its GPUs, at least 1.

    Nodes that the autoscaler may start count where none that lives will do.
    """
    import ray

    for nodes in ([node["Resources"] for node in ray.nodes() if node["Alive"]], _nodes_to_come({"CPU": 1})):
        most = max((int(node.get("CPU", 0)) for node in nodes if node.get("GPU", 0) >= gpus), default=0)
        if most:
            return most
    return 1


def dead_hosts() -> set[str]:
    """The addresses of nodes that were in the connected cluster and are no more."""
    import ray

    nodes = ray.nodes()
    return {str(node["NodeManagerAddress"]) for node in nodes if not node["Alive"]} - {
        str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]
    }
