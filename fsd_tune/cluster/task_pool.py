"""Pools that keep a number of Ray tasks or actors busy and give each result as soon as it is there."""

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
    """The end of a work item.

    Attributes:
        item: the work item.
        result: the value that was returned; None after an error.
        error: the exception of the call, or of the death of its process; None after a success.
    """

    item: Item
    result: Any = None
    error: RayError | None = None

    @property
    def worker_died(self) -> bool:
        """Whether the process of an actor died, rather than the call failed."""
        return isinstance(self.error, RayActorError)

    @property
    def reason(self) -> str:
        """The last line of the error; empty after a success."""
        return "" if self.error is None else str(self.error).strip().splitlines()[-1]


class _Pool(ABC, Generic[Item]):
    """The part that both pools share.

    Attributes:
        limit: calls that run side by side.
        tries: how often an item whose process dies is tried.
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
        """Run work items side by side and yield each outcome when it is there.

        An item whose process died goes to the end of the queue, until its tries are used up.

        Args:
            items: each item and the arguments of its call, in the order in which they start.
            progress: called with the items that are running, at least once in `interval`.
            interval: seconds.

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
        """Called when a call has ended."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything that still runs."""


class TaskPool(_Pool[Item]):
    """A pool of Ray tasks; Ray itself repeats a task whose process dies."""

    def __init__(
        self, function: Callable[..., Any], *, limit: int, tries: int = 3, cpus: float = 1, gpus: float = 0
    ) -> None:
        """Nothing starts yet.

        Args:
            function: called with the arguments of an item; every node must be able to import it.
            limit: tasks that run side by side.
            tries: how often an item whose process dies is tried.
            cpus: CPUs of a task.
            gpus: GPUs of a task, also a fraction.
        """
        super().__init__(limit, tries)
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=tries - 1)(function)
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
            with contextlib.suppress(RayError):  # The task has ended meanwhile.
                ray.cancel(reference, force=True)
        self._running.clear()


class ActorPool(_Pool[Item]):
    """A pool of Ray actors, each of which handles one item after another and so loads its models once."""

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
        """Nothing starts yet: an actor starts when an item finds no idle one.

        Args:
            actor_class: a plain class that every node must be able to import.
            arguments: of its constructor.
            method: the name of its method that handles an item's arguments.
            limit: actors that work side by side.
            tries: how often an item whose actor dies is tried.
            cpus: CPUs of an actor.
            gpus: GPUs of an actor, also a fraction.
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
        """Kill all actors, the idle ones and those that still work."""
        for actor in self._started:
            with contextlib.suppress(Exception):  # The actor has died already, or Ray with it.
                ray.kill(actor)
        self._started.clear()
        self._idle.clear()
        self._busy.clear()
