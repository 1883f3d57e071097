"""The verbs of `fsd-tune`. What a verb does is imported when it runs, so that `--help` answers at once."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from fsd_tune import console, hub
from fsd_tune import settings as settings_module
from fsd_tune.console import verb
from fsd_tune.errors import InputError
from fsd_tune.options import (
    Address,
    AsJson,
    DataFolder,
    Device,
    MemoryFolder,
    OptionalSpace,
    Output,
    Overwrite,
    Quiet,
    Space,
    TaskName,
    Teacher,
    TemporaryFolder,
    Verbose,
)
from fsd_tune.progress import Display

Overrides = Callable[[], dict[str, str]]


def _load(
    space: Path | None, overrides: Overrides, task: str | None, teacher: str | None, data: Path | None
) -> settings_module.Settings:
    """The settings; where they are wrong, what is wrong with the other inputs at first sight is said with it."""
    try:
        return settings_module.load(space, overrides())
    except InputError as error:
        from fsd_tune import glue

        problems = list(error.problems)
        if task is not None:
            try:
                glue.load(glue.get_task(task), ("train", "dev") if data is not None else (), data)
            except InputError as other:
                problems += other.problems
        problems += [] if teacher is None else hub.model_problems(teacher, "--teacher")
        raise InputError(problems, error.hint) from error


@verb()
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
    holdout: Annotated[
        float | None,
        typer.Option("--holdout", min=1e-9, max=0.5, help="share of the training split that a search is to select on"),
    ] = None,
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
    run = TeacherRun(
        model, task, data, output, config, max_length, freeze_embeddings, seed, epochs, device, precision, holdout
    )
    with closing(Display(quiet)) as display:
        made = fine_tune(run, overwrite, display)
    _print(made, as_json, [f"teacher: {made['metric']} {made['score']:.4f} on dev, in {output}"])


@verb(settings_flags=True)
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
    _folder_or_new("--memory", memory)
    settings = _load(space, overrides, task, teacher, data)
    from fsd_tune.single import build_memory, gathered

    with closing(Display(quiet)) as display:
        _, spec = gathered(settings, task, teacher, data, memory, device, display)
        built = build_memory(spec, display)
    how = "built with one teacher pass" if built.passes else "reused, no teacher pass"
    facts = built.facts | {"passes": built.passes, "teacher": built.teacher_metrics, "folder": str(memory)}
    _print(facts, as_json, [f"teacher memory {facts['fingerprint']}: {how}, in {memory}"])


@verb(settings_flags=True)
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
    _folder_or_new("--memory", memory)
    settings = _load(space, overrides, task, teacher, data)
    from fsd_tune import single

    with closing(Display(quiet)) as display:
        made = single.distill(
            settings, task=task, teacher=teacher, data=data, output=output, memory=memory, device=device,
            overwrite=overwrite, display=display,
        )  # fmt: skip
    score = made["teacher"]["score"]
    beside = "" if score is None else f" (teacher {score:.4f})"
    lines = [f"student: {made['metric']} {made['score']:.4f}{beside}, in {output}"]
    if "dev" in made:
        lines.append(f"on dev, which selected nothing: {made['metric']} {made['dev']['score']:.4f}")
    _print(made, as_json, lines)


@verb()
def evaluate(
    *,
    student: Annotated[str, typer.Option("--student", help="student's (or teacher's) folder or hub id")],
    task: TaskName,
    data: DataFolder = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, float32 or bf16; default: what the folder records, else float32")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a student on the task's dev splits."""
    if precision is not None:
        _one_of("--precision", precision, ("auto", "float32", "bf16"))
    _one_of("--device", device, ("auto", "cpu", "cuda"))
    from fsd_tune import single

    found = single.evaluate(student, task, data, device, precision)
    lines = [
        f"{split} ({found['examples'][split]} examples, {found['precision']}): "
        + ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        for split, scores in found["splits"].items()
    ]
    _print(found, as_json, lines)


