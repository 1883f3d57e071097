"""The verb for the benchmark's server: predict."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from fsd_tune.cli.app import verb
from fsd_tune.cli.options import AsJson, DataFolder, Device, Overwrite, Quiet, one_of, show, tasks_and_models
from fsd_tune.errors import InputError
from fsd_tune.progress import Display


@verb()
def predict(
    *,
    student: Annotated[
        str, typer.Option("--student", help="student: folder or hub id; for several tasks 'runs/{task}/best'")
    ],
    task: Annotated[
        str | None,
        typer.Option("--task", help="GLUE task: cola sst2 mrpc qqp stsb mnli qnli rte wnli; several with commas"),
    ] = None,
    all_tasks: Annotated[bool, typer.Option("--all", help="every task whose student's folder is there")] = False,
    data: DataFolder = None,
    output: Annotated[Path, typer.Option("--output", help="folder for RTE.tsv and so on; new, or holding the same")],
    precision: Annotated[
        str | None, typer.Option(help="auto, float32 or bf16; default: what the folder records, else float32")
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write the files that the GLUE benchmark's server takes; of several tasks also submission.zip."""
    if precision is not None:
        one_of("--precision", precision, ("auto", "float32", "bf16"))
    one_of("--device", device, ("auto", "cpu", "cuda"))
    if (task is None) != all_tasks:
        raise InputError("--task: give ids of GLUE tasks, or --all for every task whose student is there.")
    with closing(Display(quiet)) as display:
        names, students = _all_that_are_there(student, display) if task is None else _named(task, student)
        from fsd_tune.evaluation import glue_submission

        made = glue_submission.run(
            names, students, data=data, output=output, device=device, precision=precision, overwrite=overwrite,
            zipped=all_tasks or len(names) > 1, display=display,
        )  # fmt: skip
        for note in glue_submission.notes(made):
            display.line(f"note: {note}")
    lines = [
        f"{output / name}: {facts['rows']} rows ({facts['precision']}){'' if facts['new'] else ', there already'}"
        for name, facts in made["files"].items()
    ]
    show(made, as_json, [*lines, *([made["zip"]] if made["zip"] else [])])


def _named(task: str, student: str) -> tuple[list[str], list[str]]:
    return tasks_and_models(task, student, "--student", "runs/{task}/best")


def _all_that_are_there(student: str, display: Display) -> tuple[list[str], list[str]]:
    """Every task whose student is a folder, and the students; those of the others are noted.

    Raises:
        InputError: there is none.
    """
    from fsd_tune.data.splits import TASKS

    every = dict(zip(*_named(",".join(TASKS), student), strict=True))
    there = {name: path for name, path in every.items() if Path(path).is_dir()}
    absent = [path for name, path in every.items() if name not in there]
    if not there:
        raise InputError(f"--student: there is no folder {absent[0]}, nor that of any other task.")
    if absent:
        display.line(f"note: no student is there for {', '.join(name for name in every if name not in there)}.")
    return list(there), list(there.values())
