"""The settings of the paper's runs: of each system's search, of the teachers, and their small form for a laptop."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.paper.facts import SYSTEMS, range_overrides, teacher_rate
from fsd_tune.settings import loader
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.shipped import shipped_space
from fsd_tune.training.teacher import TeacherConfig

# The share of the training split that selects in place of dev.
HOLDOUT = 0.1
# `--small`: for a MiniLM of six layers on two CPU cores. The paper's learning rates are too small for so few steps.
_SMALL: dict[str, Any] = {
    "space.learning_rate": {"choice": [1e-4, 2e-4, 3e-4]},
    "space.batch_size": 16,
    "space.epochs": 2,
    "student.layers": 3,
    "student.freeze_embeddings": True,
    "data.max_length": 64,
    "data.train_limit": 600,
    "memory.centroids": 50,
    "search.trials": 4,
    # One evaluation, at the end.
    "asha": {"reports": 1},
}
_SMALL_TEACHER = {"learning_rate": 1e-4, "epochs": 2, "batch_size": 16, "warmup_ratio": 0.1}


@dataclass(frozen=True)
class PaperRun:
    """What the user asked for.

    Attributes:
        task: id of a GLUE task.
        output: the folder of all tasks; this task's is below it.
        data: the folder that holds `RTE/` and so on; None for the hub.
        teacher: fine-tuned teacher, folder or hub id; None to fine-tune `model`.
        model: pretrained model of students, and of the teachers to fine-tune; None for the base of `teacher`.
        systems: keys of `facts.SYSTEMS`.
        trials: of each search; None for those of the space.
        small: shrink models, data and searches for a laptop.
        device: auto, cpu or cuda.
        address: the address of a Ray cluster; None for a local instance.
        ray_temporary: Ray's folder for sockets and logs; None for Ray's own.
    """

    task: str
    output: Path
    data: Path | None = None
    teacher: str | None = None
    model: str | None = None
    systems: Sequence[str] = tuple(SYSTEMS)
    trials: int | None = None
    small: bool = False
    device: str = "auto"
    address: str | None = None
    ray_temporary: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder of the task."""
        return self.output / self.task


def search_settings(run: PaperRun, system: str, held_out: bool) -> Settings:
    """Return the settings of a system's search.

    Args:
        run: what the user asked for.
        system: a key of `facts.SYSTEMS`.
        held_out: select on a holdout of the training split instead of dev.
    """
    overrides = range_overrides(system, run.task) | (_SMALL if run.small else {})
    if run.trials is not None:
        overrides["search.trials"] = run.trials
    if run.teacher is not None and run.model is not None:
        overrides["student.model"] = run.model
    if held_out:
        overrides["search.select_on"] = {"holdout": HOLDOUT}
    return loader.load(shipped_space(f"paper/{system}"), overrides)


def teacher_config(run: PaperRun, model: str, held_out: bool) -> TeacherConfig:
    """Return the settings of a teacher's training (section 4.2).

    Args:
        run: what the user asked for.
        model: the pretrained model.
        held_out: leave out the rows that a search selects on.
    """
    published = {"learning_rate": teacher_rate(run.task), "epochs": 3, "batch_size": 32, "warmup_ratio": 0.0}
    chosen = _SMALL_TEACHER if run.small else published
    return TeacherConfig(
        model=model,
        task=run.task,
        data=run.data,
        output=run.folder / ("teacher-holdout" if held_out else "teacher"),
        config=chosen | {"weight_decay": 0.0, "gradient_accumulation": 1},
        max_length=_SMALL["data.max_length"] if run.small else 128,
        freeze_embeddings=run.small,
        seed=0,
        reports=int(chosen["epochs"]),
        device=run.device,
        precision="float32",
        holdout=HOLDOUT if held_out else None,
    )
