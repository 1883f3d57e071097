"""Make a `Distiller` from settings, built artefacts and one configuration; trials and single runs share it."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch

from fsd_tune.data import splits
from fsd_tune.data.batching import TokenizedSplit
from fsd_tune.data.ragged import ResidentSplit
from fsd_tune.device import compute_deterministically
from fsd_tune.memory.arrays import Arrays
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.memory.targets import CachedTeacher, LiveTeacher, ResidentTeacher, TeacherTargets
from fsd_tune.memory.teacher_memory import TeacherMemory
from fsd_tune.memory.teacher_outputs import TeacherOutputs
from fsd_tune.models.layers import global_pair
from fsd_tune.models.loading import label_order, load_classifier
from fsd_tune.models.student_init import build_student
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import USES_FEATURES, USES_MEMORY, USES_TEACHER
from fsd_tune.settings.schema import Student
from fsd_tune.settings.shapes import student_of
from fsd_tune.training.distiller import Distiller, start_memory
from fsd_tune.training.setup import TrainingSetup

# A worker keeps so many students at their start, because neighbouring trials often have the same shape.
_KEPT_STUDENTS = 3
# A task's data stay on the GPU if they fit into this share of its memory.
_RESIDENT_SHARE = 0.1


def _gpu_bytes() -> int:
    return int(torch.cuda.get_device_properties(0).total_memory)


class _Resident:
    """A task's data on the GPU, copied when a run first needs them and kept for the worker's next runs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._split: ResidentSplit | None = None
        self._targets: dict[tuple[bool, tuple[int, ...]], ResidentTeacher] = {}

    def split(self, train: TokenizedSplit) -> ResidentSplit:
        """Return the training split."""
        if self._split is None:
            self._split = ResidentSplit(train, self._device)
        return self._split

    def targets(
        self, outputs: TeacherOutputs, memory: TeacherMemory | None, layers: tuple[int, ...]
    ) -> ResidentTeacher:
        """Return the teacher's targets of a method; those of the last method make room for them."""
        key = memory is not None, layers
        if key not in self._targets:
            self._targets = {key: ResidentTeacher(outputs, memory, layers, self._device)}
        return self._targets[key]


@dataclass
class DistillerFactory:
    """A factory of `Distiller`s that a worker keeps between runs, with settings, arrays and students at their start.

    Attributes:
        settings: the settings of the search.
        spec: the task's splits and models, with device and precision resolved.
        arrays: teacher outputs and memory; None for a search of `ce` alone.
    """

    settings: Settings
    spec: MemorySpec
    arrays: Arrays | None
    _kept: dict[tuple[Student, int], Any] = field(default_factory=dict, repr=False)
    _teacher: Any = field(default=None, repr=False)
    _resident: "_Resident | None" = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.spec.bring()
        if self.settings.resources.deterministic and self.spec.device == "cuda":
            compute_deterministically()
        if self.spec.device == "cuda" and self._nbytes <= _RESIDENT_SHARE * _gpu_bytes():
            self._resident = _Resident(torch.device("cuda"))

    def keep_on_host(self) -> None:
        """Make the batches of later runs on the host, as for data that are too large for the GPU."""
        self._resident = None

    @property
    def _nbytes(self) -> int:
        """The bytes of the training split and of the teacher's arrays."""
        split = self.spec.train
        types = 0 if split.types is None else split.types.nbytes
        return split.ids.nbytes + types + split.labels.nbytes + (0 if self.arrays is None else self.arrays.nbytes)

    def distiller(self, config: dict[str, Any], reports: int, seed: int | None = None) -> Distiller:
        """Return a run at step 0, which does not depend on earlier calls.

        Args:
            config: flat: `method`, the searched keys of the student's shape, and all hyperparameters.
            reports: evaluations of the run.
            seed: of initialisation, batch order and dropout; None for the settings'.
        """
        settings = self.settings
        spec = self.spec
        method = config["method"]
        seed = settings.search.seed if seed is None else seed
        device = torch.device(spec.device)
        student = student_of(settings, config)
        model = copy.deepcopy(self._student_at_start(student, seed))
        pairs = spec.pairs[student.layers] if method in USES_FEATURES else ()
        targets = memory = None
        if method in USES_TEACHER:
            assert self.arrays is not None, "every method but ce needs the teacher's outputs"
            memory = self.arrays.memory if method in USES_MEMORY else None
            targets = self._targets(memory, tuple(sorted({t for t, _ in pairs})), device)
        setup = TrainingSetup(
            task=splits.get_task(spec.task),
            train=spec.train,
            dev=spec.dev,
            config=config,
            targets=targets,
            pairs=pairs,
            memory_layer=global_pair(settings.loss.layers, spec.teacher.layers, student.layers)[1],
            distance=settings.loss.distance,
            padding=spec.padding,
            reports=reports,
            seed=seed,
            precision=spec.precision,
            device=device,
            optimizer=settings.optimizer,
            resident=None if self._resident is None else self._resident.split(spec.train),
            batching=settings.data.batching,
        )
        return Distiller(setup, model, None if memory is None else self._memory_start(student, model, memory, seed))

    def _student_at_start(self, student: Student, seed: int) -> Any:
        """Return an untrained student, which the worker keeps together with those that it was last asked for."""
        key = student, seed
        model = self._kept.pop(key, None)
        if model is None:
            model = build_student(student, self.spec.teacher, splits.get_task(self.spec.task), seed)
        while len(self._kept) >= _KEPT_STUDENTS:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = model
        return model

    def _targets(self, memory: TeacherMemory | None, layers: tuple[int, ...], device: torch.device) -> TeacherTargets:
        """Return the stored teacher's targets, or a live teacher's if nothing is stored."""
        spec = self.spec
        assert self.arrays is not None
        if self.arrays.outputs is not None:
            if self._resident is not None:
                return self._resident.targets(self.arrays.outputs, memory, layers)
            return CachedTeacher(self.arrays.outputs, memory, layers, device)
        assert spec.live
        task = splits.get_task(spec.task)
        if self._teacher is None:
            self._teacher = load_classifier(spec.teacher.path, task).to(device).eval()
        return LiveTeacher(
            model=self._teacher,
            order=label_order(spec.teacher, task),
            memory=memory,
            layers=layers,
            memory_layer=spec.memory_layer or 0,
            padding=spec.padding,
            precision=spec.precision,
            device=device,
        )

    def _memory_start(self, student: Student, model: Any, memory: TeacherMemory, seed: int) -> torch.Tensor:
        assert self.arrays is not None
        matched = self.arrays.starts[student] if student.memory_start == "matched" else None
        return start_memory(
            None if matched is None else torch.tensor(matched),
            len(memory.sizes),
            self.spec.train.max_length * model.config.hidden_size,
            seed,
        )
