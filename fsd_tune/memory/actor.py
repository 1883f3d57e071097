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
from fsd_tune.cluster.leases import Leases
from fsd_tune.cluster.task_pool import as_task
from fsd_tune.errors import FsdTuneError
from fsd_tune.memory.arrays import Arrays, open_arrays
from fsd_tune.memory.build import BuiltMemory, NotBuiltError, build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.memory.teacher_outputs import Progress
from fsd_tune.storage import artifacts, waiting

# Arrays of at most this size are served through Ray's object stores, larger ones as memory-mapped files.
_STORE_BYTES = 2 << 30
_STORE_SHARE = 0.3
_TRIES = 60
# How long a search waits for room on the cluster, and a trial for its arrays.
_ROOM_SECONDS = 12 * 3600.0
_SERVE_SECONDS = 600.0
# A node that the autoscaler starts in the place of a lost one takes minutes.
_RESTART_SECONDS = 3600.0
_LEAVE_SECONDS = 30.0
# How long the actor's imports may take before a wait for it is worth a line.
_START_SECONDS = 20.0


def _build(spec: MemorySpec, cpus: int, actor: Any) -> BuiltMemory:
    _hide_gpus()
    torch.set_num_threads(max(1, cpus))
    last = 0.0

    def report_progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last > 0.5:
            last = time.monotonic()
            actor.record_progress.remote(stage, done, total)

    report_progress("teacher memory", 0, 1)
    return build_artifacts(spec, report_progress)


def _hide_gpus() -> None:
    """Hide all GPUs from a process that Ray gave none, because Ray leaves them visible."""
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


class _Memory:
    """The actor's state: the built memory and the references that it serves.

    The constructor takes no arguments and `serve` few, so that a restarted actor depends on nothing that is lost. The
    searches that use it are not among its state, see `cluster.leases`.
    """

    def __init__(self) -> None:
        _hide_gpus()
        self._built: BuiltMemory | None = None
        self._served: tuple[str, Any] | None = None
        self._progress: tuple[str, int, int] | None = None
        self._building = False

    @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
    def record_progress(self, stage: str, done: int, total: int) -> None:
        """Record the progress of the build task.

        Args:
            stage: name of the stage.
            done: units done.
            total: units of the stage.
        """
        self._building = True
        self._progress = (stage, done, total)

    @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
    def progress(self) -> tuple[str, int, int] | None:
        """Return the last recorded progress: stage, units done, units of the stage."""
        return self._progress

    @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
    def check_alive(self) -> None:
        """Return if the actor runs."""

    @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
    def end_if_unused(self) -> None:
        """End the actor unless a living driver has a lease on it."""
        if not Leases(ray.get_runtime_context().get_actor_id()).living():
            ray.actor.exit_actor()

    def prepare(self, spec: MemorySpec, cpus: int, gpus: float) -> BuiltMemory:
        """Return the memory. The first call builds it.

        Args:
            spec: what to build.
            cpus: CPUs of the build task, as many as are free.
            gpus: GPUs of the build task.
        """
        if self._built is None:
            try:
                # Checking needs no process of its own, which takes seconds to start.
                self._built = build_artifacts(spec, self._show, build=False)
            except NotBuiltError:
                self._built = self._build_in_task(spec, cpus, gpus)
            return self._built
        # The search that built the memory has counted the pass.
        return dataclasses.replace(self._built, passes=0)

    def _show(self, stage: str, done: int, total: int) -> None:
        self._progress = (stage, done, total)

    def _build_in_task(self, spec: MemorySpec, cpus: int, gpus: float) -> BuiltMemory:
        """Build the memory in a task, as soon as the cluster has room for it.

        Raises:
            FsdTuneError: the cluster had no room for hours, or the build failed.
        """
        self._building = False
        wait = waiting.Wait(
            lambda: f"a free CPU{' and GPU' if gpus else ''} of this Ray cluster, to build the teacher memory",
            _ROOM_SECONDS,
            "Other work has them all; the same command continues later.",
            lambda text: self._show(text, 0, 1),
        )
        task = as_task(_build, tries=4, cpus=cpus, gpus=gpus)
        reference = task.remote(spec, cpus, ray.get_runtime_context().current_actor)
        # The task reports as soon as it runs.
        while not self._building and not _is_ready(reference):
            try:
                wait.pause()
            except FsdTuneError:
                ray.cancel(reference)
                raise
        built: BuiltMemory = ray.get(reference)
        return built

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
    students = [student.model_dump(mode="json") for student in spec.students]
    facts = [
        spec.teacher.path, spec.task.definition, spec.layers, spec.pairs, spec.memory_pairs, spec.centroids, students,
        spec.padding, spec.algorithm, spec.precision, spec.seed, spec.live, len(spec.stored),
        str(spec.folder.resolve()), spec.train.max_length, spec.remote,
    ]  # fmt: skip
    return f"memory-{artifacts.digest(facts, spec.train.ids, spec.train.offsets, spec.dev.ids)}"


