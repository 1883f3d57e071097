"""What each node of a connected cluster has and sees: asked by a task on each, before any trial starts."""

import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.remote_experiment_folder import RemoteExperimentFolder
from fsd_tune.versions import versions

_SECONDS = 18.0
# A disk that is fuller ends Ray's own processes, sooner or later.
_LOCAL_BYTES = 1e9
# Where these differ, a trial computes something else, or cannot be told what to do.
_SAME = ("fsd_tune", "ray", "torch", "transformers", "python")


@dataclass(frozen=True)
class Needs:
    """What a node must have for trials.

    Attributes:
        gpus: of a trial; more than 0 asks the nodes that have GPUs whether torch sees them.
        paths: files and folders that every node must be able to read.
        copies: the folder of a node's own copy of teacher outputs and memory; None when all nodes share one.
        nbytes: that the copy takes.
    """

    gpus: float = 0.0
    paths: Sequence[str] = ()
    copies: Path | None = None
    nbytes: int = 0


@dataclass(frozen=True)
class Node:
    """One node's answer.

    Attributes:
        address: its IP address.
        cpus, gpus: that Ray knows there.
        store: bytes of its object store.
        room: bytes that its disk has for its own copy of teacher outputs and memory; None where it keeps none.
        problems: what keeps it from running a trial, in words.
    """

    address: str
    cpus: float
    gpus: float
    store: float
    room: int | None
    problems: tuple[str, ...]

    def lines(self) -> list[str]:
        """The problems as sentences that name the node."""
        return [f"node {self.address}: {problem}." for problem in self.problems]


def probe_nodes(where: ExperimentFolder, needs: Needs) -> list[Node]:
    """Ask every node that is alive.

    Args:
        where: the search's folder, made if it is new: every node must see what another writes there.
        needs: what else it must have.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    with contextlib.closing(_NodeProbe(where, needs)) as question:
        asked = [question.ask(node) for node in nodes]
        ray.wait(asked, num_returns=len(asked), timeout=_SECONDS)
        return [question.answer(node, reference) for node, reference in zip(nodes, asked, strict=True)]


class _NodeProbe:
    """What nodes are asked, until `close`: something lies in the search's place that they must see."""

    def __init__(self, where: ExperimentFolder, needs: Needs) -> None:
        self._needs, self._token = needs, secrets.token_hex(8)
        self._shared = _Shared(where, f".seen-{self._token}")
        self._shared.write(self._token)
        self._here, self._task = versions(), ray.remote(_task())

    def ask(self, node: dict[str, Any]) -> Any:
        """A reference to the answer of a node, one of `ray.nodes()`."""
        needs, with_gpu = self._needs, bool(self._needs.gpus) and node["Resources"].get("GPU", 0) > 0
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        options = {"num_cpus": 0, "num_gpus": 0.001 if with_gpu else 0, "max_retries": 0, "scheduling_strategy": there}
        # Where no trials run nothing is copied.
        copies = str(needs.copies) if needs.copies is not None and node["Resources"].get("CPU") else ""
        return self._task.options(**options).remote(
            self._shared.name, self._token, list(needs.paths), [*_SAME], with_gpu, node["NodeID"][:8], copies
        )

    def answer(self, node: dict[str, Any], reference: Any) -> Node:
        """What a node has answered by now."""
        problems, room = _heard(reference, self._here, self._shared, node["NodeID"][:8], self._needs)
        resources, address = node["Resources"], str(node["NodeManagerAddress"])
        cpus, gpus, store = (float(resources.get(kind, 0.0)) for kind in ("CPU", "GPU", "object_store_memory"))
        return Node(address, cpus, gpus, store, room, tuple(problems))

    def close(self) -> None:
        """Nothing stays in the place."""
        self._shared.clear()


def _task() -> Callable[..., dict[str, Any]]:
    """The task: defined in here, it is sent by value, so that a node without this package can say so."""

    def see(
        folder: str, token: str, paths: list[str], packages: list[str], with_gpu: bool, name: str, copies: str
    ) -> dict[str, Any]:
        import os
        import pathlib
        import platform
        import shutil
        import tempfile
        from importlib import metadata

        found: dict[str, str] = {}
        for package in packages:
            try:
                version = platform.python_version() if package == "python" else metadata.version(package)
            except metadata.PackageNotFoundError:
                version = None
            # A damaged installation has no version either.
            found[package] = version or "not installed"
        storage = ""
        try:
            if "://" in folder:
                from pyarrow import fs

                system, root = fs.FileSystem.from_uri(folder)
                with system.open_input_stream(f"{root}/.seen-{token}") as source:
                    seen = source.read().decode()
                with system.open_output_stream(f"{root}/.seen-{token}-{name}") as target:
                    target.write(token.encode())
            else:
                seen = pathlib.Path(folder, f".seen-{token}").read_text(encoding="utf-8")
                pathlib.Path(folder, f".seen-{token}-{name}").write_text(token, encoding="utf-8")
            if seen != token:
                storage = "reads other contents than were written"
        except FileNotFoundError:
            storage = "does not see what the driver writes there"
        except OSError as error:
            storage = f"cannot use it ({error.strerror or str(error).splitlines()[0]})"
        cuda = True
        if with_gpu:
            import torch

            cuda = torch.cuda.is_available()
        free, room = shutil.disk_usage(tempfile.gettempdir()).free, None
        if copies:
            # With what it has of them from an earlier search.
            kept = pathlib.Path(copies)
            existing = next(path for path in (kept, *kept.parents) if path.exists())
            room = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
            room += shutil.disk_usage(existing).free
        unread = [path for path in paths if not os.access(path, os.R_OK)]
        return {"versions": found, "storage": storage, "unread": unread, "cuda": cuda, "free": free, "room": room}

    return see


