"""The Python calls that need no Ray: fine-tune a teacher, build a teacher memory, distil one student."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsd_tune.data.splits import TaskLike
from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import BuiltMemory, build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.models.folder import check_output, write_model
from fsd_tune.models.inference import score_on_dev
from fsd_tune.models.loading import load_tokenizer
from fsd_tune.progress import Display, short
from fsd_tune.settings import loader
from fsd_tune.settings.configuration import resolve
from fsd_tune.settings.judging import JUDGE_BY, judge
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import USES_TEACHER
from fsd_tune.settings.schema import Asha
from fsd_tune.settings.shapes import described, student_of
from fsd_tune.storage.artifacts import MODEL_RECORD, write_json
from fsd_tune.storage.files import real_path
from fsd_tune.storage.outputs import output_problems
from fsd_tune.tracking.tracker import tracked
from fsd_tune.training.factory import DistillerFactory
from fsd_tune.training.inputs import Inputs, load_inputs, shared_facts
from fsd_tune.training.loop import SingleRun, train_to_end
from fsd_tune.training.student import Student
from fsd_tune.training.teacher import TeacherConfig, fine_tune
from fsd_tune.versions import versions

__all__ = ["Student", "build_memory", "distill", "fine_tune_teacher"]

SettingsLike = Settings | Mapping[str, Any] | Path | str


def fine_tune_teacher(
    task: TaskLike,
    *,
    model: str | Path,
    output: str | Path,
    data: str | Path | None = None,
    learning_rate: float = 5e-5,
    epochs: int = 3,
    batch_size: int = 32,
    seed: int = 0,
    max_length: int = 128,
    device: str = "auto",
    holdout: float | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Fine-tune a pretrained model on a task, so that it can teach students.

    An interrupted training is continued by the same call, from its last evaluation.

    Args:
        task: id of a GLUE task such as `rte`, or the YAML file of your own task.
        model: pretrained model, a folder or a hub id.
        output: folder to write: model, tokenizer and `fsd_tune.json`.
        data: folder that holds `RTE/` and so on, or the files of your own task; None loads GLUE from the hub.
        learning_rate: peak of the linear schedule.
        epochs: passes over the training split, each followed by an evaluation on dev.
        batch_size: examples of a step.
        seed: of the new head, batch order and dropout.
        max_length: the most tokens of an example.
        device: auto, cpu or cuda.
        holdout: share of the training split to leave out, for searches that select on it (`search.select_on`).
        overwrite: replace a teacher in the output folder.
        quiet: show no progress.

    Returns:
        The contents of `fsd_tune.json`: base, task, metric, score, reports, config and more.

    Raises:
        InputError: with every problem of numbers, task, data, model and output.
        FsdTuneError: training diverged.

    Example:
        >>> import fsd_tune as fsd
        >>> record = fsd.fine_tune_teacher("rte", model="bert-base-uncased", output="teachers/rte")  # doctest: +SKIP
        >>> record["score"]  # doctest: +SKIP
        0.6679
    """
    hyperparameters = {
        "learning_rate": learning_rate,
        "epochs": epochs,
        "batch_size": batch_size,
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
        "gradient_accumulation": 1,
    }
    config = TeacherConfig(
        model=str(model),
        task=task,
        data=_path(data),
        output=Path(output),
        config=hyperparameters,
        max_length=max_length,
        freeze_embeddings=False,
        seed=seed,
        reports=epochs,
        device=device,
        precision="auto",
        holdout=holdout,
    )
    return fine_tune(config, overwrite, Display(quiet=quiet))


def build_memory(
    settings: SettingsLike,
    *,
    task: TaskLike,
    teacher: str | Path,
    memory: str | Path = "memory",
    data: str | Path | None = None,
    device: str = "auto",
    display: Display | None = None,
) -> BuiltMemory:
    """Build a task's teacher outputs and teacher memory ahead of searches; what is already built is reused.

    Args:
        settings: `Settings`, a mapping of plain values, or the path of a YAML file.
        task: id of a GLUE task, or the YAML file of your own task.
        teacher: the teacher, a folder or a hub id.
        memory: folder for teacher memories; give searches the same one.
        data: folder that holds `RTE/` and so on; None loads GLUE from the hub.
        device: auto, cpu or cuda.
        display: shows progress; None shows nothing.

    Returns:
        The folders of the artefacts, the teacher passes that were paid, the teacher's metrics, and `facts`.

    Raises:
        InputError: with every problem of settings, task, data and teacher.
        FsdTuneError: the disk is full.

    Example:
        >>> import fsd_tune as fsd
        >>> built = fsd.build_memory({"method": "fsd_ilg"}, task="rte", teacher="teachers/rte")  # doctest: +SKIP
        >>> built.facts.centroids  # doctest: +SKIP
        100
    """
    display = display or Display(quiet=True)
    settings = _settings(settings)
    if problems := output_problems(memory, "--memory"):
        raise InputError(problems)
    _, spec = _load(settings, task, str(teacher), _path(data), real_path(memory), device, display)
    built = _build(spec, display)
    facts = {"task": spec.task.id, "teacher": spec.teacher.path, "precision": spec.precision}
    with tracked(settings.wandb, spec.folder, "memory", built.facts.fingerprint, facts, display.line) as run:
        figures = built.facts.to_json() | {"passes": built.passes}
        run.summary |= {key: value for key, value in figures.items() if isinstance(value, bool | int | float | str)}
        run.summary |= {f"teacher/{name}": value for name, value in built.teacher_metrics.items()}
    return built


