"""Connect to a local Ray instance or a cluster, and check that it has the resources that a search needs."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fsd_tune.cluster import destination, private_ray, signals
from fsd_tune.cluster.placement import HEAD
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.uri import local_path

# The Ray namespace of everything that this package starts on a cluster.
NAMESPACE = "fsd_tune"

# Environment variables that are set during a connection, unless the user has set them.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # Every report is on disk at once, so Ctrl-C does not need Tune's graceful shutdown, which can hang.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextmanager
def connect(address: str | None = None, temporary: Path | None = None) -> Iterator[None]:
    """Connect to the cluster at `address`, or start a local Ray instance, while the block runs.

    An existing connection of this process is used and stays open. Environment variables, log levels and signal
    handlers are restored at the end.

    Args:
        address: the address of a running cluster; None takes RAY_ADDRESS, and starts a local instance if it is not set.
        temporary: the folder for sockets and logs of a local instance; its path must be short.

    Raises:
        InputError: nothing answers at the address, Ray cannot use the folder, or both are given.
        FsdTuneError: Ray cannot be reached or started.
    """
    with _environment(), _quiet_snapshots(), signals.handled():
        import ray

        if ray.is_initialized():
            yield
            return
        flag, cluster = destination.resolve(address)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_messages_on_stderr())
            if cluster:
                if temporary is not None:
                    raise InputError(
                        f"--temp-dir: is for a local Ray, but {flag} names the cluster {cluster}; leave one out."
                    )
                destination.check_reachable(cluster, flag)
                mode = os.environ.get("RAY_AUTH_MODE", "disabled")
                stack.enter_context(private_ray.variables({"RAY_AUTH_MODE": mode}))
                _start(f"{flag}: {cluster}", address=cluster)
            else:
                # Without an address, Ray tries the cluster that was last started here first, for minutes if it has
                # ended.
                local = stack.enter_context(private_ray.private_instance(temporary))
                _start("Ray", address="local", **local)
            if threading.current_thread() is threading.main_thread():
                # The handler of ray.init prints a stack and exits at once, which would leave folders incomplete.
                signal.signal(signal.SIGTERM, signals.interrupt)
            try:
                yield
            finally:
                ray.shutdown()


def _start(name: str, **options: Any) -> None:
    """Call `ray.init`.

    Args:
        name: of the instance in messages.
        **options: keyword arguments of `ray.init`.
    """
    import ray
    from ray.job_config import JobConfig

    try:
        with signals.out_of_reach():
            ray.init(
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level="ERROR",
                configure_logging=True,
                # As a client's job: workers do not look for modules in this process's working folder, where a user's
                # torch.py or statistics.py would be taken for the library.
                job_config=JobConfig(_client_job=True),
                **options,
            )
    except Exception as error:  # On a busy machine Ray raises a bare Exception.
        # Its processes would run on, because a start that fails leaves what it has started.
        ray.shutdown()
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise FsdTuneError(f"{name} cannot be reached or started: {reason}") from error


@contextmanager
def _environment() -> Iterator[None]:
    """Set the variables of `_ENVIRONMENT` that the user has not set, and restore all variables at the end."""
    # ray.init sets PYTHONBREAKPOINT for its debugger.
    values = {name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()}
    with private_ray.variables(values | {"PYTHONBREAKPOINT": os.environ.get("PYTHONBREAKPOINT")}):
        yield


@contextmanager
def _quiet_snapshots() -> Iterator[None]:
    """Silence Tune's messages about its snapshots.

    Nothing reads the snapshots, because every report is on disk at once. Tune can replace a snapshot while it copies
    it, so that a search that ends quickly would print a traceback.
    """
    logger = logging.getLogger("ray.tune.execution.experiment_state")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _messages_on_stderr() -> Iterator[None]:
    """Print Ray's messages, such as that a worker died, to standard error; standard output is for results."""
    from ray._private import worker

    to_stream = worker.print_to_stdstream
    worker.print_to_stdstream = lambda data, *more, **named: to_stream(data | {"is_err": True}, *more, **named)
    try:
        yield
    finally:
        worker.print_to_stdstream = to_stream


