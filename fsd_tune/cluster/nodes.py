"""Check that every node of a connected cluster can run trials, before any trial starts there."""

import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fsd_tune.cluster import node_probe
from fsd_tune.cluster.task_pool import as_task
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.storage import waiting
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.remote_experiment_folder import RemoteExperimentFolder
from fsd_tune.versions import versions

# A node without this package cannot import the probe, so the code is sent to it.
cloudpickle.register_pickle_by_value(node_probe)

_ANSWER_SECONDS = 18.0
# The share of a GPU for a probe, which leaves room beside trials.
_PROBED_GPU = 0.001
_FREE_GPU_SECONDS = 12 * 3600.0
# Ray's own processes eventually fail with less free space.
_FREE_BYTES = 1e9
# If these versions differ, a trial computes other results or cannot unpickle its arguments.
_SAME_VERSIONS = ("fsd_tune", "ray", "torch", "transformers", "python")


@dataclass(frozen=True)
class Needs:
    """The requirements for a node to run trials.

    Attributes:
        gpus: GPUs of a trial; if above 0, the probe checks that torch sees the GPUs of a node.
        paths: files and folders that every node must be able to read.
        copies: the folder for a node's own copy of teacher outputs and memory; None if all nodes share one copy.
        nbytes: size of this copy in bytes.
    """

    gpus: float = 0.0
    paths: Sequence[str] = ()
    copies: Path | None = None
    nbytes: int = 0


@dataclass(frozen=True)
class Node:
    """The resources and problems of a node, as its probe reports them.

    Attributes:
        address: its IP address.
        cpus: number of CPUs that Ray may use.
        gpus: number of GPUs that Ray may use.
        store: size of its object store in bytes.
        room: disk space in bytes for its own copy of teacher outputs and memory; None if it needs no copy.
        problems: the reasons why it cannot run a trial, without the node's name.
    """

    address: str
    cpus: float
    gpus: float
    store: float
    room: int | None
    problems: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the problems as sentences that name the node."""
        return [f"node {self.address}: {problem}." for problem in self.problems]


def probe_nodes(where: ExperimentFolder, needs: Needs) -> list[Node]:
    """Probe every living node.

    Args:
        where: the experiment folder, created if it is missing. Every node must see the files that other nodes write
            into it.
        needs: the other requirements for a node.

    Returns:
        An entry per node, including nodes that could not run the probe or did not answer in time.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    with contextlib.closing(_NodeProbe(where, needs)) as probe:
        references = [probe.send(node) for node in nodes]
        ray.wait(references, num_returns=len(references), timeout=_ANSWER_SECONDS)
        return [probe.receive(node, reference) for node, reference in zip(nodes, references, strict=True)]


class _NodeProbe:
    """A probe of nodes that writes marker files into the experiment folder until `close` deletes them."""

    def __init__(self, experiment: ExperimentFolder, needs: Needs) -> None:
        self._needs = needs
        self._token = secrets.token_hex(8)
        self._marks = _Marks(experiment, f".seen-{self._token}")
        self._marks.write(self._token)
        self._own_versions = versions()

    def send(self, node: dict[str, Any]) -> Any:
        """Start the probe on a node, an entry of `ray.nodes()`, and return the reference to its answer."""
        needs = self._needs
        with_gpu = bool(needs.gpus) and node["Resources"].get("GPU", 0) > 0
        on_this_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        # A node without CPUs runs no trials, so nothing is copied to it.
        copies = str(needs.copies) if needs.copies is not None and node["Resources"].get("CPU") else ""
        task = as_task(node_probe.probe, cpus=0, gpus=_PROBED_GPU if with_gpu else 0)
        return task.options(scheduling_strategy=on_this_node).remote(
            folder=self._marks.location,
            mark=self._marks.name,
            token=self._token,
            node=_short_id(node),
            packages=[*_SAME_VERSIONS],
            paths=list(needs.paths),
            copies=copies,
            with_gpu=with_gpu,
        )

    def receive(self, node: dict[str, Any], reference: Any) -> Node:
        """Return the answer of a node; an answer that has not arrived is a problem."""
        room = None
        try:
            answer = ray.get(reference, timeout=0.1)
        except ray.exceptions.GetTimeoutError:
            problems = [f"has not answered within {_ANSWER_SECONDS:g} s; is it overloaded, or cut off?"]
        except ray.exceptions.RayError as error:
            problems = [f"cannot run a task: {str(error).strip().splitlines()[-1]}"]
        else:
            problems, room = self._problems(answer, _short_id(node)), answer["room"]
        resources = node["Resources"]
        return Node(
            address=str(node["NodeManagerAddress"]),
            cpus=float(resources.get("CPU", 0.0)),
            gpus=float(resources.get("GPU", 0.0)),
            store=float(resources.get("object_store_memory", 0.0)),
            room=room,
            problems=tuple(problems),
        )

    def _problems(self, answer: dict[str, Any], node: str) -> list[str]:
        """Return the problems in an answer of `node_probe.probe`."""
        problems = [
            f"has {package} {version}, but the driver has {self._own_versions[package]}; "
            "install the same in its setup_commands"
            for package, version in answer["versions"].items()
            if version != self._own_versions[package]
        ]
        storage = answer["storage"]
        if not storage and not self._marks.has(node):
            storage = "writes files that the driver does not see"
        if storage:
            problems.append(
                f"--output: {self._marks.location} is not shared: this node {storage}; {self._marks.advice}"
            )
        problems += [f"cannot read {path}; put it into a folder that all nodes share" for path in answer["unread"]]
        if answer["free"] < _FREE_BYTES:
            problems.append(
                f"has {answer['free'] / 1e9:.2g} GB free for temporary files, but Ray and checkpoints need "
                f"{_FREE_BYTES / 1e9:g} GB"
            )
        room, needs = answer["room"], self._needs
        if room is not None and room < needs.nbytes:
            problems.append(
                f"has {room / 1e9:.3g} GB for its copy of teacher outputs and memory below {needs.copies}, which takes "
                f"{needs.nbytes / 1e9:.3g} GB; give it a larger disk"
            )
        if not answer["cuda"]:
            problems.append("has a GPU for Ray, but torch sees none; its driver or its build of torch is missing")
        return problems

    def close(self) -> None:
        """Delete the marker files from the experiment folder."""
        self._marks.delete()


