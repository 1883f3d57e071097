"""The stored teacher outputs, memory and matched starts, opened as read-only arrays."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_tune.memory import teacher_memory, teacher_outputs
from fsd_tune.memory.build import BuiltMemory
from fsd_tune.memory.teacher_memory import TeacherMemory
from fsd_tune.memory.teacher_outputs import TeacherOutputs
from fsd_tune.settings.schema import Student
from fsd_tune.storage import artifacts


@dataclass(frozen=True)
class Arrays:
    """Read-only arrays that a training run needs from the teacher.

    Attributes:
        outputs: None for a live teacher, whose outputs serve the memory alone.
        memory: None if no method uses a memory.
        starts: by the student's section, the matched start of its memory, float32 [K, D']; empty if no method uses one.
    """

    outputs: TeacherOutputs | None
    memory: TeacherMemory | None
    starts: Mapping[Student, NDArray[np.float32]]

    @property
    def nbytes(self) -> int:
        """The size of all arrays in bytes."""
        parts = [] if self.memory is None else list(vars(self.memory).values())
        parts += list(self.starts.values())
        return sum(int(part.nbytes) for part in parts) + (0 if self.outputs is None else self.outputs.nbytes)


def open_arrays(built: BuiltMemory, mapped: bool) -> Arrays:
    """Return the artefacts as arrays, after copying missing ones to this node.

    Args:
        built: the artefacts.
        mapped: map the files instead of reading them into memory.
    """
    built.bring()
    live = built.outputs is None or built.facts.live
    return Arrays(
        None if live or built.outputs is None else teacher_outputs.read_outputs(built.outputs, mapped),
        None if built.memory is None else teacher_memory.read_memory(built.memory, mapped),
        {student: artifacts.read_array(start / "start.npy", mapped) for student, start in built.starts.items()},
    )
