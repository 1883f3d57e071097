"""What each node of a connected cluster has and sees: asked by a task on each, before any trial starts."""

import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fsd_tune.errors import InputError
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


def look(folder: Path, paths: Sequence[str], gpus: float) -> list[Node]:
    """Ask every node that is alive.

    Args:
        folder: the search's, made if it is new: every node must see what another writes there.
        paths: files and folders that every node must be able to read.
        gpus: of a trial; more than 0 asks the nodes that have GPUs whether torch sees them.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    mark = folder / f".seen-{token}"
    mark.write_text(token, encoding="utf-8")
    here, task = versions(), ray.remote(_task())
    asked = []
    alive = [node for node in ray.nodes() if node["Alive"]]
    for node in alive:
        with_gpu = bool(gpus) and node["Resources"].get("GPU", 0) > 0
        where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        options = {"num_cpus": 0, "num_gpus": 0.001 if with_gpu else 0, "max_retries": 0, "scheduling_strategy": where}
        asked.append(
            task.options(**options).remote(str(folder), token, list(paths), [*_SAME], with_gpu, node["NodeID"][:8])
        )
    ray.wait(asked, num_returns=len(asked), timeout=_SECONDS)
    found = []
    try:
        for node, reference in zip(alive, asked, strict=True):
            problems = _problems(reference, here, folder, token, node["NodeID"][:8])
            resources = node["Resources"]
            address = str(node["NodeManagerAddress"])
            found.append(Node(address, resources.get("CPU", 0.0), resources.get("GPU", 0.0), tuple(problems)))
    finally:
        for left in folder.glob(f".seen-{token}*"):
            with contextlib.suppress(OSError):
                left.unlink()
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
            if pathlib.Path(folder, f".seen-{token}").read_text(encoding="utf-8") != token:
                storage = "reads other contents than were written"
            pathlib.Path(folder, f".seen-{token}-{name}").write_text(token, encoding="utf-8")
        except FileNotFoundError:
            storage = "does not see what the driver writes there"
        except OSError as error:
            storage = str(error.strerror)
        cuda = True
        if with_gpu:
            import torch

            cuda = torch.cuda.is_available()
        unread = [path for path in paths if not os.access(path, os.R_OK)]
        return {"versions": found, "storage": storage, "unread": unread, "cuda": cuda}

    return see


def _problems(reference: Any, here: dict[str, str], folder: Path, token: str, name: str) -> list[str]:
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
    if not storage and not (folder / f".seen-{token}-{name}").exists():
        storage = "writes where the driver does not see it"
    if storage:
        problems.append(f"--output: {folder} is not shared: this node {storage}; give a folder that all nodes share")
    problems += [f"cannot read {path}; put it into a folder that all nodes share" for path in answer["unread"]]
    if not answer["cuda"]:
        problems.append("has a GPU for Ray, but torch sees none; its driver or its build of torch is missing")
    return problems


def require(folder: Path, paths: Sequence[str], gpus: float) -> None:
    """Refuse a cluster on which trials would fail; a single node is the driver's own and is not asked.

    Raises:
        InputError: a line for each problem, with its node.
    """
    if sum(node["Alive"] for node in ray.nodes()) < 2:
        return
    problems = [f"node {node.address}: {problem}." for node in look(folder, paths, gpus) for problem in node.problems]
    if problems:
        raise InputError(problems)