class _Marks:
    """The marker files of the driver and of the nodes in the experiment folder.

    The driver writes one for the nodes to read, and each node writes one for the driver.

    Attributes:
        name: the name of the driver's file; a node appends its own name to it.
        location: the path or URI of the experiment folder.
        advice: the user's remedy if a node cannot see the folder.
    """

    def __init__(self, experiment: ExperimentFolder, name: str) -> None:
        self.name = name
        self._storage = experiment.storage if isinstance(experiment, RemoteExperimentFolder) else None
        self._folder = experiment.folder.absolute()
        if self._storage is None:
            self.location = str(self._folder)
            self.advice = "give a folder that all nodes share"
        else:
            self.location = self._storage.uri
            self.advice = "it needs the same keys and network as this one"

    def write(self, token: str) -> None:
        """Write the driver's file."""
        if self._storage is not None:
            self._storage.write(self.name, token.encode())
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / self.name).write_text(token, encoding="utf-8")

    def has(self, node: str) -> bool:
        """Return whether the driver sees the file of a node."""
        name = f"{self.name}-{node}"
        return (self._folder / name).exists() if self._storage is None else name in self._storage.sizes()

    def delete(self) -> None:
        """Delete the files of the driver and of all nodes."""
        if self._storage is not None:
            for name in self._storage.sizes():
                if name.startswith(self.name):
                    self._storage.delete(name)
            return
        for path in self._folder.glob(f"{self.name}*"):
            with contextlib.suppress(OSError):
                path.unlink()


def require(where: ExperimentFolder, needs: Needs) -> None:
    """Check that all nodes can run trials; a cluster of one node, the driver's, is not checked.

    Args:
        where: the experiment folder.
        needs: the other requirements for a node.

    Raises:
        InputError: a line for each problem, with its node.
    """
    if sum(node["Alive"] for node in ray.nodes()) < 2:
        return
    problems = [line for node in probe_nodes(where, needs) for line in node.lines()]
    if problems:
        raise InputError(problems)


class NewNodeWatcher:
    """A watcher that checks the nodes which join the cluster while a search runs, as `require` checks the others."""

    def __init__(self, where: ExperimentFolder, needs: Needs) -> None:
        """Record the living nodes, which are not checked again.

        Args:
            where: the experiment folder.
            needs: the other requirements for a node.
        """
        self._where = where
        self._needs = needs
        self._known = {str(node["NodeID"]) for node in ray.nodes() if node["Alive"]}
        self._pending: list[tuple[dict[str, Any], Any, _NodeProbe]] = []

    def require(self) -> None:
        """Send a probe to each new node and check the answers that have arrived; return at once.

        Raises:
            FsdTuneError: a new node cannot run trials. Each trial that starts there would fail.
        """
        for node in ray.nodes():
            if node["Alive"] and node["NodeID"] not in self._known:
                self._known.add(node["NodeID"])
                probe = _NodeProbe(self._where, self._needs)
                self._pending.append((node, probe.send(node), probe))
        for entry in list(self._pending):
            node, reference, probe = entry
            if not ray.wait([reference], timeout=0)[0]:
                continue
            self._pending.remove(entry)
            with contextlib.closing(probe):
                lines = probe.receive(node, reference).lines()
            if lines and _is_alive(node):
                hint = "Repair or remove it; `fsd-tune resume` continues."
                raise FsdTuneError(f"A node that cannot run trials has joined the cluster: {' '.join(lines)}", hint)


def _is_alive(node: dict[str, Any]) -> bool:
    return any(other["NodeID"] == node["NodeID"] and other["Alive"] for other in ray.nodes())


def _short_id(node: dict[str, Any]) -> str:
    return str(node["NodeID"])[:8]


def gpus_multiply_bf16() -> bool:
    """Return whether the GPUs of all nodes of the connected cluster multiply bfloat16 natively.

    If no node with a GPU lives yet, wait for the first one that the autoscaler starts.

    Raises:
        WaitedTooLongError: no GPU was free for hours.
    """
    task = as_task(node_probe.gpu_multiplies_bf16, cpus=0, gpus=_PROBED_GPU)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) > 0]
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes
    ]
    asked = asked or [task.remote()]
    wait = waiting.Wait(
        lambda: "a free GPU of this Ray cluster, to learn its precision",
        _FREE_GPU_SECONDS,
        "`--precision float32` or bf16 asks no GPU.",
    )
    while len(ray.wait(asked, num_returns=len(asked), timeout=0)[0]) < len(asked):
        wait.pause()
    native = True
    for reference in asked:
        # A node that cannot run the task is named when all nodes are checked.
        with contextlib.suppress(ray.exceptions.RayError):
            native &= ray.get(reference)
    return native
