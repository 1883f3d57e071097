"""The verbs that train models and build memories: teacher, memory and distill."""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from fsd_tune.cli import options
from fsd_tune.cli.app import INPUTS, RUNNING, TRAIN, TRAINING, WANDB, Decorator, option, verb
from fsd_tune.cli.errors import Invocation
from fsd_tune.cli.values import check_outputs, checked_settings, local_problems, numbers, run_folder, show_result
from fsd_tune.errors import ProblemCollector
from fsd_tune.models.local_checks import model_problems
from fsd_tune.progress import Display
from fsd_tune.settings.loader import load_section
from fsd_tune.settings.methods import HYPERPARAMETERS
from fsd_tune.settings.overrides import flag_of, read_configuration_file
from fsd_tune.settings.wandb_section import Wandb


def _number(name: str) -> options.Number:
    """Return the type of a flag that accepts what a hyperparameter accepts."""
    hyperparameter = HYPERPARAMETERS[name]
    return options.Number(hyperparameter.kind, hyperparameter.low, hyperparameter.high)


# Each row: flag, type, default, help.
_TRAINING_FLAGS: tuple[tuple[str, Any, Any, str], ...] = (
    ("--learning-rate", options.Number(float, 1e-12, 1), None, "Peak of the linear schedule; default: 5e-5."),
    (
        "--learning-rates",
        str,
        None,
        "Several, separated by commas: a teacher is trained with each, and the best on dev is kept.",
    ),
    ("--epochs", _number("epochs"), 3, "Passes over the training split."),
    ("--batch-size", _number("batch_size"), 32, "Number of examples per step."),
    ("--warmup-ratio", _number("warmup_ratio"), 0.0, "Share of the steps with a growing learning rate."),
    ("--weight-decay", _number("weight_decay"), 0.0, "Weight decay of AdamW."),
    ("--max-length", options.Number(int, 4, 100_000), 128, "Largest number of tokens of an example."),
    ("--seed", options.SEEDS, None, "Seed of head, batch order and dropout; default: 0."),
    ("--seeds", str, None, "Several, separated by commas; each is combined with every learning rate."),
    (
        "--holdout",
        options.Number(float, 1e-9, 0.5),
        None,
        "Share of the training split to leave out for a search to select on.",
    ),
    ("--precision", options.PRECISIONS, "auto", "Number format of the training; auto: bf16 where it runs natively."),
)
_WANDB_FLAGS: tuple[tuple[str, Any, Any, str], ...] = (
    ("--wandb", options.OneOf("off", "offline", "online"), "off", "Whether to log to Weights & Biases."),
    ("--wandb-project", str, "fsd_tune", "Project that the run belongs to."),
    ("--wandb-entity", str, None, "User or team."),
    ("--wandb-tags", str, None, "Tags, separated by commas."),
)
_GRID_FLAGS: tuple[tuple[str, Any, Any, str], ...] = (
    ("--cpus-per-trial", options.Number(float, 1e-3, 10_000), None, "CPUs of each of several teachers; default: 1."),
    (
        "--gpus-per-trial",
        options.Number(float, 0, 1024),
        None,
        "GPUs of each of several teachers; default: 1 if there is one.",
    ),
)
_OPTIMISATION = ("epochs", "batch_size", "warmup_ratio", "weight_decay")


