"""The verbs that run on Ray: search, resume, confirm."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fsd_tune.cli import app
from fsd_tune.cli.app import verb
from fsd_tune.cli.options import (
    Address,
    AsJson,
    DataFolder,
    Device,
    MemoryPlace,
    Overrides,
    Overwrite,
    Quiet,
    Space,
    TaskNames,
    Teachers,
    TemporaryFolder,
    Verbose,
    checked_settings,
    one_of,
    place_or_new,
    show,
    tasks_and_teachers,
)
from fsd_tune.progress import Display
from fsd_tune.storage.open_folder import open_experiment
from fsd_tune.storage.uri import joined


@verb(settings_flags=True)
def search(
    overrides: Overrides,
    *,
    space: Space,
    task: TaskNames,
    teacher: Teachers,
    data: DataFolder = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            help="the search's folder, with several tasks the folder of theirs, or a URI (s3://, gs://); default runs/",
        ),
    ] = None,
    memory: MemoryPlace = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    address: Address = None,
    temp_dir: TemporaryFolder = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Search a space on Ray; the same command again, or `resume`, goes on with an interrupted search."""
    one_of("--device", device, ("auto", "cpu", "cuda"))
    place_or_new("--output", output)
    place_or_new("--memory", memory)
    tasks: Sequence[str | Path]
    if isinstance(task, Path):
        tasks, names, teachers = [task], [task.stem], [teacher.replace("{task}", task.stem)]
    else:
        names, teachers = tasks_and_teachers(task, teacher)
        tasks = names
    settings = checked_settings(space, overrides, tasks, teachers, data)
    folders = [str(Path("runs") / f"{name}-{space.stem}") for name in names]
    if output is not None:
        folders = [output] if len(names) == 1 else [joined(output, name) for name in names]
    if len(names) > 1:
        from fsd_tune.search import multi_task
        from fsd_tune.search.options import RunOptions, SearchInputs

        with closing(Display(quiet, verbose)) as display:
            searches = [
                SearchInputs(name, model, folder, data, memory)
                for name, model, folder in zip(names, teachers, folders, strict=True)
            ]
            options = RunOptions(device, overwrite=overwrite, address=address, ray_temporary=temp_dir, display=display)
            outcomes = multi_task.run(settings, searches, options)
        if as_json:
            show(multi_task.document(outcomes), as_json, [])
        else:
            Console(highlight=False).print(multi_task.table(outcomes))
        multi_task.check(outcomes)
        return
    from fsd_tune.report import summary
    from fsd_tune.search import api as searching

    app.searching(folders[0])
    with closing(Display(quiet, verbose)) as display:
        results = searching.run(
            settings, task=tasks[0], teacher=teachers[0], data=data, output=folders[0],
            memory=memory, device=device, overwrite=overwrite, address=address, ray_temporary=temp_dir,
            display=display,
        )  # fmt: skip
    show(summary.document(results), as_json, summary.lines(results, folders[0]))


@verb(settings_flags=True)
def resume(
    overrides: Overrides,
    *,
    folder: Annotated[str, typer.Argument(help="a search's folder, or its URI")],
    errored: Annotated[bool, typer.Option("--errored", help="run failed trials again")] = False,
    address: Address = None,
    temp_dir: TemporaryFolder = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a search that was interrupted, or with more --trials; of the settings only budgets and resources."""
    from fsd_tune.report import summary
    from fsd_tune.search import api as searching

    app.searching(folder)
    with closing(Display(quiet, verbose)) as display:
        results = searching.resume(
            folder, overrides(), errored=errored, address=address, ray_temporary=temp_dir, display=display
        )
    show(summary.document(results), as_json, summary.lines(results, folder))


@verb()
def confirm(
    *,
    folder: Annotated[str, typer.Argument(help="a finished search's folder, or its URI")],
    top: Annotated[int, typer.Option("--top", help="its best configurations, which compete again")] = 5,
    seeds: Annotated[int, typer.Option("--seeds", help="selection seeds: the best mean on them wins")] = 5,
    fresh_seeds: Annotated[
        int, typer.Option("--fresh-seeds", help="seeds that chose nothing, for the winner and the baselines")
    ] = 5,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="a finished search over kd, for a tuned baseline; without it kd's defaults"),
    ] = None,
    address: Address = None,
    temp_dir: TemporaryFolder = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Confirm a search's winner on fresh seeds against baselines; the same command again continues."""
    from fsd_tune.evaluation.confirm.api import run
    from fsd_tune.report import confirmation

    with closing(Display(quiet)) as display:
        made = run(
            folder, top=top, seeds=seeds, fresh_seeds=fresh_seeds, baseline=baseline, address=address,
            ray_temporary=temp_dir, display=display,
        )  # fmt: skip
    show(made, as_json, confirmation.lines(made, open_experiment(folder).folder))
