"""Check the values of flags, load settings and print results."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsd_tune.cli.errors import Invocation
from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.models.local_checks import model_problems
from fsd_tune.settings import loader
from fsd_tune.settings.search_section import MAX_SEED
from fsd_tune.settings.shipped import is_bare_name, unknown_space
from fsd_tune.storage.outputs import output_problems

_RUN = "{run}"
_TASK = "{task}"


def tasks_and_teachers(tasks: str, teacher: str) -> tuple[list[str], list[str]]:
    """Return the ids in `--task` and the teacher of each task; see `tasks_and_models`.

    Args:
        tasks: the value of `--task`.
        teacher: the value of `--teacher`.
    """
    return tasks_and_models(tasks, teacher, "--teacher", f"teachers/{_TASK}")


def tasks_and_models(tasks: str, model: str, flag: str, example: str) -> tuple[list[str], list[str]]:
    """Return the ids in `--task`, such as `rte,mrpc`, and the model of each task, such as `teachers/{task}`.

    Args:
        tasks: the value of `--task`.
        model: the value of `flag`, which gives the models.
        flag: the flag to name in errors.
        example: a valid value of `flag` to show in errors.

    Raises:
        InputError: an id is empty or repeated, or `{task}` is missing from the model of several tasks.
    """
    names = [name.strip() for name in tasks.split(",")]
    problems = ProblemCollector(
        f"--task: found {name} more than once." for name in dict.fromkeys(names) if names.count(name) > 1
    )
    if not all(names):
        problems = ProblemCollector([f"--task: found {tasks}, but must be ids with single commas between them."])
    if len(names) > 1 and _TASK not in model:
        problems.add(f"{flag}: found {model}, but several tasks need a place for their ids: '{example}'.")
    problems.raise_any()
    return names, [model.replace(_TASK, name) for name in names]


def checked_settings(
    space: Path | None,
    overrides: Mapping[str, str] | Invocation,
    tasks: Sequence[str | Path],
    teachers: Sequence[str],
    data: Path | None,
    places: Mapping[str, str] | None = None,
) -> loader.Settings:
    """Return the settings; if they are wrong, report the problems of the other inputs, too.

    Args:
        space: the YAML; None to use only flags.
        overrides: {dotted key: YAML text}, or the call of the verb, whose flags override the YAML.
        tasks: ids or files of the tasks.
        teachers: the teachers of the tasks.
        data: the folder with the tasks' data; None for the hub.
        places: names for overrides that no flag gave, by key; errors show them.

    Raises:
        InputError: the settings are wrong.
    """
    try:
        if space is not None and is_bare_name(space) and not space.exists():
            raise InputError(unknown_space(space.as_posix()))
        flags = overrides.overrides() if isinstance(overrides, Invocation) else overrides
        return loader.load(space, flags, places)
    except InputError as error:
        problems = [*error.problems, *local_problems(tasks, data)]
        for teacher in teachers:
            problems += model_problems(teacher, "--teacher")
        raise InputError(problems, error.hint) from error


def local_problems(tasks: Sequence[str | Path], data: Path | None) -> list[str]:
    """Return the problems of tasks and of their data on disk; the hub is not contacted.

    Args:
        tasks: ids or files.
        data: the folder with their data; None for the hub.

    Returns:
        One line per problem.
    """
    from fsd_tune.data import splits

    problems = ProblemCollector()
    for name in tasks:
        with problems.collect():
            task = splits.get_task(name)
            splits.load_splits(task, ("train", "dev") if splits.is_here(task, data) else (), data)
    return problems.lines


def numbers(
    name: str, single: float | None, several: str | None, default: float, problems: ProblemCollector
) -> list[Any]:
    """Return the values of `--<name>`, or of `--<name>s`, which takes several values with commas.

    Args:
        name: learning_rate (numbers above 0, at most 1) or seed (whole numbers, at least 0).
        single: the value of `--<name>`; None if it was not given.
        several: the value of `--<name>s`; None if it was not given.
        default: the value if neither was given.
        problems: the collector that gets one line for each wrong value.
    """
    flag = f"--{name.replace('_', '-')}"
    if several is None:
        return [default if single is None else single]
    if single is not None:
        problems.add(f"{flag} and {flag}s: give one of them.")
    whole = f"whole numbers from 0 to {MAX_SEED}"
    kind, accepted = (int, whole) if name == "seed" else (float, "numbers above 0, at most 1")
    values: list[Any] = []
    for word in several.split(","):
        try:
            value = kind(word)
        except ValueError:
            value = -1
        if not (0 <= value <= MAX_SEED if name == "seed" else 0 < value <= 1):
            problems.add(f"{flag}s: found {word.strip() or 'nothing between commas'}, but must be {accepted}.")
        elif value in values:
            problems.add(f"{flag}s: found {word.strip()} more than once.")
        else:
            values.append(value)
    return values


def check_outputs(folders: Mapping[str, str | Path | None], file: Path | None = None, uri: bool = False) -> None:
    """Refuse outputs that cannot be written; see `storage.outputs`.

    Args:
        folders: by the flag that gave it, a folder to write; None if it was not given.
        file: the value of `--file`; None if it was not given.
        uri: the verb stores in URIs, too.

    Raises:
        InputError: with the problems of all outputs.
    """
    problems = ProblemCollector()
    for flag, place in folders.items():
        problems.add(*([] if place is None else output_problems(place, flag, uri=uri)))
    problems.add(*([] if file is None else output_problems(file, "--file", file=True)))
    problems.raise_any()


def run_folder(output: Path) -> Path:
    """Return the folder of `--output`, with `{run}` replaced by the id of the W&B sweep's run.

    Args:
        output: the value of `--output`.

    Raises:
        InputError: `output` contains `{run}`, but no W&B agent started this process.
    """
    if _RUN not in str(output):
        return output
    if not os.environ.get("WANDB_RUN_ID"):
        raise InputError(f"--output: found {output}, but only agents of a W&B sweep can use {_RUN}.")
    return Path(str(output).replace(_RUN, os.environ["WANDB_RUN_ID"]))


def show_result(value: Mapping[str, Any], as_json: bool, lines: Sequence[str]) -> None:
    """Print a verb's result on standard output.

    Args:
        value: the result as a document.
        as_json: print `value` as JSON instead of `lines`.
        lines: the result as lines for people.
    """
    print(json.dumps(value, indent=1) if as_json else "\n".join(lines))
