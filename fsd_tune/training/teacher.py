"""Fine-tuning a teacher: the plain `ce` run of distill.py on a whole pretrained model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsd_tune.data import holdout
from fsd_tune.data.batching import tokenize
from fsd_tune.data.splits import Split, Task, TaskLike, get_task
from fsd_tune.device import resolve_precision, select_device
from fsd_tune.errors import InputError
from fsd_tune.models.folder import check_output, write_model
from fsd_tune.models.loading import checked_tokenizer, describe_model, load_classifier
from fsd_tune.progress import Display
from fsd_tune.settings.schema import Wandb
from fsd_tune.tracking.login import tracking_problems
from fsd_tune.tracking.tracker import tracked
from fsd_tune.training.distiller import Distiller, TrainingSetup
from fsd_tune.training.inputs import load_splits


@dataclass(frozen=True)
class TeacherConfig:
    """What a teacher is made of.

    Attributes:
        model: the pretrained model, folder or hub id.
        task: id of the task, or the file of one's own.
        data: the folder that holds `SST-2/` and so on; None for the hub.
        output: the teacher's folder, new.
        config: the optimisation hyperparameters, complete.
        max_length: tokens of an example at most.
        freeze_embeddings: leave the word embeddings as they start.
        seed: of head, batch order and dropout.
        reports: evaluations on dev.
        device, precision: as in settings, unresolved.
        holdout: the share of the training split that a search will select on, which is left out; None leaves out
            nothing.
        wandb: where the run is tracked.
    """

    model: str
    task: TaskLike
    data: Path | None
    output: Path
    config: Mapping[str, Any]
    max_length: int
    freeze_embeddings: bool
    seed: int
    reports: int
    device: str
    precision: str
    holdout: float | None = None
    wandb: Wandb = field(default_factory=Wandb)


@dataclass(frozen=True)
class Checked:
    """A run's inputs.

    Attributes:
        task: the task.
        splits: train, without what is held out, and dev.
        tokenizer: the model's.
        left_out: what the teacher's record says of a holdout.
    """

    task: Task
    splits: dict[str, Split]
    tokenizer: Any
    left_out: dict[str, Any]


def check(run: TeacherConfig, overwrite: bool) -> Checked:
    """Load a run's data and look at its model and output.

    Raises:
        InputError: with every problem of task, data, model and output.
    """
    problems, hint = check_output(run.output, overwrite), ""
    task = splits = tokenizer = None
    left_out: dict[str, Any] = {}
    try:
        task = get_task(run.task)
        splits = load_splits(task, run.data)
        if run.holdout is not None:
            rest, held = holdout.split_holdout(splits["train"], run.holdout)
            splits, left_out = splits | {"train": rest}, holdout.holdout_record(held, run.holdout)
    except InputError as error:
        problems, hint = [*problems, *error.problems], error.hint
    problems += tracking_problems(run.wandb)
    try:
        positions = describe_model(run.model, "--model")
        tokenizer = checked_tokenizer(run.model, "--model")
        if positions is not None and run.max_length > positions:
            problems.append(f"--max-length: found {run.max_length}, but the model takes at most {positions}.")
    except InputError as error:
        problems += error.problems
    if problems or task is None or splits is None:
        raise InputError(problems, hint)
    return Checked(task, splits, tokenizer, left_out)


def fine_tune(run: TeacherConfig, overwrite: bool, display: Display) -> dict[str, Any]:
    """Train a teacher and write its folder, in which `fsd_tune.json` records its base, scores and making.

    Returns:
        What `fsd_tune.json` holds.

    Raises:
        InputError: with every problem of task, data, model and output found before training.
    """
    checked = check(run, overwrite)
    task = checked.task
    where = select_device(run.device)
    precision = resolve_precision(run.precision, where)
    data = {name: tokenize(split, checked.tokenizer, run.max_length) for name, split in checked.splits.items()}
    model = load_classifier(run.model, task, run.seed)
    if run.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    training = TrainingSetup(
        task=task,
        train=data["train"],
        dev=data["dev"],
        config={"method": "ce", **run.config},
        source=None,
        pairs=(),
        memory_layer=0,
        distance="relative",
        padding="masked",
        reports=run.reports,
        seed=run.seed,
        precision=precision,
        device=where,
    )
    distiller = Distiller(training, model, None)
    display.line(
        f"teacher: {len(data['train'])} examples, {distiller.steps_total} steps on {where.type} in {precision}, "
        f"evaluated on {len(data['dev'])}"
    )

    def step(done: int) -> None:
        display.stage("training", done, distiller.steps_total)

    reports = []
    facts = {"task": task.id, "model": run.model, "precision": precision, "seed": run.seed}
    facts |= {f"hp/{key}": value for key, value in run.config.items()}
    with tracked(run.wandb, run.output.parent, "teacher", run.output.name, facts, display.line) as followed:
        while not distiller.done:
            record = distiller.train_to_next_evaluation(step)
            reports.append(record)
            followed.log(record)
            display.line(
                f"  epoch {record['epoch']:.2f}: {task.metric} {record[task.metric]:.4f}, loss {record['loss']:.4f}"
            )
            if "diverged" in record:
                raise InputError(f"--learning-rate: training diverged ({record['diverged']}); lower it.")
    display.close()
    made = {
        "base": str(Path(run.model).expanduser().resolve()) if Path(run.model).expanduser().is_dir() else run.model,
        "task": task.id,
        "metric": task.metric,
        "score": reports[-1][task.metric],
        "reports": reports,
        "config": dict(run.config),
        "max_length": run.max_length,
        "seed": run.seed,
        "precision": precision,
        **checked.left_out,
    }
    run.output.parent.mkdir(parents=True, exist_ok=True)
    write_model(run.output, model, checked.tokenizer, made)
    return made
