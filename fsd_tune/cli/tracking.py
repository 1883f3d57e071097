"""The verbs for Weights & Biases: sync and sweep-config."""

import sys
from pathlib import Path

import click

from fsd_tune.cli import options
from fsd_tune.cli.app import PUBLISH, SEARCH, argument, verb
from fsd_tune.cli.errors import Invocation
from fsd_tune.cli.values import check_outputs, checked_settings, show_result
from fsd_tune.errors import ProblemCollector


@verb(PUBLISH)
@argument("folder", type=Path, help="A search's folder, or any folder with a wandb/ folder.")
@options.as_json
def sync(*, folder: Path, as_json: bool) -> None:
    """Upload a search's offline Weights & Biases runs.

    The runs of its confirmation are uploaded, too.
    """
    from fsd_tune.tracking.sync import sync as upload

    counts = upload(folder)
    show_result(counts, as_json, [f"{counts['runs']} runs uploaded, {counts['already']} were uploaded before"])


@verb(SEARCH, settings=True)
@options.space
@options.task
@options.teacher
@options.data
@options.memory
@options.folder_flag("--output", "Folder for the runs of the sweep.", default=Path("sweep"))
@options.folder_flag("--file", "File to write; default: standard output.", metavar="FILE")
@click.pass_obj
def sweep_config(
    invocation: Invocation,
    *,
    space: Path,
    task: str | Path,
    teacher: str,
    data: Path | None,
    memory: Path | None,
    output: Path,
    file: Path | None,
) -> None:
    """Write a space as a W&B sweep whose agents run `distill`.

    Use it to compare a sweep with a search of the same space.
    """
    check_outputs({"--memory": memory, "--output": output}, file)
    settings = checked_settings(space, invocation, [task], [teacher], data)
    from fsd_tune.data import splits
    from fsd_tune.models.local_checks import model_problems

    problems = ProblemCollector(model_problems(teacher, "--teacher"))
    if "{run}" in str(output):
        problems.add(f"--output: found {output}, but must not contain {{run}}; each run gets its own folder below it.")
    problems.raise_any()
    resolved = splits.get_task(task)
    splits.load_splits(resolved, ("train", "dev") if splits.is_here(resolved, data) else (), data)
    from fsd_tune.storage import artifacts
    from fsd_tune.tracking import sweep

    config = sweep.sweep_config(
        settings,
        space=space,
        task=task,
        teacher=teacher,
        data=data,
        memory=memory,
        output=output,
        overrides=invocation.overrides(),
    )
    if file is None:
        print(sweep.text(config), end="")
    else:
        artifacts.write_text(file, sweep.text(config))
        print(f"sweep: {file}; start it with `wandb sweep {file}`", file=sys.stderr)
