"""Pools of Ray tasks or actors that yield each result as soon as it is available."""

import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayActorError, RayError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """The result or the error of a work item.

    Attributes:
        item: the work item.
        result: the return value of the call; None after an error.
        error: the exception of the call, or the error for the death of its process; None after a success.
    """

    item: Item
    result: Any = None
    error: RayError | None = None

    @property
    def worker_died(self) -> bool:
        """Return whether an actor's process died, rather than its call failing."""
        return isinstance(self.error, RayActorError)

    @property
    def reason(self) -> str:
        """The last line of the error; empty after a success."""
        return "" if self.error is None else str(self.error).strip().splitlines()[-1]


class _Pool(ABC, Generic[Item]):
    """The common base of both pools.

    Attributes:
        limit: number of calls that run at the same time.
        tries: number of attempts for an item whose process dies.
    """

    def __init__(self, limit: int, tries: int) -> None:
        self.limit = limit
        self.tries = tries

    def run(
        self,
        items: Iterable[tuple[Item, tuple[Any, ...]]],
        progress: Callable[[list[Item]], None] = lambda running: None,
        interval: float = 1.0,
    ) -> Iterator[Outcome[Item]]:
        """Run work items in parallel and yield each outcome as soon as it is available.

        An item whose process died goes to the end of the queue until its attempts are used up.

        Args:
            items: each item and the arguments of its call, in the order of their start.
            progress: called with the running items, at least once per `interval`.
            interval: the interval in seconds.

        Yields:
            The outcomes in the order in which the items end.
        """
        waiting = deque((item, arguments, 1) for item, arguments in items)
        running: dict[Any, tuple[Item, tuple[Any, ...], int]] = {}
        while waiting or running:
            while waiting and len(running) < self.limit:
                item, arguments, attempt = waiting.popleft()
                running[self._submit(arguments)] = (item, arguments, attempt)
            for reference in ray.wait(list(running), timeout=interval)[0]:
                item, arguments, attempt = running.pop(reference)
                outcome = Outcome(item)
                try:
                    outcome = Outcome(item, result=ray.get(reference))
                except RayError as error:
                    outcome = Outcome(item, error=error)
                self._finished(reference, outcome.worker_died)
                if outcome.worker_died and attempt < self.tries:
                    waiting.append((item, arguments, attempt + 1))
                else:
                    yield outcome
            progress([item for item, _, _ in running.values()])

    @abstractmethod
    def _submit(self, arguments: tuple[Any, ...]) -> Any:
        """Start a call and return its reference."""

    @abstractmethod
    def _finished(self, reference: Any, worker_died: bool) -> None:
        """Handle the end of a call."""

    @abstractmethod
    def close(self) -> None:
        """Stop all calls that still run."""


def as_task(function: Callable[..., Any], *, tries: int = 1, cpus: float = 1, gpus: float = 0) -> Any:
    """Return a function as a Ray task. The process of a task with a GPU ends with it.

    Ray keeps the process of a task for the next one. With a CUDA context and what torch's allocator holds back, it
    would occupy GPU memory beside the trials.

    Args:
        function: every node must be able to import it.
        tries: number of attempts if its process dies.
        cpus: number of CPUs of a task.
        gpus: number of GPUs of a task; may be a fraction.
    """
    calls = 1 if gpus else 0  # 0: any number
    return ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=tries - 1, max_calls=calls)(function)


class TaskPool(_Pool[Item]):
    """A pool of Ray tasks; Ray itself repeats a task whose process dies."""

    def __init__(
        self, function: Callable[..., Any], *, limit: int, tries: int = 3, cpus: float = 1, gpus: float = 0
    ) -> None:
        """Create the pool without starting a task.

        Args:
            function: called with the arguments of an item; every node must be able to import it.
            limit: number of tasks that run at the same time.
            tries: number of attempts for an item whose process dies.
            cpus: number of CPUs of a task.
            gpus: number of GPUs of a task; may be a fraction.
        """
        super().__init__(limit, tries)
        self._task = as_task(function, tries=tries, cpus=cpus, gpus=gpus)
        self._running: set[Any] = set()

    def _submit(self, arguments: tuple[Any, ...]) -> Any:
        reference = self._task.remote(*arguments)
        self._running.add(reference)
        return reference

    def _finished(self, reference: Any, worker_died: bool) -> None:
        self._running.discard(reference)

    def close(self) -> None:
        """Cancel the tasks that still run."""
        for reference in self._running:
            with contextlib.suppress(RayError):  # The task may have ended.
                ray.cancel(reference, force=True)
        self._running.clear()


class ActorPool(_Pool[Item]):
    """A pool of Ray actors. An actor handles one item after another, so it loads its models only once."""

    def __init__(
        self,
        actor_class: type,
        arguments: tuple[Any, ...],
        method: str,
        *,
        limit: int,
        tries: int = 3,
        cpus: float = 1,
        gpus: float = 0,
    ) -> None:
        """Create the pool without starting an actor; one starts when an item finds no idle actor.

        Args:
            actor_class: a plain class that every node must be able to import.
            arguments: the arguments of its constructor.
            method: the name of its method that is called with an item's arguments.
            limit: number of actors that work at the same time.
            tries: number of attempts for an item whose actor dies.
            cpus: number of CPUs of an actor.
            gpus: number of GPUs of an actor; may be a fraction.
        """
        super().__init__(limit, tries)
        self._class = ray.remote(num_cpus=cpus, num_gpus=gpus)(actor_class)
        self._arguments = arguments
        self._method = method
        self._started: list[Any] = []
        self._idle: list[Any] = []
        self._busy: dict[Any, Any] = {}

    def _submit(self, arguments: tuple[Any, ...]) -> Any:
        if self._idle:
            actor = self._idle.pop()
        else:
            actor = self._class.remote(*self._arguments)
            self._started.append(actor)
        reference = getattr(actor, self._method).remote(*arguments)
        self._busy[reference] = actor
        return reference

    def _finished(self, reference: Any, worker_died: bool) -> None:
        actor = self._busy.pop(reference)
        if worker_died:
            self._started.remove(actor)
        else:
            self._idle.append(actor)

    def close(self) -> None:
        """Kill all actors, idle and busy."""
        for actor in self._started:
            with contextlib.suppress(Exception):  # The actor or Ray may have ended.
                ray.kill(actor)
        self._started.clear()
        self._idle.clear()
        self._busy.clear()
