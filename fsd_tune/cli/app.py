"""The command `fsd-tune`, whose help groups verbs and flags, with a flag for every setting."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from fsd_tune.cli.errors import Invocation, guard, parameter_name, usage_lines
from fsd_tune.cli.streams import prepare_streams
from fsd_tune.errors import InputError, nearest
from fsd_tune.settings import loader
from fsd_tune.storage.uri import expanded

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Groups of verbs in `fsd-tune --help`, in their order.
TRAIN = "Train"
SEARCH = "Search"
INSPECT = "Inspect"
PUBLISH = "Publish"
CLUSTER = "Cluster"
_VERB_PANELS = (TRAIN, SEARCH, INSPECT, PUBLISH, CLUSTER)

# Groups of flags in `fsd-tune VERB --help`, in their order. A setting's section determines the group of its flag.
INPUTS = "Inputs"
TRAINING = "Training"
RUNNING = "Where it runs"
OUTPUT = "Output"
WANDB = "Weights & Biases"
OTHER = "Other"
_SECTION_PANELS = {
    "method": "Search space",
    "space": "Search space",
    "student": "Student",
    "data": "Data",
    "loss": "Loss",
    "published": "Loss",
    "optimizer": "Optimiser",
    "memory": "Teacher memory",
    "search": "Search",
    "asha": "Early stopping (ASHA)",
    "latency": "Latency",
    "resources": "Resources",
    "precision": "Resources",
    "wandb": WANDB,
}
_FLAG_PANELS = tuple(dict.fromkeys([INPUTS, OUTPUT, RUNNING, TRAINING, *_SECTION_PANELS.values(), OTHER]))


def _home_expanded(parameter: click.Parameter, value: Any) -> Any:
    """Expand `~` in the words of a parameter, because no shell does so in `--output=~/x`.

    The words that a verb passes on to a cluster are left alone, and so are settings, where `~` is YAML's null.
    """
    if isinstance(value, tuple | list):
        return type(value)(_home_expanded(parameter, part) for part in value)
    is_passed_on = isinstance(parameter.type, click.types.UnprocessedParamType) or parameter.metavar == "YAML"
    return expanded(value) if isinstance(value, str) and not is_passed_on else value


class Flag(click.Option):
    """An option with a group in the help."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert the value, with `~` expanded."""
        return super().type_cast_value(ctx, _home_expanded(self, value))

    def __init__(self, names: Sequence[str], panel: str = OTHER, **attributes: Any) -> None:
        super().__init__(names, **{"show_default": True} | attributes)
        self.panel = panel

    @property
    def missing_help(self) -> str:
        """The text of the error for a missing flag."""
        return self.help or ""


class TaskFlag(Flag):
    """`--task`, whose value `--task-file` can give instead."""

    @property
    def missing_help(self) -> str:
        """The text of the error for a missing flag."""
        return f"{self.help}; or --task-file"

    def handle_parse_result(self, ctx: click.Context, opts: Any, args: list[str]) -> tuple[Any, list[str]]:
        """Return the file of `--task-file` if it is given, else the value of `--task`.

        Raises:
            InputError: both flags are given.
        """
        file = opts.get("task_file")
        if file is None:
            return super().handle_parse_result(ctx, opts, args)
        if self.name in opts:
            raise InputError(
                f"--task-file: found {file} together with --task {opts[self.name]}, but must be one of the two."
            )
        return ctx.params[str(self.name)], args


