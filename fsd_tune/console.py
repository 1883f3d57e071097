"""How verbs are registered and run, and how their errors are said: lines and an exit code.

0 done, 1 failed midway, 2 wrong input, 130 interrupted.
"""

import functools
import inspect
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from fsd_tune import settings as settings_module
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.flags import unknown_flag

app = typer.Typer(
    help="Search over feature structure distillation (FSD): from a fine-tuned BERT to its best small student.",
    # Flags may be written with underscores, too.
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


# The search that the running verb is at: once its folder describes it, `resume` goes on from there.
_search: str | None = None


def searching(folder: str) -> None:
    """Say which search's folder `resume` would go on from if this verb is interrupted."""
    global _search
    _search = folder


def verb(settings_flags: bool = False, passes_on: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a verb: adds --debug (and a flag for every setting), and turns errors into lines and exit codes.

    A verb with settings flags takes them as `overrides`, {dotted key: YAML text}; one that passes on takes every word
    after its first argument as it is, flags too.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        known = settings_module.flags() if settings_flags else []
        keys = {flag.removeprefix("--").replace("-", "_"): key for flag, key, _ in known}

        @functools.wraps(function)
        def run(*, debug: bool, **arguments: Any) -> None:
            given = {name: arguments.pop(name) for name in keys}
            if settings_flags:
                flat = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
                arguments["overrides"] = functools.partial(settings_module.parse_flags, flat)
            raise SystemExit(_guarded(functools.partial(function, **arguments), debug))

        signature = inspect.signature(function, eval_str=True)
        parameters = [value for name, value in signature.parameters.items() if name != "overrides"]
        option = inspect.Parameter.KEYWORD_ONLY
        debug_type = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]
        parameters = [value.replace(kind=option) for value in parameters]
        parameters.append(inspect.Parameter("debug", option, default=False, annotation=debug_type))
        for flag, key, doc in known:
            name = flag.removeprefix("--").replace("-", "_")
            kind = Annotated[str | None, typer.Option(flag, help=f"{key}: {doc}", metavar="YAML", show_default=False)]
            parameters.append(inspect.Parameter(name, option, default=None, annotation=kind))
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        context = {"ignore_unknown_options": True, "allow_interspersed_args": False} if passes_on else {}
        app.command(function.__name__.replace("_", "-"), context_settings=context)(run)
        return function

    return register


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
    # A search keeps its trials, a memory its parts; a single training run is written at its end.
    single = sys.argv[1:2] in (["teacher"], ["distill"])
    # --overwrite would delete what the search is to be continued from.
    words = [word for word in sys.argv[1:] if single or word != "--overwrite"]
    if _search is not None:
        from fsd_tune import place

        if (place.at(_search).folder / "summary.json").is_file():
            words = ["resume", _search]
    again = f"{'To start again' if single else 'To continue'}: {shlex.join(['fsd-tune', *words])}"
    if isinstance(error, InputError):
        return [*(f"error: {problem}" for problem in error.problems), *([error.hint] if error.hint else [])], 2
    if isinstance(error, KeyboardInterrupt):
        kept = "nothing was written" if single else "what was finished is kept"
        return [f"interrupted; {kept}.", again], 130
    if isinstance(error, FsdTuneError):
        return [f"failed: {error}", error.hint or again], error.exit_code
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error) or type(error).__name__
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
        missing = [other for other in context.command.params if other.required and other.name not in context.params]
        return [f"{_name(other)}: is missing: {other.help}." for other in missing]
    if parameter is not None or flag is not None:
        place = flag if parameter is None else _name(parameter)
        message = error.message.removeprefix(f"Option {flag!r} ").removesuffix(".")
        return [f"{place}: {message[:1].lower()}{message[1:]}."]
    return [message[:1].lower() + message[1:]]


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
