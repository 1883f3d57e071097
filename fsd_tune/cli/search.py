"""The verbs for a search on Ray: search, resume, confirm and doctor."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click

from fsd_tune.cli import options
from fsd_tune.cli.app import INPUTS, OUTPUT, RUNNING, SEARCH, TRAINING, option, verb
from fsd_tune.cli.errors import Invocation
from fsd_tune.cli.values import check_outputs, checked_settings, show_result, tasks_and_teachers
from fsd_tune.progress import Display
from fsd_tune.settings import loader
from fsd_tune.storage.uri import joined


@verb(SEARCH, settings=True)
@options.space
@options.tasks
@options.teachers
@options.data
@option(
    "--output",
    panel=OUTPUT,
    metavar="FOLDER",
    help="The search's folder, or a URI (s3://, gs://); for several tasks the folder above theirs; default: runs/.",
)
@options.memory_or_uri
@options.device
@options.overwrite
@options.address
@options.temp_dir
@options.quiet
@options.verbose
@options.as_json
@click.pass_obj
def search(
    invocation: Invocation,
    *,
    space: Path,
    task: str | Path,
    teacher: str,
    data: Path | None,
    output: str | None,
    memory: str | None,
    device: str,
    overwrite: bool,
    address: str | None,
    temp_dir: Path | None,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Search a space of hyperparameters on Ray.

    The same command again, or `resume`, continues an interrupted search.
    """
    check_outputs({"--output": output, "--memory": memory}, uri=True)
    tasks: Sequence[str | Path]
    if isinstance(task, Path):
        tasks = [task]
        names = [task.stem]
        teachers = [teacher.replace("{task}", task.stem)]
    else:
        names, teachers = tasks_and_teachers(task, teacher)
        tasks = names
    settings = checked_settings(space, invocation, tasks, teachers, data)
    folders = [str(Path("runs") / f"{name}-{space.stem}") for name in names]
    if output is not None:
        folders = [output] if len(names) == 1 else [joined(output, name) for name in names]
    from fsd_tune.search.options import RunOptions, SearchInputs

    searches = [
        SearchInputs(task_or_file, model, folder, data, memory)
        for task_or_file, model, folder in zip(tasks, teachers, folders, strict=True)
    ]
    run_options = RunOptions(device, overwrite=overwrite, address=address, ray_temporary=temp_dir)
    if len(searches) > 1:
        from fsd_tune.search import multi_task

        with closing(Display(quiet, verbose)) as display:
            outcomes = multi_task.run_searches(settings, searches, replace(run_options, display=display))
        if as_json:
            show_result(multi_task.tasks_document(outcomes), as_json, [])
        else:
            from rich.console import Console

            Console(highlight=False).print(multi_task.table(outcomes))
        multi_task.check(outcomes)
        return
    from fsd_tune.report import summary
    from fsd_tune.search import api

    invocation.search = folders[0]
    with closing(Display(quiet, verbose)) as display:
        results = api.run_search(settings, searches[0], replace(run_options, display=display))
    show_result(summary.summary_document(results), as_json, summary.summary_lines(results, folders[0]))


@verb(SEARCH, settings=True)
@options.search_folder
@option("--errored", panel=INPUTS, is_flag=True, help="Run failed trials again.")
@options.address
@options.temp_dir
@options.quiet
@options.verbose
@options.as_json
@click.pass_obj
def resume(
    invocation: Invocation,
    *,
    folder: str,
    errored: bool,
    address: str | None,
    temp_dir: Path | None,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Continue an interrupted search, or give it more trials.

    You can change only budgets (such as --trials), resources and the choice of best/ (--pick).
    """
    from fsd_tune.report import summary
    from fsd_tune.search import api

    invocation.search = folder
    with closing(Display(quiet, verbose)) as display:
        results = api.resume(
            folder,
            invocation.overrides(),
            errored=errored,
            address=address,
            ray_temporary=temp_dir,
            display=display,
        )
    show_result(summary.summary_document(results), as_json, summary.summary_lines(results, folder))


@verb(SEARCH)
@options.search_folder
@option("--top", panel=TRAINING, type=int, default=5, help="Number of the search's best configurations that compete.")
@option(
    "--seeds",
    panel=TRAINING,
    type=int,
    default=5,
    help="Selection seeds: the configuration with the best mean on them wins.",
)
@option(
    "--fresh-seeds",
    panel=TRAINING,
    type=int,
    help="Further seeds for the winner and the baselines, which select nothing; default 5.",
)
@option(
    "--max-seeds",
    panel=TRAINING,
    type=int,
    help="Add fresh seeds one by one until each comparison is decided or cannot be, at most this number.",
)
@option(
    "--detect",
    panel=TRAINING,
    type=float,
    metavar="POINTS",
    help="Difference that the fresh seeds must be able to show: chooses their number, or checks the given one.",
)
@option(
    "--baseline",
    panel=INPUTS,
    metavar="FOLDER",
    help="A finished search over kd as a tuned baseline; default: kd with its defaults.",
)
@options.address
@options.temp_dir
@options.quiet
@options.as_json
def confirm(
    *,
    folder: str,
    top: int,
    seeds: int,
    fresh_seeds: int | None,
    max_seeds: int | None,
    detect: float | None,
    baseline: str | None,
    address: str | None,
    temp_dir: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Confirm a search's winner on fresh seeds against baselines.

    The same command again continues an interrupted confirmation.
    """
    from fsd_tune.evaluation.confirm.api import confirm as run_confirmation
    from fsd_tune.report import confirmation
    from fsd_tune.storage.open_folder import open_experiment

    with closing(Display(quiet)) as display:
        document = run_confirmation(
            folder,
            top=top,
            seeds=seeds,
            fresh_seeds=fresh_seeds,
            max_seeds=max_seeds,
            detect=detect,
            baseline=baseline,
            address=address,
            ray_temporary=temp_dir,
            display=display,
        )
    show_result(document, as_json, confirmation.confirmation_lines(document, open_experiment(folder).folder))


@verb(SEARCH, settings=True)
@options.optional_space
@options.task_flag("GLUE task whose data to check.", required=False)
@option("--teacher", panel=INPUTS, help="Teacher: folder or hub id.")
@options.data
@options.memory_or_uri
@option("--output", panel=OUTPUT, metavar="FOLDER", help="The search's folder, or a URI.")
@options.address
@option("--cluster", panel=RUNNING, type=Path, metavar="FILE", help="The YAML of `ray up`.")
@click.pass_obj
def doctor(
    invocation: Invocation,
    *,
    space: Path | None,
    task: str | Path | None,
    teacher: str | None,
    data: Path | None,
    memory: str | None,
    output: str | None,
    address: str | None,
    cluster: Path | None,
) -> None:
    """Check everything that a search needs before it starts.

    Each line says ok or what to do.
    """
    from fsd_tune.search import doctor as checks

    settings = None if space is None else loader.load(space, invocation.overrides())
    request = checks.CheckRequest(settings, task, teacher, data, memory, output, address, cluster)
    if not checks.print_checks(checks.run_checks(request)):
        raise SystemExit(2)
