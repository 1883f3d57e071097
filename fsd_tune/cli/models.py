"""The verbs for single models: teacher, memory, distill, evaluate."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from fsd_tune.cli.app import verb
from fsd_tune.cli.options import (
    Address,
    AsJson,
    DataFolder,
    Device,
    MemoryFolder,
    OptionalSpace,
    Output,
    Overrides,
    Overwrite,
    Quiet,
    Space,
    TaskName,
    Teacher,
    TemporaryFolder,
    at_first_sight,
    checked_settings,
    folder_or_new,
    numbers,
    one_of,
    run_folder,
    show,
)
from fsd_tune.errors import InputError
from fsd_tune.models.local_checks import model_problems
from fsd_tune.progress import Display
from fsd_tune.settings.overrides import read_configuration_file


@verb()
def teacher(
    *,
    model: Annotated[str, typer.Option("--model", help="pretrained model: folder or hub id")],
    task: TaskName,
    output: Output,
    data: DataFolder = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-12, max=1.0, help="peak of the linear schedule; default 5e-5")
    ] = None,
    learning_rates: Annotated[
        str | None, typer.Option("--learning-rates", help="several with commas: all are trained, the best on dev kept")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="passes over the training split")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="examples of a step")] = 32,
    warmup_ratio: Annotated[float, typer.Option(min=0.0, max=1.0, help="share of the steps that warm up")] = 0.0,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="AdamW's")] = 0.0,
    max_length: Annotated[int, typer.Option(min=4, help="tokens of an example")] = 128,
    freeze_embeddings: Annotated[bool, typer.Option("--freeze-embeddings", help="keep word embeddings")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="of head, batch order and dropout; default 0")] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="several with commas, each with every learning rate")
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option("--holdout", min=1e-9, max=0.5, help="share of the training split that a search is to select on"),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, float32 or bf16")] = "auto",
    wandb: Annotated[str, typer.Option("--wandb", help="Weights & Biases: off, offline or online")] = "off",
    wandb_project: Annotated[str, typer.Option("--wandb-project", help="project that the run goes to")] = "fsd_tune",
    wandb_entity: Annotated[str | None, typer.Option("--wandb-entity", help="user or team")] = None,
    wandb_tags: Annotated[str, typer.Option("--wandb-tags", help="tags, with commas between them")] = "",
    device: Device = "auto",
    cpus_per_trial: Annotated[
        float | None, typer.Option(min=1e-3, help="CPUs of each of several teachers; default 1")
    ] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(min=0.0, help="GPUs of each of several teachers; default 1 where there is one")
    ] = None,
    address: Address = None,
    temp_dir: TemporaryFolder = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a teacher on a task, or several side by side on Ray, of which the best on dev is kept."""
    one_of("--precision", precision, ("auto", "float32", "bf16"))
    one_of("--device", device, ("auto", "cpu", "cuda"))
    one_of("--wandb", wandb, ("off", "offline", "online"))
    several = learning_rates is not None or seeds is not None
    problems: list[str] = []
    rates = numbers("learning_rate", learning_rate, learning_rates, 5e-5, problems)
    chosen_seeds = numbers("seed", seed, seeds, 0, problems)
    for flag, value in (
        ("--cpus-per-trial", cpus_per_trial), ("--gpus-per-trial", gpus_per_trial), ("--address", address),
        ("--temp-dir", temp_dir),
    ):  # fmt: skip
        if value is not None and not several:
            problems.append(f"{flag}: is for several teachers, given by --learning-rates or --seeds.")
    if device == "cuda" and gpus_per_trial == 0:
        problems.append("--gpus-per-trial: found 0, but must be above 0 with --device cuda.")
    if problems:
        raise InputError([*problems, *at_first_sight([task], data), *model_problems(model, "--model")])
    from fsd_tune.settings.schema import Wandb
    from fsd_tune.training.teacher import TeacherConfig, fine_tune

    config = {
        "learning_rate": rates[0],
        "epochs": epochs,
        "batch_size": batch_size,
        "warmup_ratio": warmup_ratio,
        "weight_decay": weight_decay,
        "gradient_accumulation": 1,
    }
    tags = tuple(filter(None, wandb_tags.split(",")))
    tracked = {"mode": wandb, "project": wandb_project, "entity": wandb_entity, "tags": tags}
    run = TeacherConfig(
        model,
        task,
        data,
        output,
        config,
        max_length,
        freeze_embeddings,
        chosen_seeds[0],
        epochs,
        device,
        precision,
        holdout,
        Wandb.model_validate(tracked),
    )
    with closing(Display(quiet)) as display:
        if several:
            from fsd_tune.training import teacher_grid

            made = teacher_grid.train(
                run, rates, chosen_seeds, cpus=cpus_per_trial or 1, gpus=gpus_per_trial, overwrite=overwrite,
                address=address, ray_temporary=temp_dir, display=display,
            )  # fmt: skip
        else:
            made = fine_tune(run, overwrite, display)
    table = teacher_grid.lines(made) if several else []
    show(made, as_json, [*table, f"teacher: {made['metric']} {made['score']:.4f} on dev, in {output}"])


