"""The stored teacher outputs, memory and matched start, opened as read-only arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_tune.memory import teacher_memory as memory
from fsd_tune.memory import teacher_outputs
from fsd_tune.memory.build import BuiltMemory
from fsd_tune.memory.teacher_memory import TeacherMemory
from fsd_tune.memory.teacher_outputs import TeacherOutputs


@dataclass(frozen=True)
class Arrays:
    """The served, read-only arrays: teacher outputs, teacher memory, the student memory's matched start.

    With a live teacher the outputs stay where they are: nothing but the memory was made from them.
    """

    outputs: TeacherOutputs | None
    memory: TeacherMemory | None
    start: NDArray[np.float32] | None

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        parts = [] if self.memory is None else list(vars(self.memory).values())
        parts += [] if self.start is None else [self.start]
        return sum(int(part.nbytes) for part in parts) + (0 if self.outputs is None else self.outputs.nbytes)


def open_arrays(prepared: BuiltMemory, mapped: bool) -> Arrays:
    """The artefacts as arrays, memory-mapped or in memory, fetched to this node where they are not."""
    prepared.bring()
    live = prepared.outputs is None or prepared.facts["live"]
    return Arrays(
        None if live or prepared.outputs is None else teacher_outputs.read(prepared.outputs, mapped),
        None if prepared.memory is None else memory.read(prepared.memory, mapped),
        None if prepared.start is None else np.load(prepared.start / "start.npy"),
    )
