"""The verbs around Weights & Biases: sync, sweep-config."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fsd_tune.cli.app import verb
from fsd_tune.cli.options import (
    AsJson,
    DataFolder,
    MemoryFolder,
    Overrides,
    Space,
    TaskName,
    Teacher,
    checked_settings,
    file_or_new,
    folder_or_new,
    show,
)
from fsd_tune.errors import InputError


@verb()
def sync(
    *,
    folder: Annotated[Path, typer.Argument(help="a search's folder, or any that holds wandb/")],
    as_json: AsJson = False,
) -> None:
    """Upload a search's offline Weights & Biases runs, and its confirmation's."""
    from fsd_tune.tracking.sync import sync as upload

    made = upload(folder)
    show(made, as_json, [f"{made['runs']} runs uploaded, {made['already']} had been before"])


@verb(settings_flags=True)
def sweep_config(
    overrides: Overrides,
    *,
    space: Space,
    task: TaskName,
    teacher: Teacher,
    data: DataFolder = None,
    memory: MemoryFolder = None,
    output: Annotated[Path, typer.Option("--output", help="folder for the runs of the sweep")] = Path("sweep"),
    file: Annotated[Path | None, typer.Option("--file", help="where to write; default: standard output")] = None,
) -> None:
    """Write the W&B sweep of a space, whose agents run `distill`, to compare theirs with a search."""
    folder_or_new("--memory", memory)
    folder_or_new("--output", output)
    file_or_new("--file", file)
    settings = checked_settings(space, overrides, [task], [teacher], data)
    given = overrides()
    from fsd_tune.data import splits
    from fsd_tune.models.local_checks import model_problems

    problems = model_problems(teacher, "--teacher")
    if "{run}" in str(output):
        problems.append(f"--output: found {output}, but each run's own folder is made below it without {{run}}.")
    if problems:
        raise InputError(problems)
    found = splits.get_task(task)
    splits.load(found, ("train", "dev") if splits.is_here(found, data) else (), data)
    from fsd_tune.storage import artifacts
    from fsd_tune.tracking import sweep

    made = sweep.sweep_config(
        settings, space=space, task=task, teacher=teacher, data=data, memory=memory, output=output, overrides=given
    )
    if file is None:
        print(sweep.text(made), end="")
    else:
        artifacts.write_text(file, sweep.text(made))
        print(f"sweep: {file}; start it with `wandb sweep {file}`", file=sys.stderr)