def distill(
    settings: SettingsLike,
    *,
    task: TaskLike,
    teacher: str | Path,
    output: str | Path | None = None,
    data: str | Path | None = None,
    memory: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    display: Display | None = None,
) -> Student:
    """Distil one student with the configuration that the settings fix.

    An interrupted training is continued by the same call, from its last evaluation, if `output` is given.

    Args:
        settings: `Settings`, a mapping of plain values, or the path of a YAML file; each hyperparameter must be one
            value.
        task: id of a GLUE task, or the YAML file of your own task.
        teacher: the teacher, a folder or a hub id.
        output: folder to write. None writes a new temporary folder, which is not deleted: `student.folder` names it.
        data: folder that holds `RTE/` and so on; None loads GLUE from the hub.
        memory: folder for teacher memories; None uses `memory` beside the output.
        device: auto, cpu or cuda.
        overwrite: replace a model in the output folder.
        display: shows progress; None shows nothing.

    Returns:
        The student: folder, metrics, score, config, reports; `load()` gives model and tokenizer.

    Raises:
        InputError: with every problem found before training, such as a hyperparameter that is still searched.
        FsdTuneError: training diverged.

    Example:
        >>> import fsd_tune as fsd
        >>> student = fsd.distill({"method": "kd"}, task="rte", teacher="teachers/rte")  # doctest: +SKIP
        >>> model, tokenizer = student.load()  # doctest: +SKIP
    """
    display = display or Display(quiet=True)
    settings = _settings(settings)
    folder = Path(tempfile.mkdtemp(prefix="fsd_tune-")) / "student" if output is None else Path(output)
    memory_folder = real_path(folder).parent / "memory" if memory is None else Path(memory)
    places = {"--teacher": teacher, "--data": data, "student.model": settings.student.model}
    problems = ProblemCollector(
        check_output(folder, overwrite, places | {"--memory": memory_folder})
        or output_problems(memory_folder, "--memory")
    )
    with problems.collect():
        config = resolve(settings)
    with problems.collect():
        inputs, spec = _load(settings, task, str(teacher), _path(data), memory_folder, device, display)
    problems.raise_any()
    built = _build(spec, display) if config["method"] in USES_TEACHER else None
    return _distill(settings, config, inputs, spec, built, str(teacher), folder, overwrite, display)


def _settings(settings: SettingsLike) -> Settings:
    if isinstance(settings, Settings):
        return settings
    return Settings.from_dict(settings) if isinstance(settings, Mapping) else loader.load(settings)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _load(
    settings: Settings, task: TaskLike, teacher: str, data: Path | None, memory: Path, device: str, display: Display
) -> tuple[Inputs, MemorySpec]:
    """Check and load the inputs, and show what a user should know about them."""
    inputs = load_inputs(settings, task, teacher, data)
    spec = MemorySpec.from_inputs(settings, inputs, memory, device)
    for note in (*inputs.notes, *spec.notes):
        display.line(f"note: {note}")
    return inputs, spec


def _build(spec: MemorySpec, display: Display) -> BuiltMemory:
    built = build_artifacts(spec, display.stage)
    display.close()
    return built


def _distill(
    settings: Settings,
    config: dict[str, Any],
    inputs: Inputs,
    spec: MemorySpec,
    built: BuiltMemory | None,
    teacher: str,
    output: Path,
    overwrite: bool,
    display: Display,
) -> Student:
    """Train the student of checked inputs and write its folder."""
    arrays = None if built is None else open_arrays(built, mapped=True)
    teacher_score = None if built is None else built.teacher_metrics[inputs.task.metric]
    distiller = DistillerFactory(settings, spec, arrays).distiller(config, (settings.asha or Asha()).reports)
    display.line(f"distil: {short(config)}, {distiller.steps_total} steps on {spec.device} in {spec.precision}")

    def score(reports: list[dict[str, Any]]) -> float:
        return judge([report[inputs.task.metric] for report in reports], JUDGE_BY)

    def summarise(reports: list[dict[str, Any]]) -> dict[str, Any]:
        return {"score": score(reports), "teacher/score": teacher_score, "state": "finished"}

    def write(reports: list[dict[str, Any]]) -> dict[str, Any]:
        origin = {"name": teacher, "score": teacher_score}
        record = _record(settings, config, inputs, spec, score(reports), origin) | {"reports": reports}
        write_model(output, distiller.model, load_tokenizer(teacher), record)
        if inputs.final is not None:
            # Training was judged on the holdout, so dev was not used for selection.
            record["dev"] = score_on_dev(output, inputs.task, inputs.final, spec.precision, spec.device)
            write_json(output / MODEL_RECORD, record)
        return record

    facts = {"precision": spec.precision, "seed": settings.search.seed, "teacher/score": teacher_score}
    facts |= shared_facts(settings, spec, inputs.task.metric)
    facts |= {f"hp/{key}": value for key, value in config.items()}
    depends_on = () if built is None else (built.facts.fingerprint,)
    run = SingleRun("distill", real_path(output), overwrite, settings.wandb, facts, depends_on)
    record = train_to_end(run, distiller, display, write, summarise)
    return Student(output, {name: record["reports"][-1][name] for name in inputs.task.metrics}, record)


def _record(
    settings: Settings,
    config: dict[str, Any],
    inputs: Inputs,
    spec: MemorySpec,
    score: float,
    teacher: dict[str, Any],
) -> dict[str, Any]:
    """Return the contents of `fsd_tune.json` without the reports."""
    return {
        "task": inputs.task.id,
        "metric": inputs.task.metric,
        "score": score,
        "teacher": teacher,
        "config": config,
        "seed": settings.search.seed,
        "max_length": settings.data.max_length,
        "precision": spec.precision,
        "examples": len(inputs.dev),
        "train_examples": len(inputs.train),
        "select_on": settings.search.model_dump(mode="json")["select_on"],
        "judge_by": JUDGE_BY,
        "student": described(student_of(settings, config)),
        "versions": versions(),
    }
