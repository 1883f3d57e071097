"""Translate errors into lines on standard error and an exit code.

The exit codes are 0 for done, 1 for failed midway, 2 for wrong input and 130 for interrupted.
"""

import errno
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import click

from fsd_tune.cluster.signals import ending_signals, interrupt
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.settings import loader
from fsd_tune.settings.overrides import unknown_flag
from fsd_tune.storage.io_errors import as_os_error
from fsd_tune.storage.layout import SUMMARY

# System errors for a path that cannot be used. They occur only before work starts.
_WRONG_PATH = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


@dataclass
class Invocation:
    """One call of a verb, kept in the click context.

    Attributes:
        verb: name of the verb.
        words: its arguments as the user typed them.
        single_run: whether the verb trains one model. An interrupted training then keeps only the work that a note of
            the error names, and the command that continues needs `--overwrite`, if it was given.
        keeps_progress: whether the same command continues after an interruption; if not, it starts again.
        search: folder or URI of the search that the verb works on, which `resume` continues.
        setting_flags: the flags that override settings, as `--flag=value`.
    """

    verb: str
    words: list[str]
    single_run: bool = False
    keeps_progress: bool = True
    search: str | None = None
    setting_flags: list[str] = field(default_factory=list)

    def overrides(self) -> dict[str, str]:
        """Return the settings that flags override, as {dotted key: YAML text}.

        Raises:
            InputError: two flags give the same setting.
        """
        return loader.parse_flags(self.setting_flags)

    def next_command(self) -> str:
        """Return the line with the command that continues or repeats this one."""
        from fsd_tune.storage.open_folder import open_experiment

        words = [self.verb, *self.words]
        if self.search is not None and (open_experiment(self.search).folder / SUMMARY).is_file():
            words = ["resume", self.search]
        elif not self.single_run and self.keeps_progress:
            # `--overwrite` would delete the work that the command continues.
            words = [word for word in words if word != "--overwrite"]
        return f"{'To continue' if self.keeps_progress else 'To start again'}: {shlex.join(['fsd-tune', *words])}"


def guard(work: Callable[[], object], invocation: Invocation, debug: bool) -> int:
    """Run a verb and return its exit code; print errors as lines on standard error.

    Args:
        work: the function that runs the verb.
        invocation: the call of the verb.
        debug: also print the traceback of an error.

    Returns:
        0 if the verb succeeded, else the code from `error_lines`.
    """
    for number in ending_signals():
        if number != signal.SIGINT:
            signal.signal(number, interrupt)
    try:
        work()
    except (Exception, KeyboardInterrupt) as error:
        known = error if isinstance(error, FsdTuneError | KeyboardInterrupt) else as_os_error(error)
        if known is None:
            raise
        if known is not error:
            known.__notes__ = getattr(error, "__notes__", [])
        if debug:
            traceback.print_exc()
        lines, code = error_lines(known, invocation)
        print("\n".join(lines), file=sys.stderr)
        return code
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"failed: the work is done, but its result cannot be printed: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def error_lines(error: FsdTuneError | KeyboardInterrupt | OSError, invocation: Invocation) -> tuple[list[str], int]:
    """Return the lines to print about an error, and the exit code.

    Args:
        error: the error that the verb raised.
        invocation: the call of the verb.

    Returns:
        The lines, and the exit code: 2 for wrong input, 130 for an interruption, else the error's code (default 1).
    """
    if isinstance(error, InputError):
        return [*(f"error: {problem}" for problem in error.problems), *([error.hint] if error.hint else [])], 2
    # A training run adds a note to the error if it has kept a checkpoint.
    notes = getattr(error, "__notes__", [])
    invocation = replace(invocation, keeps_progress=invocation.keeps_progress or bool(notes))
    if isinstance(error, KeyboardInterrupt):
        progress = "; ".join(notes) or (
            "what was finished is kept" if invocation.keeps_progress else "nothing was written"
        )
        return [f"interrupted; {progress}.", invocation.next_command()], 130
    if isinstance(error, FsdTuneError):
        return [f"failed: {error}", error.hint or invocation.next_command()], error.exit_code
    text = (
        f"{error.filename}: {error.strerror}"
        if error.filename
        else error.strerror or str(error) or type(error).__name__
    )
    if error.errno in _WRONG_PATH:
        return [f"error: {text}; give another path."], 2
    return [f"failed: {text}", invocation.next_command()], 1


def usage_lines(error: click.ClickException) -> list[str]:
    """Return a line for each problem of a command line that cannot be parsed; a line starts with the flag.

    Args:
        error: the error that click raised.
    """
    context = getattr(error, "ctx", None)
    lines = [f"error: {problem}" for problem in _usage_problems(error, context)]
    return lines if context is None else [*lines, f"See `{context.command_path} --help`."]


def _usage_problems(error: click.ClickException, context: click.Context | None) -> list[str]:
    message = error.format_message().removesuffix(".")
    if isinstance(error, click.NoSuchOption) and context is not None:
        known = [name for parameter in context.command.params for name in parameter.opts]
        return [f"{error.option_name}: {unknown_flag(error.option_name, known)}"]
    if isinstance(error, click.MissingParameter) and context is not None:
        # Click converts the given parameters first, so all parameters without a value are missing.
        missing = [
            parameter
            for parameter in context.command.params
            if parameter.required and parameter.name not in context.params
        ]
        return [
            f"{parameter_name(parameter)}: is missing: {getattr(parameter, 'missing_help', '')}."
            for parameter in missing
        ]
    if isinstance(error, click.BadOptionUsage):
        message = message.removeprefix(f"Option {error.option_name!r} ")
        return [f"{error.option_name}: {_lower(message)}."]
    if isinstance(error, click.BadParameter) and error.param is not None:
        return [f"{parameter_name(error.param)}: {_lower(error.message.removesuffix('.'))}."]
    return [_lower(message) + ("" if message.endswith(("?", "`")) else ".")]


def parameter_name(parameter: click.Parameter) -> str:
    """Return the name of a parameter in errors: its flag, or an argument's name in capitals.

    Args:
        parameter: the parameter of a verb.
    """
    return parameter.opts[0] if isinstance(parameter, click.Option) else str(parameter.name).upper()


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
