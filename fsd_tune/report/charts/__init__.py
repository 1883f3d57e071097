"""The charts of a search's report, by key, in the page's order."""

import functools
from collections.abc import Callable
from weakref import WeakKeyDictionary

import optuna

from fsd_tune.report.charts import best_trial, confirmation, front, search, space
from fsd_tune.report.charts.base import Chart, guarded
from fsd_tune.report.results import Results
from fsd_tune.report.study_db import UndrawableError, measured_study

# Charts are drawn once, because the end of a search shows them twice, in the report and in W&B. The weak keys free
# them together with their results.
_DRAWN: WeakKeyDictionary[Results, dict[str, Chart]] = WeakKeyDictionary()


def charts(results: Results) -> dict[str, Chart]:
    """Return a report's charts by key, in the page's order. They are drawn once for each `Results`.

    Args:
        results: the results of a search.
    """
    if results not in _DRAWN:
        _DRAWN[results] = {key: guarded(key, title, make) for key, title, make in _makers(results)}
    return _DRAWN[results]


def _makers(results: Results) -> list[tuple[str, str, Callable[[], Chart]]]:
    """Return key, title and maker of each chart."""
    # The study is read once, and inside the guard, so that an unreadable study fails only the charts that need it. The
    # reason why it cannot be read is kept, too, because a lock on the study costs seconds of waiting.
    read = functools.cache(lambda: _study_or_reason(results))

    def study() -> optuna.study.Study:
        found = read()
        if isinstance(found, UndrawableError):
            raise found
        return found

    confirmed, has_shapes = results.confirmation, len(results.summary.shapes.students or []) > 1
    return [
        *([("confirmation", "Scores by seed", lambda: confirmation.chart(confirmed))] if confirmed else []),
        *([("front", front.TITLE, lambda: front.chart(results))] if has_shapes else []),
        ("history", "Optimisation history", lambda: search.history(results, study())),
        ("cost", "Best so far over cost", lambda: search.cost(results)),
        ("curves", "Learning curves", lambda: search.curves(results, study())),
        ("timeline", "Timeline of workers", lambda: search.timeline(results)),
        ("importances", "Hyperparameter importances", lambda: space.importances(results)),
        ("parallel", "Parallel coordinates", lambda: space.parallel(results, study())),
        ("slices", "Slices", lambda: space.slices(results, study())),
        ("losses", "Loss terms of the best trial", lambda: best_trial.losses(results)),
        ("similarity", "Teacher-student CKA by layer", lambda: best_trial.similarity(results)),
        ("clusters", "Cluster sizes of the teacher memory", lambda: best_trial.clusters(results)),
    ]


def _study_or_reason(results: Results) -> optuna.study.Study | UndrawableError:
    try:
        return measured_study(results)
    except UndrawableError as reason:
        return reason
