"""The memory actor: one memory per task on a Ray cluster, built once, served by reference, reloaded after a crash.

The actor itself does little: a Ray task builds the artefacts with `build.build_artifacts` and occupies the GPU.
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
from fsd_tune.memory.build import BuiltMemory, NotBuiltError, build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.memory.teacher_outputs import Progress
from fsd_tune.storage import artifacts

# Arrays of at most this size are served through Ray's object stores, larger ones as memory-mapped files.
_STORE_BYTES = 2 << 30
_STORE_SHARE = 0.3
_TRIES = 60


@ray.remote(max_retries=3)  # type: ignore[untyped-decorator]
def _build(spec: MemorySpec, cpus: int, actor: Any) -> BuiltMemory:
    _hide_gpus()
    torch.set_num_threads(max(1, cpus))
    last = 0.0

    def report_progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last > 0.5:
            last = time.monotonic()
            actor.record_progress.remote(stage, done, total)

    return build_artifacts(spec, report_progress)


def _hide_gpus() -> None:
    """Hide all GPUs from a process that Ray gave none, because Ray leaves them visible."""
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


class _Memory:
    """The actor's state: the built memory, the references that it serves, and the searches that use it.

    The constructor takes no arguments and `serve` few, so that a restarted actor depends on nothing that is lost.
    """

    def __init__(self) -> None:
        _hide_gpus()
        self._built: BuiltMemory | None = None
        self._served: tuple[str, Any] | None = None
        self._searches: set[str] = set()
        self._progress: tuple[str, int, int] | None = None

    @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
    def record_progress(self, stage: str, done: int, total: int) -> None:
        """Record the progress of the build task.

        Args:
            stage: name of the stage.
            done: units done.
            total: units of the stage.
        """
        self._progress = (stage, done, total)

    @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
    def progress(self) -> tuple[str, int, int] | None:
        """Return the last recorded progress: stage, units done, units of the stage."""
        return self._progress

    def attach(self, search: str) -> None:
        """Register a search; the actor stays until the last one has left."""
        self._searches.add(search)

    def leave(self, search: str) -> None:
        """Remove a search, and end the actor if it was the last."""
        self._searches.discard(search)
        if not self._searches:
            ray.actor.exit_actor()

    def prepare(self, spec: MemorySpec, cpus: int, gpus: float) -> BuiltMemory:
        """Return the memory. The first call builds it.

        Args:
            spec: what to build.
            cpus: CPUs of the build task.
            gpus: GPUs of the build task.
        """
        if self._built is None:
            try:
                # Checking needs no process of its own, which takes seconds to start.
                self._built = build_artifacts(spec, lambda stage, done, total: None, build=False)
            except NotBuiltError:
                build = _build.options(num_cpus=cpus, num_gpus=gpus)
                self._built = ray.get(build.remote(spec, cpus, ray.get_runtime_context().current_actor))
            return self._built
        # The search that built the memory has counted the pass.
        return dataclasses.replace(self._built, passes=0)

    def serve(self, built: BuiltMemory) -> tuple[str, Any]:
        """Return ("store", [reference to Arrays]), or ("files", built) if they are too large for the object store."""
        if self._served is None:
            if open_arrays(built, mapped=True).nbytes > room_in(_smallest_store()):
                self._served = ("files", built)
            else:
                self._served = ("store", [ray.put(open_arrays(built, mapped=False))])
        return self._served


def room_in(store: float) -> float:
    """Return the bytes of arrays that an object store may serve; larger arrays stay files.

    Args:
        store: bytes of the smallest object store of the cluster's nodes.
    """
    return min(_STORE_BYTES, _STORE_SHARE * store)


def _smallest_store() -> float:
    """Return the bytes of the smallest object store of a node that runs trials, because each node gets a copy."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    return min((float(node.get("object_store_memory", 0.0)) for node in nodes), default=0.0)


