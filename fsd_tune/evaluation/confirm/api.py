"""Confirm a search's winner: its best configurations on selection seeds, then the winner and baselines on fresh ones.

A search's best score is the largest of many noisy ones, so it is too optimistic. The winner's score on seeds that
selected nothing can be reported, beside baselines on the same seeds.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsd_tune.cluster import destination
from fsd_tune.errors import InputError
from fsd_tune.evaluation.confirm import inputs, stages
from fsd_tune.evaluation.confirm.counts import SeedCounts
from fsd_tune.evaluation.confirm.figures import confirmation_summary, run_requests, run_row, score_table
from fsd_tune.evaluation.confirm.inputs import ConfirmationPlan
from fsd_tune.evaluation.confirm.run_store import read_records
from fsd_tune.evaluation.confirm.runs import ConfirmationRuns
from fsd_tune.progress import Display
from fsd_tune.report import html_report
from fsd_tune.search.folder import hold_folder
from fsd_tune.storage import artifacts, layout, open_folder
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.uri import is_uri
from fsd_tune.versions import versions


def confirm(
    folder: Path | str,
    *,
    top: int = 5,
    seeds: int = 5,
    fresh_seeds: int | None = None,
    max_seeds: int | None = None,
    detect: float | None = None,
    baseline: Path | str | None = None,
    address: str | None = None,
    ray_temporary: Path | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """Confirm a search's winner on fresh seeds against baselines, or continue an interrupted confirmation.

    The best configurations of the search compete on selection seeds. The winner and the baselines are then trained on
    fresh seeds, which selected nothing. Runs that have ended are never trained again.

    Example:
        >>> import fsd_tune as fsd
        >>> confirmation = fsd.confirm("runs/rte", baseline="runs/rte-kd")  # doctest: +SKIP
        >>> confirmation["optimism"]  # doctest: +SKIP
        {'search': 0.7076, 'selection': 0.6931, 'fresh': 0.6902}

    Args:
        folder: the folder of a finished search, a path or a URI. Everything is written into its subfolder `confirm/`,
            and the search's report is written again.
        top: number of the search's best configurations that compete.
        seeds: number of selection seeds, the same for all of them.
        fresh_seeds: number of further seeds, for the winner and the baselines; None for 5, or what `detect` needs.
        max_seeds: go on seed by seed, up to this number, until each comparison is decided or cannot be any more; in the
            place of `fresh_seeds`.
        detect: the difference in points (hundredths of the metric) that the fresh seeds shall find with a probability
            of 80%; None for any.
        baseline: the folder of a search over kd on the same task, data and student, whose best configurations compete
            in the same way; None for kd at its defaults.
        address: the address of a Ray cluster; None for a local instance.
        ray_temporary: Ray's folder for sockets and logs; None for Ray's own.
        display: shows progress; None shows nothing.

    Returns:
        The content of `confirm/summary.json`: the winner, `optimism` (its mean score in the search, on the
        selection seeds and on the fresh seeds), all configurations with their scores, and the winner's differences from
        the baselines with intervals.

    Raises:
        InputError: the message lists all problems found before work starts.
        FsdTuneError: a run failed, or every configuration has a run that diverged. Runs that have ended are kept.
    """
    display = display or Display(quiet=True)
    started = time.monotonic()
    destination.check(address, ray_temporary)
    experiment = open_folder.open_begun(folder, "FOLDER")
    display.stage("reading the search, its data and teacher", 0, 1)
    # A folder that does not exist is refused below; locking would create it.
    exists = experiment.folder.is_dir() or is_uri(experiment.name)
    with hold_search(experiment) if exists else contextlib.nullcontext():
        counts = SeedCounts(top, seeds, fresh_seeds, max_seeds, detect)
        return _confirm(experiment, counts, baseline, address, ray_temporary, display, started)


def _confirm(
    experiment: ExperimentFolder,
    counts: SeedCounts,
    baseline: Path | str | None,
    address: str | None,
    ray_temporary: Path | None,
    display: Display,
    started: float,
) -> dict[str, Any]:
    """Confirm the search in a locked folder."""
    plan = inputs.plan_confirmation(experiment, counts, baseline, address)
    for note in plan.notes:
        display.line(f"note: {note}")
    stages.announce(plan, stages.expected_spread(plan, read_records(experiment.folder)), display)
    with runs_of(plan, experiment, display, address, ray_temporary) as runs:
        document = _compete(plan, runs, display)
        document["wall_seconds"] = round(time.monotonic() - started, 2)
        output = experiment.folder / layout.CONFIRM
        artifacts.write_json(output / layout.SUMMARY, document)
        artifacts.write_text(output / "confirm.csv", score_table(document).to_csv(index=False))
        html_report.write_report(experiment.folder)
        experiment.sync_all()
    display.close()
    return document


def runs_of(
    plan: ConfirmationPlan,
    experiment: ExperimentFolder,
    display: Display,
    address: str | None,
    ray_temporary: Path | None,
) -> ConfirmationRuns:
    """Return the runs of a plan, which read what has ended and train the rest.

    Args:
        plan: the checked inputs of the confirmation.
        experiment: the search's folder.
        display: shows progress.
        address: the address of a Ray cluster; None for a local instance.
        ray_temporary: Ray's folder for sockets and logs; None for Ray's own.
    """
    return ConfirmationRuns(
        experiment,
        plan.searched.settings,
        plan.spec,
        plan.inputs.task.metric,
        plan.searched.results.summary.planned_reports,
        _student_facts(plan),
        display,
        address,
        ray_temporary,
    )


def _student_facts(plan: ConfirmationPlan) -> dict[str, Any]:
    """Return the entries of a student's `fsd_tune.json` that do not depend on its run.

    Args:
        plan: the checked inputs of the confirmation.
    """
    summary = plan.searched.results.summary
    return {
        "task": plan.spec.task.id,
        "metric": plan.inputs.task.metric,
        "group": summary.group or summary.name,
        "teacher": summary.teacher.as_json(),
        "precision": plan.spec.precision,
        "max_length": plan.searched.settings.data.max_length,
        "versions": versions(),
        "examples": len(plan.inputs.dev),
        **summary.values("train_examples", "select_on", "judge_by"),
    }


def _compete(plan: ConfirmationPlan, runs: ConfirmationRuns, display: Display) -> dict[str, Any]:
    """Train the candidates on the selection seeds, then the winner and the baselines on the fresh ones."""
    selection = run_requests(plan, (*plan.candidates, *plan.tuned), plan.selection_seeds)
    finished_runs = runs.finish("selection seeds", selection)
    winner = stages.choose_winner(plan, finished_runs, display)
    tuned = stages.choose_tuned(plan, finished_runs, display)
    baselines, notes = inputs.baselines(winner, tuned)
    for note in notes:
        display.line(f"note: {note}")
    spread = stages.measured_spread(plan, finished_runs)
    fresh_runs, seeds = stages.train_fresh(plan, winner, baselines, spread, runs, display)
    finished_runs |= fresh_runs
    fresh = run_requests(plan, [winner, *baselines], seeds, student_of=winner)
    display.stage("intervals", 0, 1)
    return confirmation_summary(plan, winner, baselines, seeds, finished_runs) | {
        "notes": [*plan.notes, *notes],
        "teacher_passes": runs.passes,
        "runs_trained": runs.trained,
        "runs": [
            *(run_row(request, "selection", finished_runs) for request in selection),
            *(run_row(request, "fresh", finished_runs) for request in fresh if request.name in finished_runs),
        ],
    }


@contextlib.contextmanager
def hold_search(experiment: ExperimentFolder) -> Iterator[None]:
    """Lock the folder of a search while its configurations are trained.

    Args:
        experiment: the folder of the search.

    Raises:
        InputError: a search or a confirmation is running in it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_folder(experiment.folder))
            stack.enter_context(experiment.lock())
        except InputError:
            raise InputError(
                f"{experiment.name}: a search or a confirmation is running in it; wait until it ends."
            ) from None
        yield
