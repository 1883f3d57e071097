"""Complete a search's folder at its end: best student, its figures, leaderboard, report and tracking."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fsd_tune.errors import FsdTuneError, first_line
from fsd_tune.models import inference, layer_cka
from fsd_tune.models.loading import load_config
from fsd_tune.profiling.side_by_side import compare_models, measures_latency
from fsd_tune.report import html_report
from fsd_tune.report.results import Results
from fsd_tune.search.best_student import BestStudent, export_best, export_front
from fsd_tune.search.plan import SearchPlan
from fsd_tune.search.wandb_logger import WandbSearchLogger
from fsd_tune.storage import artifacts
from fsd_tune.storage.model_record import ModelRecord

# The parts that the end of a search makes, as an interrupt names them.
BEST_PART, REPORT_PART = _PARTS = ("best/", "the report")


@contextmanager
def explained_interrupt(name: str) -> Iterator[list[str]]:
    """Add to an interrupt of the block what is not written yet, and the commands that write it.

    Args:
        name: the search's folder, as the user gave it.

    Yields:
        The parts that are missing, which `conclude` removes when they are written.
    """
    missing = [*_PARTS]
    try:
        yield missing
    except KeyboardInterrupt as error:
        if missing:
            error.add_note(
                f"what was finished is kept, but {' and '.join(missing)} {'are' if missing[1:] else 'is'} missing or "
                f"not up to date: `fsd-tune resume {name}` makes all, `fsd-tune report {name}` the report alone"
            )
        raise


def conclude(
    plan: SearchPlan,
    results: Results,
    tracker: WandbSearchLogger,
    done: bool,
    missing: list[str],
    note: Callable[[str], None],
) -> None:
    """Export the best student, write leaderboard and report, close the tracking, and store everything.

    Args:
        plan: the plan of the search.
        results: the results in the search's folder; their summary receives the figures of the best student.
        tracker: the W&B logger of the search.
        done: true if the search ran to its end. Only then is the best student compared with its teacher and, after a
            search on a holdout, scored on dev. Nothing else scores a student on dev after such a search.
        missing: as `explained_interrupt` yields it.
        note: called with a line for the user.

    Raises:
        FsdTuneError: the search ran to its end, but no finished trial has kept its student.
    """
    spec, inputs = plan.spec, plan.inputs
    experiment = plan.experiment
    best = export_best(results, spec.teacher.path, experiment, note)
    if best is not None:
        export_front(results, spec.teacher.path, experiment, note)
    if done and best is not None:
        if inputs.final is not None:
            dev_score = inference.score_on_dev(best.model, inputs.task, inputs.final, spec.precision, spec.device)
            results.summary.update(dev=dev_score)
            artifacts.write_json(
                best.folder / artifacts.MODEL_RECORD, ModelRecord.read(best.folder).as_json() | {"dev": dev_score}
            )
        cka = layer_cka.of_teacher(spec.teacher.path, best.model, spec.dev, spec.device)
        results.summary.update(layer_cka=cka, models=_side_by_side(plan, best, note))
        results.summary.write(experiment.folder)
    missing.remove(BEST_PART)
    html_report.write_report(results)
    missing.remove(REPORT_PART)
    tracker.conclude(results)
    tracker.close()
    experiment.sync_all()
    if done and best is None and results.best is not None:
        raise FsdTuneError(
            f"{experiment.name}: no finished trial has kept its student: every checkpoint is damaged or missing.",
            hint=f"To run the best one again: fsd-tune resume {experiment.name}",
        )


def _side_by_side(plan: SearchPlan, best: BestStudent, note: Callable[[str], None]) -> dict[str, Any] | None:
    """Return size and speed of the best student and of the teacher; None if they cannot be measured."""
    teacher = plan.spec.teacher.path
    models: dict[str, tuple[Any, str | Path]] = {
        "student": (best.model.config, best.folder),
        "teacher": (load_config(teacher), teacher),
    }
    if measures_latency():
        note("measuring how fast student and teacher are")
    try:
        return compare_models(models, int(np.median(plan.spec.dev.lengths)), plan.spec.device)
    except Exception as error:  # The search is complete without it.
        note(f"note: size and speed are left out: {first_line(error)}")
        return None
