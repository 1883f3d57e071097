"""From settings, prepared artefacts and one configuration to a `Distiller`: shared by trials and single runs."""

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune import glue, memory, teacher_outputs
from fsd_tune.distill import Distiller, Run, start_memory
from fsd_tune.layers import global_pair
from fsd_tune.memory import TeacherMemory
from fsd_tune.methods import USES_FEATURES, USES_MEMORY, USES_TEACHER
from fsd_tune.models import build_student
from fsd_tune.prepare import Prepared, Spec
from fsd_tune.settings import Settings
from fsd_tune.sources import ServedTeacher
from fsd_tune.teacher_outputs import TeacherOutputs


@dataclass(frozen=True)
class Arrays:
    """The served, read-only arrays: teacher outputs, teacher memory, the student memory's matched start."""

    outputs: TeacherOutputs
    memory: TeacherMemory | None
    start: NDArray[np.float32] | None

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        parts = [] if self.memory is None else list(vars(self.memory).values())
        parts += [] if self.start is None else [self.start]
        return self.outputs.nbytes + sum(int(part.nbytes) for part in parts)


def open_arrays(prepared: Prepared, mapped: bool) -> Arrays:
    """The artefacts as arrays, memory-mapped or in memory."""
    return Arrays(
        teacher_outputs.read(prepared.outputs, mapped),
        None if prepared.memory is None else memory.read(prepared.memory, mapped),
        None if prepared.start is None else np.load(prepared.start / "start.npy"),
    )


@dataclass
class Workbench:
    """What a worker keeps between runs: settings, splits, served arrays and the student at its start.

    Attributes:
        settings: of the search.
        spec: the task's splits and models, with device and precision resolved.
        arrays: None for a search of `ce` alone.
    """

    settings: Settings
    spec: Spec
    arrays: Arrays | None
    _start: Any = field(default=None, repr=False)

    def distiller(self, config: dict[str, Any], reports: int, seed: int | None = None) -> Distiller:
        """One run at step 0; the same whether the workbench is fresh or was used before.

        Args:
            config: flat: `method`, its hyperparameters and the optimisation ones.
            reports: evaluations of the run.
            seed: of initialisation, batch order and dropout; None for the settings'.
        """
        settings, spec, method = self.settings, self.spec, config["method"]
        seed = settings.search.seed if seed is None else seed
        device = torch.device(spec.device)
        if self._start is None or self._start[0] != seed:
            self._start = (seed, build_student(spec.student, spec.teacher, glue.get_task(spec.task), seed))
        model = copy.deepcopy(self._start[1])
        pairs = spec.pairs if method in USES_FEATURES else ()
        source = held = None
        if method in USES_TEACHER:
            assert self.arrays is not None, "every method but ce needs the teacher's outputs"
            held = self.arrays.memory if method in USES_MEMORY else None
            layers = tuple(sorted({t for t, _ in pairs}))
            source = ServedTeacher(self.arrays.outputs, held, layers, device)
        run = Run(
            task=glue.get_task(spec.task),
            train=spec.train,
            dev=spec.dev,
            config=config,
            source=source,
            pairs=pairs,
            memory_layer=global_pair(settings.loss.layers, spec.teacher.layers, spec.student.layers)[1],
            distance=settings.loss.distance,
            padding=spec.padding,
            reports=reports,
            seed=seed,
            precision=spec.precision,
            device=device,
        )
        return Distiller(run, model, None if held is None else self._memory_start(model, held, seed))

    def _memory_start(self, model: Any, held: TeacherMemory, seed: int) -> torch.Tensor:
        assert self.arrays is not None
        given = self.arrays.start
        return start_memory(
            None if given is None else torch.tensor(given),
            len(held.sizes),
            self.spec.train.max_length * model.config.hidden_size,
            seed,
        )