@verb(settings_flags=True)
def memory(
    overrides: Overrides,
    *,
    space: Space,
    task: TaskName,
    teacher: Teacher,
    data: DataFolder = None,
    memory: Annotated[Path, typer.Option("--memory", help="folder for teacher memories")] = Path("memory"),
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Build a task's teacher outputs and memory ahead of a search, or find them built."""
    one_of("--device", device, ("auto", "cpu", "cuda"))
    folder_or_new("--memory", memory)
    settings = checked_settings(space, overrides, [task], [teacher], data)
    from fsd_tune.training.api import build_memory

    with closing(Display(quiet)) as display:
        built = build_memory(
            settings, task=task, teacher=teacher, memory=memory, data=data, device=device, display=display
        )
    how = "built with one teacher pass" if built.passes else "reused, no teacher pass"
    facts = built.facts.to_json() | {"passes": built.passes, "teacher": built.teacher_metrics, "folder": str(memory)}
    show(facts, as_json, [f"teacher memory {facts['fingerprint']}: {how}, in {memory}"])


@verb(settings_flags=True)
def distill(
    overrides: Overrides,
    *,
    space: OptionalSpace = None,
    task: TaskName,
    teacher: Teacher,
    output: Annotated[
        Path, typer.Option("--output", help="folder to write; {run} in it is the id of the W&B sweep's run")
    ],
    data: DataFolder = None,
    memory: MemoryFolder = None,
    configuration: Annotated[
        Path | None, typer.Option("--configuration", help="JSON or YAML of hyperparameters, as agents of W&B write it")
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Distil one student; every hyperparameter is fixed by the YAML, a flag or --configuration."""
    one_of("--device", device, ("auto", "cpu", "cuda"))
    folder_or_new("--memory", memory)
    output = run_folder(output)
    held = {} if configuration is None else read_configuration_file(configuration)
    given = overrides() | held
    places = {key: f"{configuration}: {key.removeprefix('space.')}" for key in held}
    settings = checked_settings(space, lambda: given, [task], [teacher], data, places)
    from fsd_tune.training import api as single

    with closing(Display(quiet)) as display:
        made = single.distill(
            settings, task=task, teacher=teacher, data=data, output=output, memory=memory, device=device,
            overwrite=overwrite, display=display,
        ).record  # fmt: skip
    score = made["teacher"]["score"]
    beside = "" if score is None else f" (teacher {score:.4f})"
    lines = [f"student: {made['metric']} {made['score']:.4f}{beside}, in {output}"]
    if "dev" in made:
        lines.append(f"on dev, which selected nothing: {made['metric']} {made['dev']['score']:.4f}")
    show(made, as_json, lines)


@verb()
def evaluate(
    *,
    student: Annotated[str, typer.Option("--student", help="student's (or teacher's) folder or hub id")],
    task: TaskName,
    data: DataFolder = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, float32 or bf16; default: what the folder records, else float32")
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score a student on the task's dev splits."""
    if precision is not None:
        one_of("--precision", precision, ("auto", "float32", "bf16"))
    one_of("--device", device, ("auto", "cpu", "cuda"))

    from fsd_tune.evaluation import scoring

    with closing(Display(quiet)) as display:
        found = scoring.evaluate(student, task, data, device, precision, display)
    lines = [
        f"{split} ({found['examples'][split]} examples, {found['precision']}): "
        + ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        for split, scores in found["splits"].items()
    ]
    show(found, as_json, lines)