def _heard(
    reference: Any, here: dict[str, str], shared: "_Shared", name: str, needs: Needs
) -> tuple[list[str], int | None]:
    """A node's answer: its problems in words, and its room for copies."""
    try:
        answer = ray.get(reference, timeout=0.1)
    except ray.exceptions.GetTimeoutError:
        return [f"has not answered within {_SECONDS:g} s; is it overloaded, or cut off?"], None
    except ray.exceptions.RayError as error:
        return [f"cannot run a task: {str(error).strip().splitlines()[-1]}"], None
    problems = [
        f"has {package} {there}, but the driver has {here[package]}; install the same in its setup_commands"
        for package, there in answer["versions"].items()
        if there != here[package]
    ]
    storage = answer["storage"]
    if not storage and not shared.seen(name):
        storage = "writes where the driver does not see it"
    if storage:
        problems.append(f"--output: {shared.name} is not shared: this node {storage}; {shared.advice}")
    problems += [f"cannot read {path}; put it into a folder that all nodes share" for path in answer["unread"]]
    if answer["free"] < _LOCAL_BYTES:
        free, needed = answer["free"] / 1e9, _LOCAL_BYTES / 1e9
        problems.append(f"has {free:.2g} GB free for temporary files, but Ray and checkpoints need {needed:g} GB")
    room = answer["room"]
    if room is not None and room < needs.nbytes:
        problems.append(
            f"has {room / 1e9:.3g} GB for its copy of teacher outputs and memory below {needs.copies}, which takes "
            f"{needs.nbytes / 1e9:.3g} GB; give it a larger disk"
        )
    if not answer["cuda"]:
        problems.append("has a GPU for Ray, but torch sees none; its driver or its build of torch is missing")
    return problems, room


class _Shared:
    """What the driver writes into a search's place for the nodes to see, and what they write beside it."""

    def __init__(self, where: ExperimentFolder, mark: str) -> None:
        self._mark = mark
        self._storage = where.storage if isinstance(where, RemoteExperimentFolder) else None
        self._folder = where.folder.absolute()
        self.name = str(self._folder) if self._storage is None else self._storage.uri
        self.advice = "give a folder that all nodes share"
        if self._storage is not None:
            self.advice = "it needs the same keys and network as this one"

    def write(self, token: str) -> None:
        if self._storage is not None:
            self._storage.write(self._mark, token.encode())
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / self._mark).write_text(token, encoding="utf-8")

    def seen(self, node: str) -> bool:
        name = f"{self._mark}-{node}"
        return (self._folder / name).exists() if self._storage is None else name in self._storage.sizes()

    def clear(self) -> None:
        if self._storage is not None:
            for name in self._storage.sizes():
                if name.startswith(self._mark):
                    self._storage.delete(name)
            return
        for left in self._folder.glob(f"{self._mark}*"):
            with contextlib.suppress(OSError):
                left.unlink()


def require(where: ExperimentFolder, needs: Needs) -> None:
    """Refuse a cluster on which trials would fail; a single node is the driver's own and is not asked.

    Raises:
        InputError: a line for each problem, with its node.
    """
    if sum(node["Alive"] for node in ray.nodes()) < 2:
        return
    problems = [line for node in probe_nodes(where, needs) for line in node.lines()]
    if problems:
        raise InputError(problems)


class NewNodeWatcher:
    """Asks nodes that join while a search runs what `require` has asked the others."""

    def __init__(self, where: ExperimentFolder, needs: Needs) -> None:
        self._what = (where, needs)
        self._known = {str(node["NodeID"]) for node in ray.nodes() if node["Alive"]}
        self._asked: list[tuple[dict[str, Any], Any, _NodeProbe]] = []

    def require(self) -> None:
        """Ask nodes that are new, and hear those that have answered; returns at once.

        Raises:
            FsdTuneError: one cannot run trials. They would be tried there, and fail, one after the other.
        """
        for node in ray.nodes():
            if node["Alive"] and node["NodeID"] not in self._known:
                self._known.add(node["NodeID"])
                question = _NodeProbe(*self._what)
                self._asked.append((node, question.ask(node), question))
        for one in list(self._asked):
            node, reference, question = one
            if not ray.wait([reference], timeout=0)[0]:
                continue
            self._asked.remove(one)
            with contextlib.closing(question):
                lines = question.answer(node, reference).lines()
            if lines and not _has_left(node):
                hint = "Repair or remove it; `fsd-tune resume` goes on."
                raise FsdTuneError(f"A machine has joined that cannot run trials: {' '.join(lines)}", hint)


def _has_left(node: dict[str, Any]) -> bool:
    """Whether a node that could not answer is simply gone."""
    return not any(other["NodeID"] == node["NodeID"] and other["Alive"] for other in ray.nodes())