class Argument(click.Argument):
    """A positional argument with a help text."""

    def __init__(self, *args: Any, help: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.panel = INPUTS
        self.missing_help = help

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert the value, with `~` expanded."""
        return super().type_cast_value(ctx, _home_expanded(self, value))

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Return the argument's name and its help."""
        return self.make_metavar(ctx), self.missing_help


class Verb(click.Command):
    """A verb, whose errors are printed as lines and whose help groups the flags.

    Attributes:
        panel: the group of the verb in `fsd-tune --help`.
        single_run: whether the verb trains one model.
    """

    def __init__(self, *args: Any, panel: str, single_run: bool, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.panel = panel
        self.single_run = single_run
        self.params.append(Flag(["--debug"], is_flag=True, help="Show the traceback of an error."))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Return the remaining arguments after parsing; the invocation keeps all of them as typed."""
        ctx.obj = Invocation(str(self.name), list(args), self.single_run, keeps_progress=not self.single_run)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> int:
        """Return the exit code of the verb after running it."""
        debug = ctx.params.pop("debug")
        return guard(lambda: super(Verb, self).invoke(ctx), ctx.obj, debug)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments and flags by group."""
        rows = [(getattr(param, "panel", OTHER), param.get_help_record(ctx)) for param in self.get_params(ctx)]
        _write_panels(formatter, _FLAG_PANELS, ((panel, record) for panel, record in rows if record is not None))


class Verbs(click.Group):
    """The command with all verbs, whose help groups them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by group, each with its complete first sentence."""
        verbs = [command for command in self.commands.values() if isinstance(command, Verb)]
        width = max(len(str(command.name)) for command in verbs)
        _write_panels(
            formatter,
            _VERB_PANELS,
            ((command.panel, (f"{command.name:{width}s}", command.get_short_help_str(limit=200))) for command in verbs),
        )

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the verb and its arguments; the error for an unknown verb names the nearest one."""
        name = args[0].replace("_", "-")
        if name not in self.commands and not name.startswith("-"):
            ctx.fail(f"no such command {args[0]!r}.{nearest(name, self.commands)}")
        return super().resolve_command(ctx, args)


def _write_panels(
    formatter: click.HelpFormatter, panels: Iterable[str], rows: Iterable[tuple[str, tuple[str, str]]]
) -> None:
    records: dict[str, list[tuple[str, str]]] = {panel: [] for panel in panels}
    for panel, record in rows:
        records[panel].append(record)
    for panel, panel_records in records.items():
        if panel_records:
            with formatter.section(panel):
                formatter.write_dl(panel_records)


@click.group(
    cls=Verbs,
    # Users can also write flags with underscores.
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
)
def app() -> None:
    """Search over feature structure distillation (FSD): from a fine-tuned BERT to its best small student."""


def option(*names: str, **attributes: Any) -> Decorator:
    """Return a decorator that adds a flag to a verb; see `Flag` and `click.option`.

    Args:
        names: the flag, such as `--max-length`.
        attributes: `panel`, `help`, `type`, `default`, `required`, `is_flag` and so on.
    """
    return click.option(*names, **{"cls": Flag} | attributes)


def argument(name: str, **attributes: Any) -> Decorator:
    """Return a decorator that adds a positional argument to a verb; see `Argument` and `click.argument`.

    Args:
        name: the name of the verb's parameter.
        attributes: `help`, `type`, `default`, `required`, `nargs` and so on.
    """
    return click.argument(name, cls=Argument, **attributes)


def verb(panel: str, *, settings: bool = False, single_run: bool = False, passes_on: bool = False) -> Decorator:
    """Return a decorator that makes a function a verb of `fsd-tune`.

    Args:
        panel: the group of the verb in `fsd-tune --help`.
        settings: add a flag for every setting; `Invocation.overrides` returns the values.
        single_run: whether the verb trains one model; see `Invocation`.
        passes_on: leave every word after the first argument unparsed, including flags.
    """
    context = {"ignore_unknown_options": True, "allow_interspersed_args": False} if passes_on else {}

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        command = click.command(
            function.__name__.replace("_", "-"),
            cls=Verb,
            panel=panel,
            single_run=single_run,
            context_settings=context,
        )(function)
        command.params += _setting_flags() if settings else []
        app.add_command(command)
        return function

    return register


def _setting_flags() -> list[click.Parameter]:
    """Return a flag for every setting; the help shows only the shortest of several flags for one key."""
    rows = loader.flags()
    visible_flags = {key: flag for flag, key, _ in sorted(rows, key=lambda row: -len(row[0]))}
    return [
        Flag(
            [flag],
            metavar="YAML",
            help=f"{key}: {text}",
            hidden=visible_flags[key] != flag,
            panel=_SECTION_PANELS[key.partition(".")[0]],
            expose_value=False,
            callback=_keep_setting,
        )
        for flag, key, text in rows
    ]


def _keep_setting(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.obj.setting_flags.append(f"{parameter_name(parameter)}={value}")


def run() -> None:
    """Run the verb that the command line names, and exit."""
    prepare_streams()
    try:
        code = app.main(args=sys.argv[1:] or ["--help"], prog_name="fsd-tune", standalone_mode=False)
    except click.ClickException as error:
        print("\n".join(usage_lines(error)), file=sys.stderr)
        code = error.exit_code
    except InputError as error:  # The parser refuses a value.
        print("\n".join(f"error: {problem}" for problem in error.problems), file=sys.stderr)
        code = error.exit_code
    except click.Abort:
        code = 130
    except OSError as error:  # A help text that cannot be printed.
        print(f"failed: standard output: {error.strerror}", file=sys.stderr)
        code = 1
    raise SystemExit(code)