def _actor() -> Any:
    # Progress has a thread of its own, because `prepare` blocks while its task runs.
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, concurrency_groups={"progress": 1})(_Memory)


def _is_ready(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


def start(spec: MemorySpec, search: str) -> Any:
    """Return the actor of a memory, created if there is none, with a lease for `search`.

    It does not run on a head that runs no trials, whose memory is small. Ray restarts it elsewhere if its node dies.

    Args:
        spec: what the memory depends on.
        search: identifies the search.

    Raises:
        FsdTuneError: Ray does not start the actor.
    """
    name = name_of(spec)
    for _ in range(_TRIES):
        # Another search may create or end the actor between these two calls; then try again.
        with contextlib.suppress(ValueError, RayActorError):
            options = {
                "name": name,
                "namespace": connection.NAMESPACE,
                "get_if_exists": True,
                "lifetime": "detached",
            }
            actor = _actor().options(**options, label_selector=placement.not_on_head()).remote()
            Leases(actor._actor_id.hex()).add(search)
            wait = waiting.Wait(
                lambda: "Ray to start the memory actor",
                _SERVE_SECONDS,
                "Is a node of the cluster gone? See `ray status`.",
                notice=_START_SECONDS,
            )
            alive = actor.check_alive.remote()
            while not _is_ready(alive):
                wait.pause(0.05)
            ray.get(alive)
            return actor
        time.sleep(0.2)
    raise FsdTuneError("The memory actor could not be started.", hint="Ray's logs say why.")


def build(actor: Any, spec: MemorySpec, cpus: int, gpus: float, progress: Progress) -> BuiltMemory:
    """Return the memory after the actor has built it, and report progress until then.

    Args:
        actor: the memory's actor.
        spec: what to build.
        cpus: CPUs of the build task, as many as are free.
        gpus: GPUs of the build task.
        progress: called with the progress of each stage.

    Raises:
        FsdTuneError: the build failed; errors that a user can cause are raised as they were.
    """
    reference, shown = actor.prepare.remote(spec, cpus, gpus), None
    silence = _silence(progress)
    while not ray.wait([reference], timeout=0.5)[0]:
        try:
            state = ray.get(actor.progress.remote(), timeout=5)
        except (RayActorError, GetTimeoutError):  # Ray restarts the actor and retries `prepare`.
            silence.pause()
            continue
        silence = _silence(progress)
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


def _silence(progress: Progress) -> waiting.Wait:
    return waiting.Wait(
        lambda: "Ray to restart the memory actor",
        _RESTART_SECONDS,
        "Is a node of the cluster gone? See `ray status`.",
        lambda text: progress(text, 0, 1),
    )


def leave(actor: Any, search: str) -> None:
    """Give up the lease of a search, and end the actor if no other living driver has one.

    Args:
        actor: the memory's actor.
        search: as given to `start`.
    """
    Leases(actor._actor_id.hex()).remove(search)
    with contextlib.suppress(RayActorError, GetTimeoutError):
        # Ray must not retry the call, because the actor may end during it.
        ray.get(actor.end_if_unused.options(max_task_retries=0).remote(), timeout=_LEAVE_SECONDS)


def fetch_arrays(actor: Any, built: BuiltMemory) -> Arrays:
    """Return the served arrays, zero-copy and read-only, and retry while the actor restarts.

    Args:
        actor: the memory's actor.
        built: the memory that `build` returned.

    Raises:
        FsdTuneError: the actor did not serve them within ten minutes.
    """
    wait = waiting.Wait(
        lambda: "the memory actor, which serves the teacher memory",
        _SERVE_SECONDS,
        "`fsd-tune resume` goes on with the search.",
    )
    while True:
        try:
            asked = actor.serve.remote(built)
            while not _is_ready(asked):
                wait.pause()
            kind, content = ray.get(asked)
            arrays: Arrays = (
                ray.get(content[0], timeout=_SERVE_SECONDS) if kind == "store" else open_arrays(content, mapped=True)
            )
            return arrays
        except (RayActorError, ObjectLostError, GetTimeoutError):
            # Objects of a dead owner are lost (OwnerDiedError is an ObjectLostError); the new actor puts them again.
            wait.pause(1.0)
