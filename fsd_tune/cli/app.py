"""The command `fsd-tune`: its verbs in groups, their flags in groups, and a flag for every setting."""

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

# Groups of flags in `fsd-tune VERB --help`, in their order. The settings' groups are named by their section.
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
    "memory": "Teacher memory",
    "search": "Search",
    "asha": "Early stopping (ASHA)",
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
    """An option that belongs to a group of the help."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert the value, with `~` expanded."""
        return super().type_cast_value(ctx, _home_expanded(self, value))

    def __init__(self, names: Sequence[str], panel: str = OTHER, **attributes: Any) -> None:
        super().__init__(names, **{"show_default": True} | attributes)
        self.panel = panel

    @property
    def missing_help(self) -> str:
        """What an error says when the flag is missing."""
        return self.help or ""


class TaskFlag(Flag):
    """`--task`, whose value `--task-file` can give instead."""

    @property
    def missing_help(self) -> str:
        """What an error says when the flag is missing."""
        return f"{self.help}; or --task-file"

    def handle_parse_result(self, ctx: click.Context, opts: Any, args: list[str]) -> tuple[Any, list[str]]:
        """Use the file that `--task-file` gave.

        Raises:
            InputError: `--task` is given, too.
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
    """An argument that the help explains."""

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
    """A verb: it runs guarded, and its help groups the flags.

    Attributes:
        panel: the group of the verb.
        single_run: whether it trains one model.
    """

    def __init__(self, *args: Any, panel: str, single_run: bool, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.panel = panel
        self.single_run = single_run
        self.params.append(Flag(["--debug"], is_flag=True, help="Show the traceback of an error."))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and keep them as they were typed for the command that continues."""
        ctx.obj = Invocation(str(self.name), list(args), self.single_run, keeps_progress=not self.single_run)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> int:
        """Run the verb and return its exit code."""
        debug = ctx.params.pop("debug")
        return guard(lambda: super(Verb, self).invoke(ctx), ctx.obj, debug)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments and flags by group."""
        rows = [(getattr(param, "panel", OTHER), param.get_help_record(ctx)) for param in self.get_params(ctx)]
        _write_panels(formatter, _FLAG_PANELS, ((panel, record) for panel, record in rows if record is not None))


class Verbs(click.Group):
    """The command with all verbs, grouped in its help."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by group, each with its whole first sentence."""
        verbs = [command for command in self.commands.values() if isinstance(command, Verb)]
        width = max(len(str(command.name)) for command in verbs)
        _write_panels(
            formatter,
            _VERB_PANELS,
            ((command.panel, (f"{command.name:{width}s}", command.get_short_help_str(limit=200))) for command in verbs),
        )

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the verb; for an unknown one the error names the nearest."""
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
    for panel, of_panel in records.items():
        if of_panel:
            with formatter.section(panel):
                formatter.write_dl(of_panel)


@click.group(
    cls=Verbs,
    # Flags can be written with underscores, too.
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
)
def app() -> None:
    """Search over feature structure distillation (FSD): from a fine-tuned BERT to its best small student."""


def option(*names: str, **attributes: Any) -> Decorator:
    """Return a decorator that adds a flag to a verb; see `Flag` and `click.option`.

    Args:
        names: the flag, as `--max-length`.
        attributes: `panel`, `help`, `type`, `default`, `required`, `is_flag` and so on.
    """
    return click.option(*names, **{"cls": Flag} | attributes)


def argument(name: str, **attributes: Any) -> Decorator:
    """Return a decorator that adds a positional argument to a verb; see `Argument` and `click.argument`.

    Args:
        name: of the verb's parameter.
        attributes: `help`, `type`, `default`, `required`, `nargs` and so on.
    """
    return click.argument(name, cls=Argument, **attributes)


def verb(panel: str, *, settings: bool = False, single_run: bool = False, passes_on: bool = False) -> Decorator:
    """Return a decorator that makes a function a verb of `fsd-tune`.

    Args:
        panel: the group of the verb in `fsd-tune --help`.
        settings: add a flag for every setting; `Invocation.overrides` gives their values.
        single_run: whether the verb trains one model; see `Invocation`.
        passes_on: take every word after the first argument as it is, flags too.
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
    """Return a flag for every setting; of two flags for one key the help shows the shorter."""
    rows = loader.flags()
    shown = {key: flag for flag, key, _ in sorted(rows, key=lambda row: -len(row[0]))}
    return [
        Flag(
            [flag],
            metavar="YAML",
            help=f"{key}: {text}",
            hidden=shown[key] != flag,
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
    except InputError as error:  # a value that the parser refuses
        print("\n".join(f"error: {problem}" for problem in error.problems), file=sys.stderr)
        code = error.exit_code
    except click.Abort:
        code = 130
    raise SystemExit(code)