def _flags(panel: str, rows: tuple[tuple[str, Any, Any, str], ...]) -> Decorator:
    """Return a decorator that adds a table of flags to a verb."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for flag, kind, default, text in reversed(rows):
            function = option(flag, panel=panel, type=kind, default=default, help=text)(function)
        return function

    return add


@verb(TRAIN, single_run=True)
@option("--model", panel=INPUTS, required=True, help="Pretrained model: folder or hub id.")
@options.task
@options.output
@options.data
@_flags(TRAINING, _TRAINING_FLAGS)
@option("--freeze-embeddings", panel=TRAINING, is_flag=True, help="Do not train the word embeddings.")
@_flags(WANDB, _WANDB_FLAGS)
@options.device
@_flags(RUNNING, _GRID_FLAGS)
@options.address
@options.temp_dir
@options.overwrite
@options.quiet
@options.as_json
@click.pass_obj
def teacher(invocation: Invocation, /, *, overwrite: bool, quiet: bool, as_json: bool, **flags: Any) -> None:
    """Fine-tune a teacher, or the best of several, on a task.

    Several (--learning-rates, --seeds) are trained side by side on Ray, and the best on dev is kept.
    """
    several = flags["learning_rates"] is not None or flags["seeds"] is not None
    # A run over several teachers keeps each finished one.
    invocation.keeps_progress = several
    rates, seeds, wandb = _rates_seeds_and_wandb(flags, several)
    from fsd_tune.training.teacher import TeacherConfig, fine_tune

    config = TeacherConfig(
        **{name: flags[name] for name in ("model", "task", "data", "output", "max_length", "freeze_embeddings")},
        **{name: flags[name] for name in ("device", "precision", "holdout")},
        config={name: flags[name] for name in _OPTIMISATION} | {"learning_rate": rates[0], "gradient_accumulation": 1},
        seed=seeds[0],
        reports=flags["epochs"],
        wandb=wandb,
    )
    with closing(Display(quiet)) as display:
        if several:
            from fsd_tune.training import teacher_grid

            record = teacher_grid.train(
                config,
                rates,
                seeds,
                cpus=flags["cpus_per_trial"] or 1,
                gpus=flags["gpus_per_trial"],
                overwrite=overwrite,
                address=flags["address"],
                ray_temporary=flags["temp_dir"],
                display=display,
            )
            table = teacher_grid.grid_lines(record)
        else:
            record = fine_tune(config, overwrite, display)
            table = []
    show_result(
        record, as_json, [*table, f"teacher: {record['metric']} {record['score']:.4f} on dev, in {config.output}"]
    )


def _rates_seeds_and_wandb(flags: Mapping[str, Any], several: bool) -> tuple[list[float], list[int], Wandb]:
    """Return the learning rates and seeds of the teachers, and the settings of Weights & Biases.

    Raises:
        InputError: flags are wrong or contradict each other. Problems of the model and data are added.
    """
    problems = ProblemCollector()
    rates = numbers("learning_rate", flags["learning_rate"], flags["learning_rates"], 5e-5, problems)
    seeds = numbers("seed", flags["seed"], flags["seeds"], 0, problems)
    for name in ("cpus_per_trial", "gpus_per_trial", "address", "temp_dir"):
        if flags[name] is not None and not several:
            flag = f"--{name.replace('_', '-')}"
            problems.add(f"{flag}: is for several teachers, given by --learning-rates or --seeds.")
    if flags["device"] == "cuda" and flags["gpus_per_trial"] == 0:
        problems.add("--gpus-per-trial: found 0, but must be above 0 with --device cuda.")
    tracking = {
        "mode": flags["wandb"],
        "project": flags["wandb_project"],
        "entity": flags["wandb_entity"],
        "tags": tuple(filter(None, (flags["wandb_tags"] or "").split(","))),
    }
    wandb = None
    with problems.collect():
        wandb = load_section("wandb", tracking, {key: flag_of(f"wandb.{key}") for key in tracking})
    if problems.lines:
        problems.add(*local_problems([flags["task"]], flags["data"]), *model_problems(flags["model"], "--model"))
    problems.raise_any()
    assert wandb is not None
    return rates, seeds, wandb


@verb(TRAIN, settings=True)
@options.space
@options.task
@options.teacher
@options.data
@options.folder_flag("--memory", "Folder for teacher memories.", default=Path("memory"))
@options.device
@options.quiet
@options.as_json
@click.pass_obj
def memory(
    invocation: Invocation,
    *,
    space: Path,
    task: str | Path,
    teacher: str,
    data: Path | None,
    memory: Path,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build a task's teacher outputs and memory ahead of a search.

    If the folder already has them, they are reused.
    """
    check_outputs({"--memory": memory})
    settings = checked_settings(space, invocation, [task], [teacher], data)
    from fsd_tune.training.api import build_memory

    with closing(Display(quiet)) as display:
        result = build_memory(
            settings, task=task, teacher=teacher, memory=memory, data=data, device=device, display=display
        )
    origin = "built with one teacher pass" if result.passes else "reused, no teacher pass"
    facts = result.facts.to_json() | {"passes": result.passes, "teacher": result.teacher_metrics, "folder": str(memory)}
    show_result(facts, as_json, [f"teacher memory {facts['fingerprint']}: {origin}, in {memory}"])


@verb(TRAIN, settings=True, single_run=True)
@options.optional_space
@options.task
@options.teacher
@options.folder_flag("--output", "Folder to write; {run} in it stands for the id of a W&B sweep's run.", required=True)
@options.data
@options.memory
@option(
    "--configuration",
    panel=INPUTS,
    type=Path,
    metavar="FILE",
    help="JSON or YAML with hyperparameters, as W&B agents write it.",
)
@options.device
@options.overwrite
@options.quiet
@options.as_json
@click.pass_obj
def distill(
    invocation: Invocation,
    *,
    space: Path | None,
    task: str | Path,
    teacher: str,
    output: Path,
    data: Path | None,
    memory: Path | None,
    configuration: Path | None,
    device: str,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Distil one student with fixed hyperparameters.

    The YAML, a flag or --configuration must fix each of them.
    """
    output = run_folder(output)
    check_outputs({"--memory": memory})
    configuration_values = {} if configuration is None else read_configuration_file(configuration)
    value_names = {key: f"{configuration}: {key.rpartition('.')[2]}" for key in configuration_values}
    overrides = invocation.overrides() | configuration_values
    settings = checked_settings(space, overrides, [task], [teacher], data, value_names)
    from fsd_tune.training import api as training

    with closing(Display(quiet)) as display:
        result = training.distill(
            settings,
            task=task,
            teacher=teacher,
            data=data,
            output=output,
            memory=memory,
            device=device,
            overwrite=overwrite,
            display=display,
        ).record
    score = result["teacher"]["score"]
    teacher_text = "" if score is None else f" (teacher {score:.4f})"
    lines = [f"student: {result['metric']} {result['score']:.4f}{teacher_text}, in {output}"]
    if "dev" in result:
        lines.append(f"on dev, which selected nothing: {result['metric']} {result['dev']['score']:.4f}")
    show_result(result, as_json, lines)
