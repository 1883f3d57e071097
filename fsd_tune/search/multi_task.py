"""One command for several tasks: each has its own search, folder, study and memory, in turn on one cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from fsd_tune.cluster import connection
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.progress import Display, duration
from fsd_tune.report import summary
from fsd_tune.report.results import Results
from fsd_tune.search import api as search
from fsd_tune.settings.loader import Settings


@dataclass(frozen=True)
class Outcome:
    """What came of one task: its results, or why there are none."""

    task: str
    folder: str
    results: Results | None = None
    failure: str = ""


def run(
    settings: Settings,
    tasks: Sequence[str],
    *,
    teachers: Sequence[str],
    output: Sequence[Path | str],
    data: Path | None = None,
    memory: Path | str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    address: str | None = None,
    ray_temporary: Path | None = None,
    display: Display | None = None,
) -> list[Outcome]:
    """Search for each task in turn; the inputs of all are checked before the first one starts.

    A task that fails midway does not keep the others from running.

    Args:
        settings: of every search.
        tasks: ids of GLUE tasks.
        teachers: folder or hub id of each task's teacher.
        output: the folder of each task's search.
        data, memory, device, overwrite, address, ray_temporary, display: as for `search.run`.

    Raises:
        InputError: with the problems of all tasks.
    """
    display = display or Display(quiet=True)
    planned: list[search.Plan] = []
    problems: dict[str, None] = {}  # in order, what is wrong for every task once
    hints = []
    for task, teacher, folder in zip(tasks, teachers, output, strict=True):
        try:
            display.line(f"{task}: checking its inputs")
            planned.append(
                search.plan(
                    settings, task=task, teacher=teacher, output=folder, data=data, memory=memory,
                    device=device, overwrite=overwrite, address=address,
                )
            )  # fmt: skip
        except InputError as error:
            problems |= dict.fromkeys(error.problems)
            hints.append(error.hint)
    if problems:
        raise InputError(problems, next(filter(None, hints), ""))
    outcomes = []
    with connection.connect(address, ray_temporary):
        for number, (task, plan) in enumerate(zip(tasks, planned, strict=True), start=1):
            display.line(f"{task}: task {number} of {len(tasks)}, in {plan.where.name}")
            try:
                results = search.execute(plan, overwrite=overwrite, display=display)
                outcomes.append(Outcome(task, plan.where.name, results))
            except FsdTuneError as error:
                display.line(f"{task}: failed: {error}")
                outcomes.append(Outcome(task, plan.where.name, failure=str(error)))
    return outcomes


def table(outcomes: Sequence[Outcome]) -> Table:
    """A row for each task: its best student beside its teacher, and what the search took."""
    made = Table("task", "metric", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("best student", "teacher", "kept", "trials", "steps saved", "wall time"):
        made.add_column(heading, justify="right")
    made.add_column("folder", overflow="fold")
    for outcome in outcomes:
        results = outcome.results
        if results is None:
            made.add_row(outcome.task, "", "failed", *[""] * 5, outcome.folder)
            continue
        found = summary.document(results)
        best, teacher = found["best"]["score"], (found["teacher"] or {}).get("score")
        made.add_row(
            outcome.task,
            results.metric,
            f"{best:.4f}",
            "" if teacher is None else f"{teacher:.4f}",
            f"{best / teacher:.1%}" if teacher is not None and teacher > 0 else "",
            str(len(results.trials)),
            f"{results.saved['share']:.0%}",
            duration(found["wall_seconds"] or 0),
            outcome.folder,
        )
    return made


def document(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The same for machines: `summary.document` of each task, or {"failed": why}."""
    return {
        "tasks": {
            outcome.task: {"failed": outcome.failure} if outcome.results is None else summary.document(outcome.results)
            for outcome in outcomes
        }
    }


def check(outcomes: Sequence[Outcome]) -> None:
    """Say which tasks failed.

    Raises:
        FsdTuneError: at least one did.
    """
    failed = [f"{outcome.task}: {outcome.failure}" for outcome in outcomes if outcome.results is None]
    if failed:
        raise FsdTuneError(f"{len(failed)} of {len(outcomes)} tasks. " + " ".join(failed))
