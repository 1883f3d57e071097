"""What each node of a connected cluster has and sees: asked by a task on each, before any trial starts."""

import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fsd_tune.errors import InputError
from fsd_tune.mirror import Mirror
from fsd_tune.place import Place
from fsd_tune.versions import versions

_SECONDS = 18.0
# Where these differ, a trial computes something else, or cannot be told what to do.
_SAME = ("fsd_tune", "ray", "torch", "transformers", "python")


@dataclass(frozen=True)
class Node:
    """One node's answer.

    Attributes:
        address: its IP address.
        cpus, gpus: that Ray knows there.
        problems: what keeps it from running a trial, in words.
    """

    address: str
    cpus: float
    gpus: float
    problems: tuple[str, ...]


def look(where: Place, paths: Sequence[str], gpus: float) -> list[Node]:
    """Ask every node that is alive.

    Args:
        where: the search's folder, made if it is new: every node must see what another writes there.
        paths: files and folders that every node must be able to read.
        gpus: of a trial; more than 0 asks the nodes that have GPUs whether torch sees them.
    """
    token = secrets.token_hex(8)
    shared = _Shared(where, f".seen-{token}")
    shared.write(token)
    here, task = versions(), ray.remote(_task())
    asked = []
    alive = [node for node in ray.nodes() if node["Alive"]]
    for node in alive:
        with_gpu = bool(gpus) and node["Resources"].get("GPU", 0) > 0
        where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        options = {"num_cpus": 0, "num_gpus": 0.001 if with_gpu else 0, "max_retries": 0, "scheduling_strategy": where}
        asked.append(
            task.options(**options).remote(shared.name, token, list(paths), [*_SAME], with_gpu, node["NodeID"][:8])
        )
    ray.wait(asked, num_returns=len(asked), timeout=_SECONDS)
    found = []
    try:
        for node, reference in zip(alive, asked, strict=True):
            problems = _problems(reference, here, shared, node["NodeID"][:8])
            resources = node["Resources"]
            address = str(node["NodeManagerAddress"])
            found.append(Node(address, resources.get("CPU", 0.0), resources.get("GPU", 0.0), tuple(problems)))
    finally:
        shared.clear()
    return found


def _task() -> Callable[..., dict[str, Any]]:
    """The task: defined in here, it is sent by value, so that a node without this package can say so."""

    def see(
        folder: str, token: str, paths: list[str], packages: list[str], with_gpu: bool, name: str
    ) -> dict[str, Any]:
        import os
        import pathlib
        import platform
        from importlib import metadata

        found: dict[str, str] = {}
        for package in packages:
            try:
                found[package] = platform.python_version() if package == "python" else metadata.version(package)
            except metadata.PackageNotFoundError:
                found[package] = "not installed"
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
        unread = [path for path in paths if not os.access(path, os.R_OK)]
        return {"versions": found, "storage": storage, "unread": unread, "cuda": cuda}

    return see


def _problems(reference: Any, here: dict[str, str], shared: "_Shared", name: str) -> list[str]:
    """A node's answer in words."""
    try:
        answer = ray.get(reference, timeout=0.1)
    except ray.exceptions.GetTimeoutError:
        return [f"has not answered within {_SECONDS:g} s; is it overloaded, or cut off?"]
    except ray.exceptions.RayError as error:
        return [f"cannot run a task: {str(error).strip().splitlines()[-1]}"]
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
    if not answer["cuda"]:
        problems.append("has a GPU for Ray, but torch sees none; its driver or its build of torch is missing")
    return problems


class _Shared:
    """What the driver writes into a search's place for the nodes to see, and what they write beside it."""

    def __init__(self, where: Place, mark: str) -> None:
        self._mark = mark
        self._storage = where.storage if isinstance(where, Mirror) else None
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


def require(where: Place, paths: Sequence[str], gpus: float) -> None:
    """Refuse a cluster on which trials would fail; a single node is the driver's own and is not asked.

    Raises:
        InputError: a line for each problem, with its node.
    """
    if sum(node["Alive"] for node in ray.nodes()) < 2:
        return
    problems = [f"node {node.address}: {problem}." for node in look(where, paths, gpus) for problem in node.problems]
    if problems:
        raise InputError(problems)
