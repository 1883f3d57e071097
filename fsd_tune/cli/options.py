"""Arguments and flags that several verbs share."""

import math
from pathlib import Path
from typing import Any

import click

from fsd_tune.cli.app import INPUTS, OUTPUT, RUNNING, Decorator, TaskFlag, argument, option
from fsd_tune.data.text_lines import shorten
from fsd_tune.errors import InputError
from fsd_tune.settings.problems import quote_value
from fsd_tune.settings.search_section import MAX_SEED
from fsd_tune.settings.shipped import find_space

_GLUE = "cola sst2 mrpc qqp stsb mnli qnli rte wnli"


class OneOf(click.ParamType[str]):
    """A parameter type that accepts one of a few words."""

    name = "word"

    def __init__(self, *accepted: str) -> None:
        self.accepted = accepted

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word.

        Raises:
            InputError: the word is not accepted.
        """
        if value not in self.accepted:
            flag = "" if param is None else param.opts[0]
            raise InputError(
                f"{flag}: found {value}, but must be {', '.join(self.accepted[:-1])} or {self.accepted[-1]}."
            )
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the accepted words as the help shows them."""
        return "|".join(self.accepted)


class Number(click.ParamType[float]):
    """A parameter type that accepts numbers within limits; whole numbers if `kind` is int."""

    name = "number"

    def __init__(self, kind: type, low: float, high: float) -> None:
        self.kind = kind
        self.low = low
        self.high = high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number.

        Raises:
            InputError: the value is not a number, or outside the limits.
        """
        try:
            number: float = self.kind(value)
        except ValueError:
            number = math.nan
        if not self.low <= number <= self.high:
            limits = f"from {quote_value(self.low)} to {quote_value(self.high)}"
            words = "a whole number" if self.kind is int else "a number"
            flag = "" if param is None else param.opts[0]
            raise InputError(f"{flag}: found {shorten(str(value))}, but must be {words} {limits}.")
        return number


class Numbers(click.ParamType[list[int]]):
    """A parameter type that accepts different whole numbers within limits, with commas between them."""

    name = "numbers"

    def __init__(self, low: int, high: int) -> None:
        self._number = Number(int, low, high)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Return the numbers in their order.

        Raises:
            InputError: a word between commas is not a number, or outside the limits.
        """
        words = [word.strip() or "nothing between commas" for word in str(value).split(",")]
        return list(dict.fromkeys(int(self._number.convert(word, param, ctx)) for word in words))


class SpaceFile(click.ParamType[Path]):
    """A parameter type for the YAML of a search space: a file, or the name of a shipped space."""

    name = "space"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the file."""
        return find_space(str(value))


class Folder(click.ParamType[Path]):
    """A parameter type for a folder, which `Path` alone would take to be the working folder if it is empty."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the folder."""
        if not str(value):
            self.fail("is empty, but must be a folder.", param, ctx)
        return Path(value)


SEEDS = Number(int, 0, MAX_SEED)
PRECISIONS = OneOf("auto", "float32", "bf16")


def _use_task_file(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.params["task"] = value


def task_flag(help: str = f"GLUE task: {_GLUE}.", required: bool = True) -> Decorator:
    """Return a decorator that adds `--task` and `--task-file`; the verb's parameter `task` is an id or a Path.

    Args:
        help: the help of `--task`.
        required: whether the verb needs one of the two.
    """
    task_file_option = option(
        "--task-file",
        panel=INPUTS,
        type=Path,
        metavar="FILE",
        expose_value=False,
        callback=_use_task_file,
        help="YAML of your own task, as in examples/own_task/; replaces --task.",
    )
    task_option = option("--task", cls=TaskFlag, panel=INPUTS, metavar="TASK", required=required, help=help)
    return lambda function: task_option(task_file_option(function))


def folder_flag(name: str, help: str, **attributes: Any) -> Decorator:
    """Return a decorator that adds a flag for a folder.

    Args:
        name: the flag.
        help: the help of the flag.
        attributes: further attributes, as for `app.option`.
    """
    return option(name, **{"panel": OUTPUT, "type": Folder(), "metavar": "FOLDER", "help": help} | attributes)


space = argument("space", type=SpaceFile(), help="Search-space YAML, or the name of a shipped one such as fsd_ilg.")
optional_space = argument(
    "space",
    type=SpaceFile(),
    required=False,
    help="YAML with the settings, or the name of a shipped space; flags override it.",
)
search_folder = argument("folder", help="A search's folder, or its URI.")
task = task_flag()
tasks = task_flag(f"GLUE task: {_GLUE}; or several, separated by commas.")
teacher = option("--teacher", panel=INPUTS, required=True, help="Fine-tuned teacher: folder or hub id.")
teachers = option(
    "--teacher",
    panel=INPUTS,
    required=True,
    help="Fine-tuned teacher: folder or hub id; for several tasks 'teachers/{task}'.",
)
data = folder_flag("--data", "Folder with SST-2/, RTE/ and so on; default: nyu-mll/glue from the hub.", panel=INPUTS)
output = folder_flag("--output", "Folder to write: new, or with a result of the same verb.", required=True)
memory = folder_flag(
    "--memory",
    "Folder for teacher memories; default: memory/ in --output; distill: memory/ beside --output.",
    panel=INPUTS,
)
memory_or_uri = option(
    "--memory",
    panel=INPUTS,
    metavar="FOLDER",
    help="Folder or URI for teacher memories; default: memory/ in --output.",
)
device = option("--device", panel=RUNNING, type=OneOf("auto", "cpu", "cuda"), default="auto", help="Where models run.")
recorded_precision = option(
    "--precision",
    panel=RUNNING,
    type=PRECISIONS,
    help="Number format of the model; default: the one that its folder records, else float32.",
)
address = option(
    "--address", panel=RUNNING, help="Ray cluster to run on; default: the one in RAY_ADDRESS, else a local Ray."
)
temp_dir = folder_flag(
    "--temp-dir",
    "Folder in which Ray has its own, for sockets and logs, until the end (a short path); default: /tmp.",
    panel=RUNNING,
)
overwrite = option("--overwrite", panel=OUTPUT, is_flag=True, help="Replace what --output holds.")
quiet = option("--quiet", panel=OUTPUT, is_flag=True, help="Show no progress.")
verbose = option("--verbose", panel=OUTPUT, is_flag=True, help="Show every report of every trial, too.")
as_json = option("--json", "as_json", panel=OUTPUT, is_flag=True, help="Print the result as one JSON document.")
