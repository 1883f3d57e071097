"""How verbs are registered and run, and how their errors are said: lines and an exit code.

0 done, 1 failed midway, 2 wrong input, 130 interrupted.
"""

import errno
import functools
import inspect
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.exceptions import TyperException

from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.settings import loader
from fsd_tune.settings.overrides import unknown_flag
from fsd_tune.storage.open_folder import open_experiment

app = typer.Typer(
    help="Search over feature structure distillation (FSD): from a fine-tuned BERT to its best small student.",
    # Flags may be written with underscores, too.
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# What the system says of a path that cannot be what it was given for; nothing that fails midway is among it.
_WRONG_PATH = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


# The search that the running verb is at: once its folder describes it, `resume` goes on from there.
_search: str | None = None


def searching(folder: str) -> None:
    """Say which search's folder `resume` would go on from if this verb is interrupted."""
    global _search
    _search = folder


_TASK_FILE = Annotated[
    Path | None,
    typer.Option("--task-file", help="in the place of --task: YAML of one task of your own, as in docs/tasks/"),
]
# Verbs that must be given --task or --task-file, with the help of the former.
_NEED_A_TASK: dict[str, str] = {}


def verb(settings_flags: bool = False, passes_on: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a verb: adds --debug (and a flag for every setting), and turns errors into lines and exit codes.

    A verb with settings flags takes them as `overrides`, {dotted key: YAML text}; one that passes on takes every word
    after its first argument as it is, flags too. One whose `task` may be a Path (`options.TaskName`) gets
    --task-file beside --task.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        known = loader.flags() if settings_flags else []
        keys = {flag.removeprefix("--").replace("-", "_"): key for flag, key, _ in known}
        signature = inspect.signature(function, eval_str=True)
        keyword = inspect.Parameter.KEYWORD_ONLY
        named = function.__name__.replace("_", "-")
        task = signature.parameters.get("task")
        own_task = task is not None and Path in get_args(get_args(task.annotation)[0])
        if own_task and task is not None and task.default is inspect.Parameter.empty:
            _NEED_A_TASK[named] = get_args(task.annotation)[1].help
        # A key with two flags is shown with its short one.
        shown = {key: flag for flag, key, _ in sorted(known, key=lambda row: -len(row[0]))}.values()

        @functools.wraps(function)
        def run(*, debug: bool, **arguments: Any) -> None:
            given = {name: arguments.pop(name) for name in keys}
            if settings_flags:
                flat = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
                arguments["overrides"] = functools.partial(loader.parse_flags, flat)

            def work() -> None:
                if own_task:
                    arguments["task"] = _task(arguments["task"], arguments.pop("task_file"), _NEED_A_TASK.get(named))
                function(**arguments)

            raise SystemExit(_guarded(work, debug))

        parameters = [value for name, value in signature.parameters.items() if name != "overrides"]
        if own_task:
            place = next(place for place, value in enumerate(parameters) if value.name == "task")
            task_type = Annotated[str | None, get_args(signature.parameters["task"].annotation)[1]]
            parameters[place] = parameters[place].replace(annotation=task_type, default=None)
            parameters.insert(place + 1, inspect.Parameter("task_file", keyword, default=None, annotation=_TASK_FILE))
        debug_type = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]
        parameters = [value.replace(kind=keyword) for value in parameters]
        parameters.append(inspect.Parameter("debug", keyword, default=False, annotation=debug_type))
        for flag, key, doc in known:
            name = flag.removeprefix("--").replace("-", "_")
            hidden = flag not in shown
            option = typer.Option(flag, help=f"{key}: {doc}", metavar="YAML", show_default=False, hidden=hidden)
            kind = Annotated[str | None, option]
            parameters.append(inspect.Parameter(name, keyword, default=None, annotation=kind))
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        context = {"ignore_unknown_options": True, "allow_interspersed_args": False} if passes_on else {}
        app.command(named, context_settings=context)(run)
        return function

    return register


def _task(task: str | None, file: Path | None, needed: str | None) -> str | Path | None:
    if task is not None and file is not None:
        raise InputError(f"--task-file: found {file} together with --task {task}, but must be one of the two.")
    if needed and task is None and file is None:
        raise InputError(f"--task: is missing: {needed}; or --task-file.")
    return task if file is None else file


def _guarded(work: Callable[[], None], debug: bool) -> int:
    global _search
    _search = None
    signal.signal(signal.SIGTERM, _terminated)
    try:
        work()
        sys.stdout.flush()
    except BrokenPipeError:
        # A closed pipe (`fsd-tune validate F | head`) is no failure of ours. Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (FsdTuneError, KeyboardInterrupt, OSError) as error:
        if debug:
            traceback.print_exc()
        lines, code = _said(error)
        print("\n".join(lines), file=sys.stderr)
        return code
    return 0


def _said(error: FsdTuneError | KeyboardInterrupt | OSError) -> tuple[list[str], int]:
    """What is printed of an error, and the exit code."""
    # A search keeps its trials, a memory its parts, a grid its teachers. A single training run is kept from its first
    # evaluation on, and says so in a note of the error.
    flags = {word.partition("=")[0].replace("_", "-") for word in sys.argv[1:]}
    grid = sys.argv[1:2] == ["teacher"] and bool(flags & {"--learning-rates", "--seeds"})
    single = sys.argv[1:2] in (["teacher"], ["distill"]) and not grid
    # --overwrite would delete what the search is to be continued from.
    words = [word for word in sys.argv[1:] if single or grid or word != "--overwrite"]
    if _search is not None and (open_experiment(_search).folder / "summary.json").is_file():
        words = ["resume", _search]
    notes = getattr(error, "__notes__", [])
    lost = single and not notes
    again = f"{'To start again' if lost else 'To continue'}: {shlex.join(['fsd-tune', *words])}"
    if isinstance(error, InputError):
        return [*(f"error: {problem}" for problem in error.problems), *([error.hint] if error.hint else [])], 2
    if isinstance(error, KeyboardInterrupt):
        kept = "nothing was written" if lost else "; ".join(notes) or "what was finished is kept"
        return [f"interrupted; {kept}.", again], 130
    if isinstance(error, FsdTuneError):
        return [f"failed: {error}", error.hint or again], error.exit_code
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error) or type(error).__name__
    if error.errno in _WRONG_PATH:
        return [f"error: {what}; give another path."], 2
    return [f"failed: {what}", again], 1