def name_of(spec: MemorySpec) -> str:
    """Return the actor's name: a digest of everything that the artefacts depend on, and of their folder.

    Args:
        spec: the artefacts that the actor builds and serves.
    """
    student = spec.student.model_dump(mode="json")
    facts = [
        spec.teacher.path, spec.task.definition, spec.layers, spec.pairs, spec.memory_pair, spec.centroids, student,
        spec.padding, spec.algorithm, spec.precision, spec.seed, spec.live, len(spec.stored),
        str(spec.folder.resolve()), spec.train.max_length, spec.remote,
    ]  # fmt: skip
    return f"memory-{artifacts.digest(facts, spec.train.ids, spec.train.offsets, spec.dev.ids)}"


def _actor() -> Any:
    # Progress has a thread of its own, because `prepare` blocks while its task runs.
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, concurrency_groups={"progress": 1})(_Memory)


def start(spec: MemorySpec, search: str) -> Any:
    """Return the actor of a memory with `search` registered; create the actor if there is none.

    It does not run on a head that runs no trials, whose memory is small. Ray restarts it elsewhere if its node dies.

    Args:
        spec: what the memory depends on.
        search: identifies the search.

    Raises:
        FsdTuneError: Ray does not start the actor.
    """
    for _ in range(_TRIES):
        # Another search may create or end the actor between these two calls; then try again.
        with contextlib.suppress(ValueError, RayActorError):
            options = {
                "name": name_of(spec),
                "namespace": connection.NAMESPACE,
                "get_if_exists": True,
                "lifetime": "detached",
            }
            actor = _actor().options(**options, label_selector=placement.not_on_head()).remote()
            ray.get(actor.attach.remote(search))
            return actor
        time.sleep(0.2)
    raise FsdTuneError("The memory actor could not be started.", hint="Ray's logs say why.")


def build(actor: Any, spec: MemorySpec, cpus: int, gpus: float, progress: Progress) -> BuiltMemory:
    """Return the memory after the actor has built it, and report progress until then.

    Args:
        actor: the memory's actor.
        spec: what to build.
        cpus: CPUs of the build task.
        gpus: GPUs of the build task.
        progress: called with the progress of each stage.

    Raises:
        FsdTuneError: the build failed; errors that a user can cause are raised as they were.
    """
    reference, shown = actor.prepare.remote(spec, cpus, gpus), None
    while not ray.wait([reference], timeout=0.5)[0]:
        with contextlib.suppress(RayActorError, GetTimeoutError):  # Ray restarts the actor and retries `prepare`.
            state = ray.get(actor.progress.remote(), timeout=5)
            if state is not None and state != shown:
                shown = state
                progress(*state)
    try:
        built: BuiltMemory = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, FsdTuneError):
            cause = cause.cause if isinstance(cause, ray.exceptions.RayTaskError) else cause.__cause__
        if isinstance(cause, FsdTuneError):
            raise cause from None
        raise FsdTuneError(f"Building the teacher memory failed: {str(error).splitlines()[-1]}") from error
    return built


def leave(actor: Any, search: str) -> None:
    """Tell the actor that a search no longer needs the memory.

    Args:
        actor: the memory's actor.
        search: as given to `start`.
    """
    with contextlib.suppress(RayActorError):
        # Ray must not retry the call, because the actor may end during it.
        ray.get(actor.leave.options(max_task_retries=0).remote(search))


def fetch_arrays(actor: Any, built: BuiltMemory) -> Arrays:
    """Return the served arrays, zero-copy and read-only, and retry while the actor restarts.

    Args:
        actor: the memory's actor.
        built: the memory that `build` returned.

    Raises:
        FsdTuneError: the actor did not come back within a minute or two.
    """
    for attempt in range(_TRIES):
        try:
            kind, content = ray.get(actor.serve.remote(built), timeout=600)
            arrays: Arrays = ray.get(content[0]) if kind == "store" else open_arrays(content, mapped=True)
            return arrays
        except (RayActorError, ObjectLostError, GetTimeoutError):
            # Objects of a dead owner are lost (OwnerDiedError is an ObjectLostError); the new actor puts them again.
            time.sleep(min(2.0, 0.1 * 2**attempt))
    raise FsdTuneError("The memory actor does not answer.", hint="`fsd-tune resume` goes on with the search.")