@verb(settings_flags=True)
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
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Search a space on Ray; the same command again, or `resume`, goes on with an interrupted search."""
    _one_of("--device", device, ("auto", "cpu", "cuda"))
    _folder_or_new("--memory", memory)
    settings = _load(space, overrides, task, teacher, data)
    from fsd_tune import search as searching
    from fsd_tune import summary

    output = output or Path("runs") / f"{task}-{space.stem}"
    console.searching(output)
    with closing(Display(quiet, verbose)) as display:
        results = searching.run(
            settings, task=task, teacher=teacher, data=data, output=output,
            memory=memory, device=device, overwrite=overwrite, address=address, ray_temporary=temp_dir,
            display=display,
        )  # fmt: skip
    _print(summary.document(results), as_json, summary.lines(results))


@verb(settings_flags=True)
def resume(
    overrides: Overrides,
    *,
    folder: Annotated[Path, typer.Argument(help="a search's folder")],
    errored: Annotated[bool, typer.Option("--errored", help="run failed trials again")] = False,
    address: Address = None,
    temp_dir: TemporaryFolder = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a search that was interrupted, or with more --trials; of the settings only budgets and resources."""
    from fsd_tune import search as searching
    from fsd_tune import summary

    console.searching(folder)
    with closing(Display(quiet, verbose)) as display:
        results = searching.resume(
            folder, overrides(), errored=errored, address=address, ray_temporary=temp_dir, display=display
        )
    _print(summary.document(results), as_json, summary.lines(results))


@verb()
def confirm(
    *,
    folder: Annotated[Path, typer.Argument(help="a finished search's folder")],
    top: Annotated[int, typer.Option("--top", help="its best configurations, which compete again")] = 5,
    seeds: Annotated[int, typer.Option("--seeds", help="selection seeds: the best mean on them wins")] = 5,
    fresh_seeds: Annotated[
        int, typer.Option("--fresh-seeds", help="seeds that chose nothing, for the winner and the baselines")
    ] = 5,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", help="a finished search over kd, for a tuned baseline; without it kd's defaults"),
    ] = None,
    address: Address = None,
    temp_dir: TemporaryFolder = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Confirm a search's winner on fresh seeds against baselines; the same command again continues."""
    from fsd_tune import confirm as confirming
    from fsd_tune import confirm_report

    with closing(Display(quiet)) as display:
        made = confirming.run(
            folder, top=top, seeds=seeds, fresh_seeds=fresh_seeds, baseline=baseline, address=address,
            ray_temporary=temp_dir, display=display,
        )  # fmt: skip
    _print(made, as_json, confirm_report.lines(made, folder))


@verb()
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


@verb(settings_flags=True)
def validate(
    overrides: Overrides,
    *,
    space: Space,
    task: Annotated[str | None, typer.Option("--task", help="also check this task's data and the teacher")] = None,
    teacher: Annotated[str | None, typer.Option("--teacher", help="teacher to check with --task")] = None,
    data: DataFolder = None,
) -> None:
    """Check a YAML (and, with --task and --teacher, data and models) and print every setting with its value."""
    settings = _load(space, overrides, task, teacher, data)
    if (task is None) != (teacher is None):
        raise InputError("--task and --teacher: give both to check data and models, or neither.")
    if task is not None and teacher is not None:
        from fsd_tune.inputs import gather

        gather(settings, task, teacher, data)
    print(settings_module.dump(settings), end="")


@verb()
def demo(
    *,
    folder: Annotated[Path, typer.Option("--folder", help="where everything goes")] = Path("demo"),
    temp_dir: TemporaryFolder = None,
    quiet: Quiet = False,
) -> None:
    """The main job on real sentences: fetch input, fine-tune a teacher, search, report."""
    from fsd_tune import demo as demonstration
    from fsd_tune import summary

    with closing(Display(quiet)) as display:
        results = demonstration.run(folder, temp_dir, display)
    print("\n".join(summary.lines(results)))


def _folder_or_new(flag: str, path: Path | None) -> None:
    if path is not None and path.exists() and not path.is_dir():
        raise InputError(f"{flag}: {path} is a file, but must be a folder or new.")


def _one_of(flag: str, found: str, accepted: tuple[str, ...]) -> None:
    if found not in accepted:
        raise InputError(f"{flag}: found {found}, but must be {', '.join(accepted[:-1])} or {accepted[-1]}.")


def _print(value: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    print(json.dumps(value, indent=1) if as_json else "\n".join(lines))


def main() -> None:
    """The console script."""
    console.run()
