"""Fine-tune a teacher: a plain `ce` run on a whole pretrained model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fsd_tune.data import holdout
from fsd_tune.data.batching import TokenizedSplit, tokenize
from fsd_tune.data.splits import Split, Task, TaskLike, get_task
from fsd_tune.device import resolve_precision, select_device
from fsd_tune.errors import ProblemCollector
from fsd_tune.models.folder import check_output, write_model
from fsd_tune.models.loading import checked_tokenizer, describe_model, load_with_new_head
from fsd_tune.models.probe import usable_precision
from fsd_tune.progress import Display
from fsd_tune.settings.methods import HYPERPARAMETERS
from fsd_tune.settings.problems import as_number
from fsd_tune.settings.search_section import MAX_SEED
from fsd_tune.settings.wandb_section import Wandb
from fsd_tune.storage.files import real_path
from fsd_tune.storage.uri import local_path
from fsd_tune.tracking.login import tracking_problems
from fsd_tune.training.distiller import Distiller
from fsd_tune.training.inputs import load_train_and_dev
from fsd_tune.training.loop import SingleRun, train_to_end
from fsd_tune.training.setup import TrainingSetup


@dataclass(frozen=True)
class TeacherConfig:
    """The settings of a teacher's training.

    Attributes:
        model: the pretrained model, folder or hub id.
        task: id of the task, or the YAML file of your own task.
        data: the folder that holds `SST-2/` and so on; None for the hub.
        output: the teacher's folder, new.
        config: the optimisation hyperparameters, complete.
        max_length: the most tokens of an example.
        freeze_embeddings: do not train the word embeddings.
        seed: the seed of head, batch order and dropout.
        reports: evaluations on dev.
        device: as in settings, unresolved.
        precision: as in settings, unresolved.
        holdout: share of the training split to leave out, because a search will select on it; None leaves out nothing.
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
class TeacherInputs:
    """The loaded inputs of a teacher's training.

    Attributes:
        task: the task.
        splits: train, without the held-out rows, and dev.
        tokenizer: the model's tokenizer.
        holdout_record: what the teacher's record says about a holdout; empty without one.
    """

    task: Task
    splits: dict[str, Split]
    tokenizer: Any
    holdout_record: dict[str, Any]


def load_teacher_inputs(config: TeacherConfig, overwrite: bool) -> TeacherInputs:
    """Return the loaded data and tokenizer, after checking model and output.

    Args:
        config: the settings of the teacher's training.
        overwrite: accept an output folder that holds a model.

    Raises:
        InputError: with every problem of numbers; else with every problem of task, data, model and output.
    """
    problems = ProblemCollector(_number_problems(config))
    problems.raise_any()  # The other checks rely on the numbers.
    problems.add(*check_output(config.output, overwrite, {"--model": config.model, "--data": config.data}))
    task = splits = tokenizer = None
    holdout_record: dict[str, Any] = {}
    with problems.collect():
        task = get_task(config.task)
        splits = load_train_and_dev(task, config.data)
        if config.holdout is not None:
            training_rows, held_rows = holdout.split_holdout(splits["train"], config.holdout)
            splits |= {"train": training_rows}
            holdout_record = holdout.holdout_record(held_rows, config.holdout)
    problems.add(*tracking_problems(config.wandb))
    with problems.collect():
        positions = describe_model(config.model, "--model")
        tokenizer = checked_tokenizer(config.model, "--model")
        if positions is not None and config.max_length > positions:
            problems.add(f"--max-length: found {config.max_length}, but the model takes at most {positions}.")
    problems.raise_any()
    assert task is not None and splits is not None
    return TeacherInputs(task, splits, tokenizer, holdout_record)


def _number_problems(config: TeacherConfig) -> list[str]:
    """Return a line for each number that is out of its range; the command line has checked them already."""
    numbers = [
        (name, value, rule.kind, rule.low, rule.high, rule.low_open)
        for name, value in config.config.items()
        for rule in [HYPERPARAMETERS[name]]
    ]
    numbers += [
        ("max_length", config.max_length, int, 4, 100_000, False),
        ("seed", config.seed, int, 0, MAX_SEED, False),
    ]
    if config.holdout is not None:
        numbers.append(("holdout", config.holdout, float, 0, 0.5, True))
    problems = []
    for name, value, kind, low, high, low_open in numbers:
        try:
            as_number(value, kind, low, high, low_open)
        except ValueError as error:
            problems.append(f"--{name.replace('_', '-')}: found {value!r}, but {error}.")
    return problems


def fine_tune(config: TeacherConfig, overwrite: bool, display: Display) -> dict[str, Any]:
    """Train a teacher and write its folder, in which `fsd_tune.json` records its base, scores and configuration.

    An interrupted training is continued by the same call, from its last evaluation.

    Args:
        config: the settings of the teacher's training.
        overwrite: replace a model in the output folder.
        display: shows progress.

    Returns:
        The contents of `fsd_tune.json`.

    Raises:
        InputError: with every problem of numbers, task, data, model and output.
        FsdTuneError: training diverged.
    """
    inputs = load_teacher_inputs(config, overwrite)
    device = select_device(config.device)
    precision, notes = usable_precision(resolve_precision(config.precision, device), [config.model])
    for note in notes:
        display.line(f"note: {note}")
    train, dev = (tokenize(inputs.splits[name], inputs.tokenizer, config.max_length) for name in ("train", "dev"))
    distiller = _distiller(config, inputs.task, train, dev, device, precision)
    display.line(
        f"teacher: {len(train)} examples, {distiller.steps_total} steps on {device.type} in {precision}, "
        f"evaluated on {len(dev)}"
    )
    facts = {"task": inputs.task.id, "model": config.model, "precision": precision, "seed": config.seed}
    facts |= {f"hp/{key}": value for key, value in config.config.items()}

    def write(reports: list[dict[str, Any]]) -> dict[str, Any]:
        record = _record(config, inputs, precision, reports)
        write_model(config.output, distiller.model, inputs.tokenizer, record)
        return record

    run = SingleRun("teacher", real_path(config.output), overwrite, config.wandb, facts, ())
    return train_to_end(run, distiller, display, write)


def _distiller(
    config: TeacherConfig,
    task: Task,
    train: TokenizedSplit,
    dev: TokenizedSplit,
    device: torch.device,
    precision: str,
) -> Distiller:
    model = load_with_new_head(config.model, task, config.seed)
    if config.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    setup = TrainingSetup(
        task=task,
        train=train,
        dev=dev,
        config={"method": "ce", **config.config},
        targets=None,
        pairs=(),
        memory_layer=0,
        distance="relative",
        padding="masked",
        reports=config.reports,
        seed=config.seed,
        precision=precision,
        device=device,
    )
    return Distiller(setup, model, None)


def _record(
    config: TeacherConfig, inputs: TeacherInputs, precision: str, reports: list[dict[str, Any]]
) -> dict[str, Any]:
    model = local_path(config.model)
    return {
        "base": str(model.resolve()) if model.is_dir() else config.model,
        "task": inputs.task.id,
        "metric": inputs.task.metric,
        "score": reports[-1][inputs.task.metric],
        "reports": reports,
        "config": dict(config.config),
        "max_length": config.max_length,
        "seed": config.seed,
        "precision": precision,
        **inputs.holdout_record,
    }
