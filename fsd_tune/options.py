"""Arguments and options that several verbs share, and what is done with their values."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fsd_tune import hub
from fsd_tune import settings as settings_module
from fsd_tune.errors import InputError
from fsd_tune.uri import is_uri, problems_of

Space = Annotated[Path, typer.Argument(help="search-space YAML, such as search_spaces/fsd_ilg.yaml")]
OptionalSpace = Annotated[Path | None, typer.Argument(help="YAML with the settings; flags override it")]
TaskName = Annotated[str, typer.Option("--task", help="GLUE task: cola sst2 mrpc qqp stsb mnli qnli rte wnli")]
TaskNames = Annotated[
    str, typer.Option("--task", help="GLUE task: cola sst2 mrpc qqp stsb mnli qnli rte wnli; several with commas")
]
Teacher = Annotated[str, typer.Option("--teacher", help="fine-tuned teacher: folder or hub id")]
Teachers = Annotated[
    str, typer.Option("--teacher", help="fine-tuned teacher: folder or hub id; for several tasks 'teachers/{task}'")
]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="folder that holds SST-2/, RTE/ ...; without it nyu-mll/glue from the hub")
]
Output = Annotated[Path, typer.Option("--output", help="folder to write; new, or holding the same thing")]
MemoryFolder = Annotated[
    Path | None,
    typer.Option("--memory", help="folder for teacher memories; default: memory/ in --output, for distill beside it"),
]
MemoryPlace = Annotated[
    str | None,
    typer.Option("--memory", help="folder or URI for teacher memories; default: memory/ in --output"),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what --output holds")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
Verbose = Annotated[bool, typer.Option("--verbose", help="also every report of every trial")]
AsJson = Annotated[bool, typer.Option("--json", help="the result as one JSON document on standard output")]
Address = Annotated[
    str | None, typer.Option("--address", help="Ray cluster to run on; without it a local Ray, or RAY_ADDRESS")
]
TemporaryFolder = Annotated[
    Path | None, typer.Option("--temp-dir", help="folder for Ray's sockets and logs (a short path); default /tmp/ray")
]

Overrides = Callable[[], dict[str, str]]
_RUN = "{run}"
_PLACE = "{task}"


def tasks_and_teachers(tasks: str, teacher: str) -> tuple[list[str], list[str]]:
    """`--task rte,mrpc --teacher 'teachers/{task}'` as a list of ids and the teacher of each.

    Raises:
        InputError: an empty id, one twice, or several tasks and no place for their ids in the teacher.
    """
    names = [name.strip() for name in tasks.split(",")]
    problems = [f"--task: found {name} more than once." for name in dict.fromkeys(names) if names.count(name) > 1]
    if not all(names):
        problems = [f"--task: found {tasks}, but must be ids with single commas between them."]
    if len(names) > 1 and _PLACE not in teacher:
        problems.append(
            f"--teacher: found {teacher}, but several tasks need a place for their ids: 'teachers/{_PLACE}'."
        )
    if problems:
        raise InputError(problems)
    return names, [teacher.replace(_PLACE, name) for name in names]


def checked_settings(
    space: Path | None, overrides: Overrides, tasks: Sequence[str], teachers: Sequence[str], data: Path | None
) -> settings_module.Settings:
    """The settings; where they are wrong, what is wrong with the other inputs at first sight is said with it."""
    try:
        return settings_module.load(space, overrides())
    except InputError as error:
        from fsd_tune import glue

        problems = list(error.problems)
        for task in tasks:
            try:
                glue.load(glue.get_task(task), ("train", "dev") if data is not None else (), data)
            except InputError as other:
                problems += other.problems
        for teacher in teachers:
            problems += hub.model_problems(teacher, "--teacher")
        raise InputError(problems, error.hint) from error


def folder_or_new(flag: str, path: Path | None) -> None:
    """Refuse a file where a folder is to be."""
    if path is not None and path.exists() and not path.is_dir():
        raise InputError(f"{flag}: {path} is a file, but must be a folder or new.")


def place_or_new(flag: str, place: str | None) -> None:
    """Refuse a file where a folder is to be, and a URI that no storage has."""
    if place is None:
        return
    if not is_uri(place):
        folder_or_new(flag, Path(place))
    elif problems := problems_of(place, flag):
        raise InputError(problems)


def run_folder(output: Path) -> Path:
    """`--output` with the id of the run of a W&B sweep in the place of {run}.

    Raises:
        InputError: it has that place, but no agent has started this.
    """
    if _RUN not in str(output):
        return output
    if not os.environ.get("WANDB_RUN_ID"):
        raise InputError(f"--output: found {output}, but {_RUN} has a meaning for the agents of W&B alone.")
    return Path(str(output).replace(_RUN, os.environ["WANDB_RUN_ID"]))


def one_of(flag: str, found: str, accepted: tuple[str, ...]) -> None:
    """Refuse a value that is none of the accepted ones."""
    if found not in accepted:
        raise InputError(f"{flag}: found {found}, but must be {', '.join(accepted[:-1])} or {accepted[-1]}.")


def show(value: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """Print a verb's result, for machines or for people."""
    print(json.dumps(value, indent=1) if as_json else "\n".join(lines))