def workers(settings: Settings, gpus: float) -> int:
    """Return the number of trials that run at the same time on the connected cluster.

    Args:
        settings: the settings of the search.
        gpus: number of GPUs of a trial.

    Raises:
        InputError: a trial needs more than any node has. Ray itself would wait forever for such a node.
    """
    import ray

    needed = {"CPU": settings.resources.cpus_per_trial, "GPU": gpus}
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    future = _future_nodes(needed)
    problems = []
    for kind, amount in needed.items():
        most = max((node.get(kind, 0.0) for node in (*alive, *future)), default=0.0)
        if amount > most:
            key = f"resources.{kind.lower()}s_per_trial"
            problems.append(f"{key}: found {amount:g}, but the largest node of this cluster has {most:g} {kind}s.")
    if problems:
        raise InputError(problems)
    capacity = max(_capacity(alive, needed), _capacity(future, needed))
    limit = settings.resources.max_concurrent
    return max(1, min(capacity, settings.search.trials, limit or capacity))


def _capacity(nodes: Sequence[Mapping[str, float]], needed: Mapping[str, float]) -> int:
    """Return the number of trials that fit onto nodes at the same time."""
    return sum(
        int(min(node.get(kind, 0.0) / amount for kind, amount in needed.items() if amount > 0) + 1e-9) for node in nodes
    )


def _future_nodes(needed: Mapping[str, float]) -> list[dict[str, float]]:
    """Return the resources of all worker nodes that the autoscaler may have, including living ones.

    If the total number of nodes is limited, the nodes that fit the most trials are returned.
    """
    config = _autoscaler_config()
    nodes = []
    for name, node_type in (config.get("available_node_types") or {}).items():
        if name != config.get("head_node_type"):
            resources = {kind: float(amount) for kind, amount in (node_type.get("resources") or {}).items()}
            nodes += [resources] * int(node_type.get("max_workers", 0))
    nodes.sort(key=lambda node: _capacity([node], needed), reverse=True)
    return nodes[: int(config.get("max_workers", len(nodes)))]


def _autoscaler_config() -> dict[str, Any]:
    """Return the autoscaler's node types, as in a YAML of `ray up`; empty without an autoscaler.

    Ray has no API for future nodes. `ray up` leaves its YAML on the head. On other clusters, such as Kubernetes, the
    environment variable FSD_TUNE_NODES can give the same content.
    """
    import ray
    from ray._private.worker import _global_node
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    text = os.environ.get("FSD_TUNE_NODES")
    if text is None:
        if _global_node is not None and _global_node.is_head():
            return {}  # A local instance of this process.
        heads = [node for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]]
        if not heads:
            return {}
        if heads[0]["NodeManagerAddress"] == ray.util.get_node_ip_address():
            text = _yaml_of_ray_up()
        else:
            on_head = NodeAffinitySchedulingStrategy(heads[0]["NodeID"], soft=False)
            task = ray.remote(num_cpus=0, max_retries=0)(_yaml_of_ray_up).options(scheduling_strategy=on_head)
            text = ray.get(task.remote())
    config = yaml.safe_load(text)
    return config if isinstance(config, dict) else {}


def _yaml_of_ray_up() -> str:
    try:
        return local_path("~/ray_bootstrap_config.yaml").read_text(encoding="utf-8")
    except OSError:
        return ""


def elsewhere(address: str | None) -> bool:
    """Return whether `connect(address)` reaches a cluster, whose nodes may have GPUs even if this machine has none.

    Args:
        address: the cluster's address; None for the one in RAY_ADDRESS, or a local instance.
    """
    return destination.resolve(address)[1] is not None


def has_gpus() -> bool:
    """Return whether a node of the connected cluster has a GPU, or a node that the autoscaler may start."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(node.get("GPU", 0) for node in (*alive, *_future_nodes({"GPU": 1})))


def build_cpus(gpus: float) -> int:
    """Return the CPUs for the task that builds a memory: the most that are free on a node with enough GPUs, at least 1.

    Nodes that the autoscaler may start count only if no living node has enough GPUs.

    Args:
        gpus: number of GPUs of the task.
    """
    import ray
    from ray._private.state import available_resources_per_node

    fit = {node["NodeID"] for node in ray.nodes() if node["Alive"] and _builds(node["Resources"], gpus)}
    free = available_resources_per_node() if fit else {}
    nodes = [free.get(node, {}) for node in fit] or [node for node in _future_nodes({"CPU": 1}) if _builds(node, gpus)]
    return max([1, *(int(node.get("CPU", 0)) for node in nodes if node.get("GPU", 0) >= gpus)])


def _builds(node: Mapping[str, float], gpus: float) -> bool:
    """Whether a node of these resources can run the task that builds a memory."""
    return node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus


def dead_hosts() -> set[str]:
    """Return the addresses of hosts whose nodes in the connected cluster are all dead."""
    import ray

    nodes = ray.nodes()
    return {str(node["NodeManagerAddress"]) for node in nodes if not node["Alive"]} - {
        str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]
    }
