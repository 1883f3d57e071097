"""The verbs that need no Ray: build a memory, distil one student, evaluate one."""

from pathlib import Path
from typing import Any

from fsd_tune.data import splits
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import BuiltMemory, prepare
from fsd_tune.memory.spec import MemorySpec, spec_for
from fsd_tune.models.folder import check_output, write_model
from fsd_tune.models.inference import score_on_dev
from fsd_tune.models.loading import load_tokenizer
from fsd_tune.progress import Display, short
from fsd_tune.settings.configuration import resolve
from fsd_tune.settings.judging import judge
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import USES_TEACHER
from fsd_tune.storage import artifacts
from fsd_tune.storage.artifacts import write_json
from fsd_tune.tracking.tracker import tracked
from fsd_tune.training.factory import DistillerFactory
from fsd_tune.training.inputs import Inputs, load_inputs, shared_facts
from fsd_tune.versions import versions

_DEFAULT_REPORTS = 10


def gathered(
    settings: Settings,
    task: splits.TaskLike,
    teacher: str,
    data: Path | None,
    memory: Path,
    device: str,
    display: Display,
) -> tuple[Inputs, MemorySpec]:
    """Inputs checked and loaded, and the artefacts that they need; notes are shown."""
    inputs = load_inputs(settings, task, teacher, data)
    spec, notes = spec_for(settings, inputs.teacher, inputs.task, inputs.train, inputs.dev, memory, device)
    for note in (*inputs.notes, *notes):
        display.line(f"note: {note}")
    return inputs, spec


def build_memory(spec: MemorySpec, display: Display) -> BuiltMemory:
    """Teacher outputs and memory in `spec.folder`: built, or found.

    Raises:
        FsdTuneError: no space left.
    """
    prepared = prepare(spec, display.stage)
    display.close()
    return prepared


def track_memory(settings: Settings, spec: MemorySpec, prepared: BuiltMemory, display: Display) -> None:
    """The figures of a memory as a run of Weights & Biases."""
    facts = {"task": spec.task.id, "teacher": spec.teacher.path, "precision": spec.precision}
    fingerprint = str(prepared.facts["fingerprint"])
    with tracked(settings.wandb, spec.folder, "memory", fingerprint, facts, display.line) as run:
        figures = {key: value for key, value in prepared.facts.items() if isinstance(value, bool | int | float | str)}
        run.summary |= figures
        run.summary |= {"passes": prepared.passes} | {f"teacher/{k}": v for k, v in prepared.teacher_metrics.items()}


def distill(
    settings: Settings,
    *,
    task: splits.TaskLike,
    teacher: str,
    data: Path | None,
    output: Path,
    memory: Path | None,
    device: str,
    overwrite: bool,
    display: Display,
) -> dict[str, Any]:
    """Distil one student with the configuration that the settings fix; the student's folder is `output`.

    Returns:
        What `fsd_tune.json` in it holds: score, reports, configuration.

    Raises:
        InputError: with every problem found before training; a hyperparameter that is still searched.
        FsdTuneError: training diverged.
    """
    problems, hint = check_output(output, overwrite), ""
    try:
        config = resolve(settings)
    except InputError as error:
        problems += error.problems
    try:
        inputs, spec = gathered(settings, task, teacher, data, memory or output.parent / "memory", device, display)
    except InputError as error:
        problems += error.problems
        hint = error.hint
    if problems:
        raise InputError(problems, hint)
    arrays, teacher_score = None, None
    if config["method"] in USES_TEACHER:
        prepared = build_memory(spec, display)
        arrays = open_arrays(prepared, mapped=True)
        teacher_score = prepared.teacher_metrics[inputs.task.metric]
    reports = settings.asha.reports if settings.asha else _DEFAULT_REPORTS
    distiller = DistillerFactory(settings, spec, arrays).distiller(config, reports)
    display.line(f"distil: {short(config)}, {distiller.steps_total} steps on {spec.device} in {spec.precision}")

    def step(done: int) -> None:
        display.stage("training", done, distiller.steps_total)

    rows = []
    facts = {"precision": spec.precision, "seed": settings.search.seed, "teacher/score": teacher_score}
    facts |= shared_facts(settings, spec, inputs.task.metric)
    facts |= {f"hp/{key}": value for key, value in config.items()}
    with tracked(settings.wandb, output.parent, "distill", output.name, facts, display.line) as run:
        while not distiller.done:
            rows.append(distiller.train_to_next_evaluation(step))
            last = rows[-1]
            run.log(last)
            # Fewer steps than reports: some reports have no step of their own, hence no loss.
            loss = f", loss {last['loss']:.4f}" if "loss" in last else ""
            display.line(f"  epoch {last['epoch']:.2f}: {inputs.task.metric} {last[inputs.task.metric]:.4f}{loss}")
            if "diverged" in last:
                raise FsdTuneError(f"Training diverged: {last['diverged']}.", hint="Lower --learning-rate.")
        score = judge([row[inputs.task.metric] for row in rows], settings.search.judge_by)
        run.summary |= {"score": score, "teacher/score": teacher_score, "state": "finished"}
    display.close()
    made = {
        "task": inputs.task.id,
        "metric": inputs.task.metric,
        "score": score,
        "teacher": {"name": teacher, "score": teacher_score},
        "config": config,
        "seed": settings.search.seed,
        "max_length": settings.data.max_length,
        "precision": spec.precision,
        "examples": len(inputs.dev),
        "train_examples": len(inputs.train),
        "select_on": settings.search.model_dump(mode="json")["select_on"],
        "judge_by": settings.search.judge_by,
        "student": {"layers": settings.student.layers, "start": settings.student.start},
        "versions": versions(),
        "reports": rows,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_model(output, distiller.model, load_tokenizer(teacher), made)
    if inputs.final is not None:
        # Judged on the holdout: dev has chosen nothing.
        figure = score_on_dev(output, inputs.task, inputs.final, spec.precision, spec.device)
        made |= {"select_on": settings.search.model_dump(mode="json")["select_on"], "dev": figure}
        write_json(output / artifacts.MODEL_RECORD, made)
    return made
