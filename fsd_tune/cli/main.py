"""The command line: the verbs of the other `cli_` modules, and these, which work on what is there already.

What a verb does is imported when it runs, so that `--help` answers at once.
"""

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from fsd_tune.cli import (
    app,
    cluster,  # noqa: F401 (importing a verb registers it)
    models,  # noqa: F401 (importing a verb registers it)
    predict,  # noqa: F401 (importing a verb registers it)
    search,  # noqa: F401 (importing a verb registers it)
    students,  # noqa: F401 (importing a verb registers it)
    tracking,  # noqa: F401 (importing a verb registers it)
)
from fsd_tune.cli.app import verb
from fsd_tune.cli.options import (
    AsJson,
    DataFolder,
    Overrides,
    Quiet,
    Space,
    TemporaryFolder,
    checked_settings,
    folder_or_new,
    show,
)
from fsd_tune.errors import InputError
from fsd_tune.progress import Display
from fsd_tune.settings import loader
from fsd_tune.storage.open_folder import open_for_reading


@verb()
def report(
    *,
    folder: Annotated[str, typer.Argument(help="a search's folder, or its URI")],
    as_json: AsJson = False,
) -> None:
    """Write a search's leaderboard and report.html, during it or after; from disk alone."""
    from fsd_tune.report import html_report, summary

    with open_for_reading(folder) as where:
        results = html_report.load(where.folder, described=True)
        html_report.write(results)
    show(summary.document(results), as_json, summary.lines(results, folder))


@verb()
def compare(
    *,
    searches: Annotated[list[str], typer.Argument(help="two or more searches: folders, or wandb:entity/project/group")],
    output: Annotated[Path, typer.Option("--output", help="folder for compare.html, .csv and .png")] = Path("compare"),
    anyway: Annotated[bool, typer.Option("--anyway", help="also what differs in task, metric or split")] = False,
    wandb_view: Annotated[
        bool, typer.Option("--wandb-view", help="also say how to show these searches side by side in W&B")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare searches: a table, and a page with what they found for what they spent."""
    folder_or_new("--output", output)
    from fsd_tune.report import compare as comparing
    from fsd_tune.report import compare_page

    compared = comparing.compare(searches, anyway)
    steps = comparing.wandb_view_steps(searches, compared) if wandb_view else []
    path = compare_page.write(compared, output)
    show(comparing.document(compared), as_json, [*comparing.lines(compared), f"page: {path}"])
    for step in steps:
        print(step, file=sys.stderr)


@verb(settings_flags=True)
def validate(
    overrides: Overrides,
    *,
    space: Space,
    task: Annotated[
        str | Path | None, typer.Option("--task", help="also check this task's data and the teacher")
    ] = None,
    teacher: Annotated[str | None, typer.Option("--teacher", help="teacher to check with --task")] = None,
    data: DataFolder = None,
) -> None:
    """Check a YAML (and, with --task and --teacher, data and models) and print every setting with its value."""
    settings = checked_settings(
        space, overrides, [] if task is None else [task], [] if teacher is None else [teacher], data
    )
    if (task is None) != (teacher is None):
        raise InputError("--task and --teacher: give both to check data and models, or neither.")
    if task is not None and teacher is not None:
        from fsd_tune.training.inputs import load_inputs

        load_inputs(settings, task, teacher, data)
    print(loader.dump(settings), end="")


@verb()
def demo(
    *,
    folder: Annotated[Path, typer.Option("--folder", help="where everything goes")] = Path("demo"),
    input_only: Annotated[bool, typer.Option("--input-only", help="fetch encoder and sentences, and stop")] = False,
    temp_dir: TemporaryFolder = None,
    quiet: Quiet = False,
) -> None:
    """The main job on real sentences: fetch input, fine-tune a teacher, search, report."""
    folder_or_new("--folder", folder)
    from fsd_tune.cli import demo_run
    from fsd_tune.report import summary

    with closing(Display(quiet)) as display:
        if input_only:
            print(f"input: {demo_run.fetch(folder, display).data.parent}")
            return
        results = demo_run.run(folder, temp_dir, display)
    print("\n".join(summary.lines(results)))


def main() -> None:
    """The console script."""
    app.run()
