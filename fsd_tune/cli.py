"""The verbs of `fsd-tune`. An error becomes one line each and an exit code: 0 done, 1 failed midway, 2 wrong input,
130 interrupted. What a verb does is imported when it runs, so that `--help` answers at once.
"""

import errno
import functools
import inspect
import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from fsd_tune import settings as settings_module
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.flags import unknown_flag
from fsd_tune.progress import Display

app = typer.Typer(
    help="Search over feature structure distillation (FSD): from a fine-tuned BERT to its best small student.",
    # Flags may be written with underscores, too.
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Space = Annotated[Path, typer.Argument(help="search-space YAML, such as search_spaces/fsd_ilg.yaml")]
OptionalSpace = Annotated[Path | None, typer.Argument(help="YAML with the settings; flags override it")]
TaskName = Annotated[str, typer.Option("--task", help="GLUE task: cola sst2 mrpc qqp stsb mnli qnli rte wnli")]
Teacher = Annotated[str, typer.Option("--teacher", help="fine-tuned teacher: folder or hub id")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="folder that holds SST-2/, RTE/ ...; without it nyu-mll/glue from the hub")
]
Output = Annotated[Path, typer.Option("--output", help="folder to write; new, or holding the same thing")]
MemoryFolder = Annotated[
    Path | None, typer.Option("--memory", help="folder for teacher memories; default <output>/memory")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what --output holds")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
AsJson = Annotated[bool, typer.Option("--json", help="the result as one JSON document on standard output")]
Address = Annotated[
    str | None, typer.Option("--address", help="Ray cluster to run on; without it a local Ray, or RAY_ADDRESS")
]
TemporaryFolder = Annotated[
    Path | None, typer.Option("--temp-dir", help="folder for Ray's sockets and logs (a short path); default /tmp/ray")
]


def _verb(settings_flags: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a verb: adds --debug (and a flag for every setting), and turns errors into lines and exit codes.

    A verb with settings flags takes them as `overrides`, {dotted key: YAML text}.
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
        app.command(function.__name__)(run)
        return function

    return register


def _guarded(work: Callable[[], None], debug: bool) -> int:
    signal.signal(signal.SIGTERM, _terminated)
    again = f"To continue: {shlex.join(['fsd-tune', *sys.argv[1:]])}"
    try:
        work()
        sys.stdout.flush()
    except InputError as error:
        lines, code = [f"error: {problem}" for problem in error.problems], error.exit_code
        lines += [error.hint] if error.hint else []
    except FsdTuneError as error:
        lines, code = [f"failed: {error}", error.hint or again], error.exit_code
    except KeyboardInterrupt:
        lines, code = ["interrupted; what was finished is kept.", again], 130
    except BrokenPipeError:
        # A closed pipe (`fsd-tune validate F | head`) is no failure of ours. Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        lines, code = [f"failed: no space left on the disk of {error.filename}.", again], 1
    else:
        return 0
    if debug:
        traceback.print_exc()
    print("\n".join(lines), file=sys.stderr)
    return code


def _terminated(number: int, frame: object) -> None:
    raise KeyboardInterrupt


Overrides = Callable[[], dict[str, str]]


@_verb()
def teacher(
    *,
    model: Annotated[str, typer.Option("--model", help="pretrained model: folder or hub id")],
    task: TaskName,
    output: Output,
    data: DataFolder = None,
    learning_rate: Annotated[float, typer.Option(min=1e-12, max=1.0, help="peak of the linear schedule")] = 5e-5,
    epochs: Annotated[int, typer.Option(min=1, help="passes over the training split")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="examples of a step")] = 32,
    warmup_ratio: Annotated[float, typer.Option(min=0.0, max=1.0, help="share of the steps that warm up")] = 0.0,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="AdamW's")] = 0.0,
    max_length: Annotated[int, typer.Option(min=4, help="tokens of an example")] = 128,
    freeze_embeddings: Annotated[bool, typer.Option("--freeze-embeddings", help="keep word embeddings")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of head, batch order and dropout")] = 0,
    precision: Annotated[str, typer.Option(help="auto, float32 or bf16")] = "auto",
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a teacher on a task."""
    _one_of("--precision", precision, ("auto", "float32", "bf16"))
    _one_of("--device", device, ("auto", "cpu", "cuda"))
    from fsd_tune.teacher import TeacherRun, fine_tune

    config = {
        "learning_rate": learning_rate,
        "epochs": epochs,
        "batch_size": batch_size,
        "warmup_ratio": warmup_ratio,
        "weight_decay": weight_decay,
        "gradient_accumulation": 1,
    }
    run = TeacherRun(model, task, data, output, config, max_length, freeze_embeddings, seed, epochs, device, precision)
    made = fine_tune(run, overwrite, Display(quiet))
    _print(made, as_json, [f"teacher: {made['metric']} {made['score']:.4f} on dev, in {output}"])


@_verb(settings_flags=True)
def memory(
    overrides: Overrides,
    *,
    space: Space,
    task: TaskName,
    teacher: Teacher,
    data: DataFolder = None,
    memory: Annotated[Path, typer.Option("--memory", help="folder for teacher memories")] = Path("memory"),
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Build a task's teacher outputs and memory ahead of a search, or find them built."""
    _one_of("--device", device, ("auto", "cpu", "cuda"))
    settings = settings_module.load(space, overrides())
    from fsd_tune.single import build_memory, gathered

    display = Display(quiet)
    _, spec = gathered(settings, task, teacher, data, memory, device, display)
    built = build_memory(spec, display)
    how = "built with one teacher pass" if built.passes else "reused, no teacher pass"
    facts = built.facts | {"passes": built.passes, "teacher": built.teacher_metrics, "folder": str(memory)}
    _print(facts, as_json, [f"teacher memory {facts['fingerprint']}: {how}, in {memory}"])


@_verb(settings_flags=True)
def distill(
    overrides: Overrides,
    *,
    space: OptionalSpace = None,
    task: TaskName,
    teacher: Teacher,
    output: Output,
    data: DataFolder = None,
    memory: MemoryFolder = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Distil one student; every hyperparameter is fixed by the YAML or a flag."""
    _one_of("--device", device, ("auto", "cpu", "cuda"))
    settings = settings_module.load(space, overrides())
    from fsd_tune import single

    made = single.distill(
        settings, task=task, teacher=teacher, data=data, output=output, memory=memory, device=device,
        overwrite=overwrite, display=Display(quiet),
    )  # fmt: skip
    score = made["teacher"]["score"]
    beside = "" if score is None else f" (teacher {score:.4f})"
    _print(made, as_json, [f"student: {made['metric']} {made['score']:.4f}{beside}, in {output}"])


@_verb()
def evaluate(
    *,
    student: Annotated[str, typer.Option("--student", help="student's (or teacher's) folder or hub id")],
    task: TaskName,
    data: DataFolder = None,
    precision: Annotated[str, typer.Option(help="auto, float32 or bf16")] = "float32",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a student on the task's dev splits."""
    _one_of("--precision", precision, ("auto", "float32", "bf16"))
    _one_of("--device", device, ("auto", "cpu", "cuda"))
    from fsd_tune import single

    found = single.evaluate(student, task, data, device, precision)
    lines = [
        f"{split} ({found['examples'][split]} examples): "
        + ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        for split, scores in found["splits"].items()
    ]
    _print(found, as_json, lines)


@_verb(settings_flags=True)
def search(
    overrides: Overrides,
    *,
    space: Space,
    task: TaskName,
    teacher: Teacher,
    data: DataFolder = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="the search's folder; default runs/<task>-<space>")
    ] = None,
    memory: MemoryFolder = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    address: Address = None,
    temp_dir: TemporaryFolder = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Search a space on Ray; the same command again continues an interrupted search."""
    _one_of("--device", device, ("auto", "cpu", "cuda"))
    settings = settings_module.load(space, overrides())
    from fsd_tune import search as searching
    from fsd_tune import summary

    results = searching.run(
        settings, task=task, teacher=teacher, data=data, output=output or Path("runs") / f"{task}-{space.stem}",
        memory=memory, device=device, overwrite=overwrite, address=address, ray_temporary=temp_dir,
        display=Display(quiet),
    )  # fmt: skip
    _print(summary.document(results), as_json, summary.lines(results))


@_verb()
def report(
    *,
    folder: Annotated[Path, typer.Argument(help="a search's folder")],
    as_json: AsJson = False,
) -> None:
    """Write a search's leaderboard and report.html, during it or after; from disk alone."""
    from fsd_tune import report as reporting
    from fsd_tune import summary

    results = reporting.load(folder)
    reporting.write(results)
    _print(summary.document(results), as_json, summary.lines(results))


@_verb(settings_flags=True)
def validate(
    overrides: Overrides,
    *,
    space: Space,
    task: Annotated[str | None, typer.Option("--task", help="also check this task's data and the teacher")] = None,
    teacher: Annotated[str | None, typer.Option("--teacher", help="teacher to check with --task")] = None,
    data: DataFolder = None,
) -> None:
    """Check a YAML (and, with --task and --teacher, data and models) and print every setting with its value."""
    settings = settings_module.load(space, overrides())
    if (task is None) != (teacher is None):
        raise InputError("--task and --teacher: give both to check data and models, or neither.")
    if task is not None and teacher is not None:
        from fsd_tune.inputs import gather

        gather(settings, task, teacher, data)
    print(settings_module.dump(settings), end="")


@_verb()
def demo(
    *,
    folder: Annotated[Path, typer.Option("--folder", help="where everything goes")] = Path("demo"),
    temp_dir: TemporaryFolder = None,
    quiet: Quiet = False,
) -> None:
    """The main job on real sentences: fetch input, fine-tune a teacher, search, report."""
    from fsd_tune import demo as demonstration
    from fsd_tune import summary

    results = demonstration.run(folder, temp_dir, Display(quiet))
    print("\n".join(summary.lines(results)))


def _one_of(flag: str, found: str, accepted: tuple[str, ...]) -> None:
    if found not in accepted:
        raise InputError(f"{flag}: found {found}, but must be {', '.join(accepted[:-1])} or {accepted[-1]}.")


def _print(value: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    print(json.dumps(value, indent=1) if as_json else "\n".join(lines))


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
        return [f"{place}: {error.message[:1].lower()}{error.message[1:].removesuffix('.')}."]
    return [message[:1].lower() + message[1:]]


def _name(parameter: Any) -> str:
    return str(parameter.opts[0] if parameter.param_type_name == "option" else parameter.name.upper())


def main() -> None:
    """The console script."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="fsd-tune", standalone_mode=False)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        lines = [f"error: {problem}" for problem in _usage_problems(error)]
        lines += [f"See `{context.command_path} --help`."] if context is not None else []
        print("\n".join(lines), file=sys.stderr)
        code = error.exit_code
    raise SystemExit(code)
