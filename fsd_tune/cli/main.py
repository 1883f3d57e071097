"""The console script, and the verbs `report`, `compare`, `validate` and `demo`.

A verb imports its modules when it runs, so that `--help` answers at once.
"""

import sys
from contextlib import closing
from pathlib import Path

import click
import yaml

from fsd_tune.cli import (
    app,
    cluster,  # noqa: F401 (importing a module registers its verbs)
    models,  # noqa: F401 (importing a module registers its verbs)
    options,
    paper,  # noqa: F401 (importing a module registers its verbs)
    search,  # noqa: F401 (importing a module registers its verbs)
    students,  # noqa: F401 (importing a module registers its verbs)
    tracking,  # noqa: F401 (importing a module registers its verbs)
)
from fsd_tune.cli.app import INPUTS, INSPECT, OUTPUT, SEARCH, argument, option, verb
from fsd_tune.cli.errors import Invocation
from fsd_tune.cli.values import check_outputs, checked_settings, show_result
from fsd_tune.errors import InputError
from fsd_tune.progress import Display
from fsd_tune.settings import loader, published
from fsd_tune.settings.configuration import same_trials_note


@verb(INSPECT)
@options.search_folder
@options.as_json
def report(*, folder: str, as_json: bool) -> None:
    """Write a search's leaderboard and report.html.

    It reads only the folder, and works during and after the search.
    """
    from fsd_tune.report import html_report, summary
    from fsd_tune.storage.open_folder import open_for_reading

    with open_for_reading(folder) as experiment:
        results = html_report.load(experiment.folder, described=True)
        html_report.write_report(results)
    show_result(summary.summary_document(results), as_json, summary.summary_lines(results, folder))


@verb(INSPECT)
@argument("searches", nargs=-1, required=True, help="Two or more searches: folders, or wandb:entity/project/group.")
@options.folder_flag("--output", "Folder for compare.html, .csv and .png.", default=Path("compare"))
@option("--anyway", panel=INPUTS, is_flag=True, help="Compare searches that differ in task, metric or split, too.")
@option("--wandb-view", panel=OUTPUT, is_flag=True, help="Also say how to show these searches side by side in W&B.")
@options.as_json
def compare(*, searches: tuple[str, ...], output: Path, anyway: bool, wandb_view: bool, as_json: bool) -> None:
    """Compare searches in one table and one page.

    The page shows the best score that each search had found after the same cost.
    """
    check_outputs({"--output": output})
    from fsd_tune.report import compare as comparisons
    from fsd_tune.report import compare_page

    comparison = comparisons.compare(list(searches), anyway)
    steps = comparisons.wandb_view_steps(list(searches), comparison) if wandb_view else []
    path = compare_page.write_comparison(comparison, output)
    show_result(
        comparisons.comparison_document(comparison),
        as_json,
        [*comparisons.comparison_lines(comparison), f"page: {path}"],
    )
    for step in steps:
        print(step, file=sys.stderr)


@verb(SEARCH, settings=True)
@options.space
@options.task_flag("Task whose data and teacher are checked, too.", required=False)
@option("--teacher", panel=INPUTS, help="Teacher to check with --task.")
@options.data
@click.pass_obj
def validate(
    invocation: Invocation, *, space: Path, task: str | Path | None, teacher: str | None, data: Path | None
) -> None:
    """Check a search space and print every setting.

    With --task and --teacher it checks data and models, too.
    """
    tasks = [] if task is None else [task]
    teachers = [] if teacher is None else [teacher]
    settings = checked_settings(space, invocation, tasks, teachers, data)
    if (task is None) != (teacher is None):
        raise InputError("--task and --teacher: give both to check data and models, or neither.")
    if task is not None and teacher is not None:
        from fsd_tune.training.inputs import load_inputs

        load_inputs(settings, task, teacher, data)
    text = loader.dump(settings)
    # Comments, so that the output remains a settings file.
    if implied := published.lines(settings.published, settings.methods, yaml.safe_load(text)):
        print(f"# published: {str(settings.published).lower()} sets")
        print("\n".join(f"#   {line}" for line in implied))
    if same := same_trials_note(settings):
        print(f"# search: {same}.")
    print(text, end="")


@verb(SEARCH)
@options.folder_flag("--folder", "Folder for everything that the demo writes.", default=Path("demo"))
@option("--input-only", panel=INPUTS, is_flag=True, help="Fetch encoder and sentences, and stop.")
@option("--front", panel=SEARCH, is_flag=True, help="Search for students that are accurate and fast, and write int8.")
@options.temp_dir
@options.quiet
def demo(*, folder: Path, input_only: bool, front: bool, temp_dir: Path | None, quiet: bool) -> None:
    """Run the whole job on a small example.

    It fetches an encoder and real sentences, fine-tunes a teacher, searches, and writes the report. With --front the
    depth of the student is searched, too, and the chosen student is exported for ONNX Runtime with int8 weights.
    """
    check_outputs({"--folder": folder})
    from fsd_tune.cli import demo_run
    from fsd_tune.profiling import table
    from fsd_tune.report import summary

    with closing(Display(quiet)) as display:
        if input_only:
            print(f"input: {demo_run.fetch_input(folder, display).data.parent}")
            return
        served: list[str] = []
        if front:
            results, exported = demo_run.run_front(folder, temp_dir, display)
            served = ["", *table.served_lines(exported["size_and_speed"])]
        else:
            results = demo_run.run_demo(folder, temp_dir, display)
    print("\n".join([*summary.summary_lines(results), *served]))


def main() -> None:
    """Run the console script."""
    app.run()
