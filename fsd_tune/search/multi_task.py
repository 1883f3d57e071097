"""Search several tasks in turn on one cluster. Each task has its own search, folder, study and memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from fsd_tune.cluster import connection
from fsd_tune.errors import FsdTuneError, ProblemCollector
from fsd_tune.progress import duration
from fsd_tune.report import summary
from fsd_tune.report.results import Results
from fsd_tune.search.api import execute
from fsd_tune.search.options import RunOptions, SearchInputs
from fsd_tune.search.plan import SearchPlan, plan_search
from fsd_tune.search.process_state import preserved_process_state
from fsd_tune.settings.loader import Settings


@dataclass(frozen=True)
class Outcome:
    """The outcome of one task: its results, or the reason why there are none."""

    task: str
    folder: str
    results: Results | None = None
    failure: str = ""


def run_searches(
    settings: Settings, searches: Sequence[SearchInputs], options: RunOptions | None = None
) -> list[Outcome]:
    """Run a search for each task in turn, after checking the inputs of all tasks.

    With `search.warm_from: auto` a task begins with configurations that were good in the tasks before it. If a task
    fails midway, the other tasks still run, and learn nothing from it.

    Args:
        settings: the settings of every search.
        searches: the inputs of each search.
        options: the options of every run; None for the defaults.

    Returns:
        The outcome of each task, in the order of `searches`.

    Raises:
        InputError: the inputs of a task have problems. It names those of all tasks.
    """
    options = options or RunOptions()
    display = options.shown()
    with preserved_process_state():
        plans = _plan_all(settings, searches, options)
        outcomes: list[Outcome] = []
        with connection.connect(options.address, options.ray_temporary):
            for number, (inputs, plan) in enumerate(zip(searches, plans, strict=True), start=1):
                task = str(inputs.task)
                folder = plan.experiment.name
                display.line(f"{task}: task {number} of {len(searches)}, in {folder}")
                try:
                    before = [outcome.folder for outcome in outcomes if outcome.results is not None]
                    outcomes.append(Outcome(task, folder, execute(plan.warmed_by(before), options)))
                except FsdTuneError as error:
                    display.line(f"{task}: failed: {error}")
                    outcomes.append(Outcome(task, folder, failure=str(error)))
    return outcomes


def _plan_all(settings: Settings, searches: Sequence[SearchInputs], options: RunOptions) -> list[SearchPlan]:
    problems = ProblemCollector()
    plans = []
    for inputs in searches:
        with problems.collect():
            options.shown().line(f"{inputs.task}: checking its inputs")
            plans.append(plan_search(settings, inputs, options))
    # List a problem that several tasks share only once.
    problems.lines = list(dict.fromkeys(problems.lines))
    problems.raise_any()
    return plans


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return a table with a row for each task: its best student beside its teacher, and the cost of the search.

    Args:
        outcomes: the outcome of each task.
    """
    rows = Table("task", "metric", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("best student", "teacher", "kept", "trials", "steps saved", "wall time"):
        rows.add_column(heading, justify="right")
    rows.add_column("folder", overflow="fold")
    for outcome in outcomes:
        results = outcome.results
        if results is None:
            rows.add_row(outcome.task, "", "failed", *[""] * 5, outcome.folder)
            continue
        facts = summary.summary_document(results)
        best = facts["best"]["score"]
        teacher = (facts["teacher"] or {}).get("score")
        rows.add_row(
            outcome.task,
            results.metric,
            f"{best:.4f}",
            "" if teacher is None else f"{teacher:.4f}",
            f"{best / teacher:.1%}" if teacher is not None and teacher > 0 else "",
            str(len(results.trials)),
            f"{results.saved['share']:.0%}",
            duration(facts["wall_seconds"] or 0),
            outcome.folder,
        )
    return rows


def tasks_document(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the outcomes as plain values: `summary_document` of each task, or {"failed": reason}.

    Args:
        outcomes: the outcome of each task.

    Returns:
        {"tasks": {task: values}}.
    """
    return {
        "tasks": {
            outcome.task: {"failed": outcome.failure}
            if outcome.results is None
            else summary.summary_document(outcome.results)
            for outcome in outcomes
        }
    }


def check(outcomes: Sequence[Outcome]) -> None:
    """Raise an error if a task has failed.

    Args:
        outcomes: the outcome of each task.

    Raises:
        FsdTuneError: a task has failed. It names all failed tasks.
    """
    failed = [f"{outcome.task}: {outcome.failure}" for outcome in outcomes if outcome.results is None]
    if failed:
        raise FsdTuneError(f"{len(failed)} of {len(outcomes)} tasks failed. " + " ".join(failed))
