"""Arguments and options that several verbs share, and what is done with their values."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fsd_tune.errors import InputError
from fsd_tune.models.local_checks import model_problems
from fsd_tune.settings import loader
from fsd_tune.storage.uri import is_uri, problems_of

Space = Annotated[Path, typer.Argument(help="search-space YAML, such as search_spaces/fsd_ilg.yaml")]
OptionalSpace = Annotated[Path | None, typer.Argument(help="YAML with the settings; flags override it")]
TaskName = Annotated[str | Path, typer.Option("--task", help="GLUE task: cola sst2 mrpc qqp stsb mnli qnli rte wnli")]
TaskNames = Annotated[
    str | Path,
    typer.Option("--task", help="GLUE task: cola sst2 mrpc qqp stsb mnli qnli rte wnli; several with commas"),
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
    """`tasks_and_models` of `--teacher`."""
    return tasks_and_models(tasks, teacher, "--teacher", f"teachers/{_PLACE}")


def tasks_and_models(tasks: str, model: str, flag: str, example: str) -> tuple[list[str], list[str]]:
    """`--task rte,mrpc --teacher 'teachers/{task}'` as a list of ids and the model of each.

    Args:
        tasks: the value of `--task`.
        model: the value of `flag`, which names the models.
        flag, example: what an error says.

    Raises:
        InputError: an empty id, one twice, or several tasks and no place for their ids in the model.
    """
    names = [name.strip() for name in tasks.split(",")]
    problems = [f"--task: found {name} more than once." for name in dict.fromkeys(names) if names.count(name) > 1]
    if not all(names):
        problems = [f"--task: found {tasks}, but must be ids with single commas between them."]
    if len(names) > 1 and _PLACE not in model:
        problems.append(f"{flag}: found {model}, but several tasks need a place for their ids: '{example}'.")
    if problems:
        raise InputError(problems)
    return names, [model.replace(_PLACE, name) for name in names]


def checked_settings(
    space: Path | None,
    overrides: Overrides,
    tasks: Sequence[str | Path],
    teachers: Sequence[str],
    data: Path | None,
    places: Mapping[str, str] | None = None,
) -> loader.Settings:
    """The settings; where they are wrong, what is wrong with the other inputs at first sight is said with it.

    Overrides that no flag gave are said to be at their `places`, by key.
    """
    try:
        return loader.load(space, overrides(), places)
    except InputError as error:
        problems = [*error.problems, *at_first_sight(tasks, data)]
        for teacher in teachers:
            problems += model_problems(teacher, "--teacher")
        raise InputError(problems, error.hint) from error


def at_first_sight(tasks: Sequence[str | Path], data: Path | None) -> list[str]:
    """What is wrong with tasks and their data, to be said with a verb's other problems; the hub is not asked."""
    from fsd_tune.data import splits

    problems: list[str] = []
    for name in tasks:
        try:
            task = splits.get_task(name)
            splits.load(task, ("train", "dev") if splits.is_here(task, data) else (), data)
        except InputError as error:
            problems += error.problems
    return problems


def numbers(name: str, one: float | None, several: str | None, default: float, problems: list[str]) -> list[Any]:
    """The values of `--<name>` or of `--<name>s`, which has several with commas; what is wrong goes to `problems`.

    Args:
        name: learning_rate (numbers above 0, at most 1) or seed (whole numbers, at least 0).
        one, several: what was given.
        default: where nothing was.
        problems: one line is added for each thing that is wrong.
    """
    flag = f"--{name.replace('_', '-')}"
    if several is None:
        return [default if one is None else one]
    if one is not None:
        problems.append(f"{flag} and {flag}s: give one of them.")
    kind, accepted = (int, "whole numbers from 0 on") if name == "seed" else (float, "numbers above 0, at most 1")
    found: list[Any] = []
    for word in several.split(","):
        try:
            value = kind(word)
        except ValueError:
            value = -1
        if not (value >= 0 if name == "seed" else 0 < value <= 1):
            problems.append(f"{flag}s: found {word.strip() or 'nothing between commas'}, but must be {accepted}.")
        elif value in found:
            problems.append(f"{flag}s: found {word.strip()} more than once.")
        else:
            found.append(value)
    return found


def folder_or_new(flag: str, path: Path | None) -> None:
    """Refuse a file where a folder is to be, or above it."""
    if path is None or path.is_dir():
        return
    if path.exists():
        raise InputError(f"{flag}: {path} is a file, but must be a folder or new.")
    _below_a_folder(flag, path)


def file_or_new(flag: str, path: Path | None) -> None:
    """Refuse a folder where a file is to be, or a file above it."""
    if path is None or path.is_file():
        return
    if path.exists():
        raise InputError(f"{flag}: {path} is a folder, but must be a file or new.")
    _below_a_folder(flag, path)


def _below_a_folder(flag: str, path: Path) -> None:
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{flag}: {path} cannot be made: {above} is no folder that may be written to.")


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
