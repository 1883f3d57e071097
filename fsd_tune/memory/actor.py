"""One memory per task on a Ray cluster: built at most once, served by reference, reloaded after a crash.

The actor is thin: a build task that ends does the work (and holds the GPU while it does), `prepare.py` knows how.
"""

import contextlib
import dataclasses
import os
import time
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from fsd_tune.cluster import connection, placement
from fsd_tune.errors import FsdTuneError
from fsd_tune.memory.arrays import Arrays, open_arrays
from fsd_tune.memory.build import BuiltMemory, NotBuiltError, prepare
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.memory.teacher_outputs import Progress
from fsd_tune.storage import artifacts

# Served through the object stores up to here, as memory-mapped files of the node beyond.
_STORE_BYTES = 2 << 30
_STORE_SHARE = 0.3
_TRIES = 60


@ray.remote(max_retries=3)  # type: ignore[untyped-decorator]
def _build(spec: MemorySpec, cpus: int, actor: Any) -> BuiltMemory:
    _hide_gpus()
    torch.set_num_threads(max(1, cpus))
    last = 0.0

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last > 0.5:
            last = time.monotonic()
            actor.tell.remote(what, done, total)

    return prepare(spec, tell)


def _hide_gpus() -> None:
    """From a process that was given none: Ray leaves all of them visible to it."""
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


class _Memory:
    """The actor's state: what was built, the references that it serves, the searches that use it.

    Its constructor takes nothing and `serve` little, so that a restarted actor needs nothing that died with the first.
    """

    def __init__(self) -> None:
        _hide_gpus()
        self._prepared: BuiltMemory | None = None
        self._served: tuple[str, Any] | None = None
        self._searches: set[str] = set()
        self._progress: tuple[str, int, int] | None = None

    @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
    def tell(self, what: str, done: int, total: int) -> None:
        """How far the build task is."""
        self._progress = (what, done, total)

    @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
    def told(self) -> tuple[str, int, int] | None:
        """How far the build task was when it last said so."""
        return self._progress

    def attach(self, search: str) -> None:
        """A search begins to use this memory; the actor stays until the last one has left."""
        self._searches.add(search)

    def leave(self, search: str) -> None:
        """A search ends; without any, the actor ends too."""
        self._searches.discard(search)
        if not self._searches:
            ray.actor.exit_actor()

    def prepare(self, spec: MemorySpec, cpus: int, gpus: float) -> BuiltMemory:
        """Build at the first call; every other search finds it built."""
        if self._prepared is None:
            try:
                # A look needs no process of its own, which takes seconds to start.
                self._prepared = prepare(spec, lambda what, done, total: None, build=False)
            except NotBuiltError:
                build = _build.options(num_cpus=cpus, num_gpus=gpus)
                self._prepared = ray.get(build.remote(spec, cpus, ray.get_runtime_context().current_actor))
            return self._prepared
        # What another search has paid is not this one's to count.
        return dataclasses.replace(self._prepared, passes=0)

    def serve(self, prepared: BuiltMemory) -> tuple[str, Any]:
        """("store", [reference to Arrays]), or ("files", Prepared) when they are too large for the object store."""
        if self._served is None:
            if open_arrays(prepared, mapped=True).nbytes > room_in(_smallest_store()):
                self._served = ("files", prepared)
            else:
                self._served = ("store", [ray.put(open_arrays(prepared, mapped=False))])
        return self._served


def room_in(store: float) -> float:
    """Bytes that are served through object stores of so many bytes."""
    return min(_STORE_BYTES, _STORE_SHARE * store)


def _smallest_store() -> float:
    """Bytes of the smallest object store among the nodes that run trials: each of them gets a copy."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    return min((float(node.get("object_store_memory", 0.0)) for node in nodes), default=0.0)


def name_of(spec: MemorySpec) -> str:
    """The actor's name: one for everything that the artefacts depend on, and where they lie."""
    student = spec.student.model_dump(mode="json")
    facts = [
        spec.teacher.path, spec.task.definition, spec.layers, spec.pairs, spec.memory_pair, spec.centroids, student,
        spec.padding, spec.algorithm, spec.precision, spec.seed, spec.live, len(spec.stored),
        str(spec.folder.resolve()), spec.train.max_length, spec.remote,
    ]  # fmt: skip
    return f"memory-{artifacts.digest(facts, spec.train.ids, spec.train.offsets, spec.dev.ids)}"


def _actor() -> Any:
    # Progress is told and asked while `prepare` waits for its task.
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, concurrency_groups={"progress": 1})(_Memory)


def start(spec: MemorySpec, search: str) -> Any:
    """The actor of a memory, created if there is none, with `search` attached to it.

    A head that runs no trials is spared it, for its object store and memory are small; when the actor's node dies, Ray
    starts it on another.

    Raises:
        FsdTuneError: Ray does not start it.
    """
    for _ in range(_TRIES):
        # Another search may create it, or let it end, between the look and the call: then look again.
        with contextlib.suppress(ValueError, RayActorError):
            named = {
                "name": name_of(spec),
                "namespace": connection.NAMESPACE,
                "get_if_exists": True,
                "lifetime": "detached",
            }
            actor = _actor().options(**named, label_selector=placement.not_on_head()).remote()
            ray.get(actor.attach.remote(search))
            return actor
        time.sleep(0.2)
    raise FsdTuneError("The memory actor could not be started.", hint="Ray's logs say why.")


def build(actor: Any, spec: MemorySpec, cpus: int, gpus: float, progress: Progress) -> BuiltMemory:
    """Have the memory built, or found, and show the progress meanwhile.

    Args:
        actor: the memory's.
        spec: what to build.
        cpus, gpus: what the build task holds while it runs.
        progress: where it is shown how far the task is.

    Raises:
        FsdTuneError: the build failed; a user's error is raised as it was.
    """
    reference, shown = actor.prepare.remote(spec, cpus, gpus), None
    while not ray.wait([reference], timeout=0.5)[0]:
        with contextlib.suppress(RayActorError, GetTimeoutError):  # it restarts, and `prepare` is tried again
            state = ray.get(actor.told.remote(), timeout=5)
            if state is not None and state != shown:
                shown = state
                progress(*state)
    try:
        prepared: BuiltMemory = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, FsdTuneError):
            cause = cause.cause if isinstance(cause, ray.exceptions.RayTaskError) else cause.__cause__
        if isinstance(cause, FsdTuneError):
            raise cause from None
        raise FsdTuneError(f"Building the teacher memory failed: {str(error).splitlines()[-1]}") from error
    return prepared


def leave(actor: Any, search: str) -> None:
    """The search needs the memory no more."""
    with contextlib.suppress(RayActorError):
        # Not to be tried again: ending the actor is how the call succeeds.
        ray.get(actor.leave.options(max_task_retries=0).remote(search))


def fetch(actor: Any, prepared: BuiltMemory) -> Arrays:
    """The served arrays, zero-copy and read-only; asks again while the actor restarts.

    Raises:
        FsdTuneError: the actor did not come back within a minute or two.
    """
    for attempt in range(_TRIES):
        try:
            kind, what = ray.get(actor.serve.remote(prepared), timeout=600)
            arrays: Arrays = ray.get(what[0]) if kind == "store" else open_arrays(what, mapped=True)
            return arrays
        except (RayActorError, ObjectLostError, GetTimeoutError):
            # What a dead owner had put is lost (OwnerDiedError is an ObjectLostError): the restarted actor puts anew.
            time.sleep(min(2.0, 0.1 * 2**attempt))
    raise FsdTuneError("The memory actor does not answer.", hint="`fsd-tune resume` goes on with the search.")