def _terminated(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _usage_problems(error: TyperException) -> list[str]:
    """What is wrong with a command line, the flag first, in the words of our other errors."""
    context, flag, parameter = (getattr(error, name, None) for name in ("ctx", "option_name", "param"))
    message = error.format_message()
    if context is not None and hasattr(error, "possibilities"):
        known = [option for parameter in context.command.params for option in parameter.opts]
        return [f"{flag}: {unknown_flag(str(flag), known)}"]
    if context is not None and hasattr(error, "param_type"):
        # Typer processes the given ones first: what is not there yet is missing, too.
        missing = [other for other in context.command.params if _is_missing(other, context)]
        return [
            f"{_name(other)}: is missing: {other.help}{'; or --task-file' if other.name == 'task' else ''}."
            for other in missing
        ]
    if parameter is not None or flag is not None:
        place = flag if parameter is None else _name(parameter)
        message = error.message.removeprefix(f"Option {flag!r} ").removesuffix(".")
        return [f"{place}: {message[:1].lower()}{message[1:]}."]
    return [message[:1].lower() + message[1:]]


def _is_missing(parameter: Any, context: Any) -> bool:
    if parameter.name == "task" and context.command.name in _NEED_A_TASK:
        return context.params.get("task") is None and context.params.get("task_file") is None
    return parameter.required and parameter.name not in context.params


def _name(parameter: Any) -> str:
    return str(parameter.opts[0] if parameter.param_type_name == "option" else parameter.name.upper())


def run() -> None:
    """Run the verb that the command line names, and exit."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="fsd-tune", standalone_mode=False)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        lines = [f"error: {problem}" for problem in _usage_problems(error)]
        lines += [f"See `{context.command_path} --help`."] if context is not None else []
        print("\n".join(lines), file=sys.stderr)
        code = error.exit_code
    raise SystemExit(code)
