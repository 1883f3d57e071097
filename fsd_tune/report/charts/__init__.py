"""The charts of a search's report, by key, in the page's order."""

import functools
from collections.abc import Callable

from fsd_tune.report.charts import analysis, best_trial, confirmation, search, space
from fsd_tune.report.charts.base import Chart, guarded
from fsd_tune.report.results import Results
from fsd_tune.report.study_db import measured_study


@functools.lru_cache(maxsize=1)
def charts(results: Results) -> dict[str, Chart]:
    """A report's charts by key, in the page's order; drawn once for a report and what else shows them."""
    # Read once, and inside the guard: an unreadable study takes no chart with it that does not need it.
    study = functools.cache(lambda: measured_study(results))
    confirmed = results.confirmation
    makers: list[tuple[str, str, Callable[[], Chart]]] = [
        *([("confirmation", "Scores by seed", lambda: confirmation.chart(confirmed))] if confirmed else []),
        ("history", "Optimisation history", lambda: search.history(results, study())),
        ("cost", "Best so far over cost", lambda: search.cost(results)),
        ("curves", "Learning curves", lambda: search.curves(results, study())),
        ("timeline", "Timeline of workers", lambda: search.timeline(results)),
        ("importances", "Hyperparameter importances", lambda: space.importances(results, study())),
        ("parallel", "Parallel coordinates", lambda: space.parallel(results, study())),
        ("slices", "Slices", lambda: space.slices(results, study())),
        ("losses", "Loss terms of the best trial", lambda: best_trial.losses(results)),
        ("similarity", "Teacher-student CKA by layer", lambda: best_trial.similarity(results)),
        ("clusters", "Cluster sizes of the teacher memory", lambda: best_trial.clusters(results)),
        *(analysis.makers(results) if results.analysis else []),
    ]
    return {key: guarded(key, title, make) for key, title, make in makers}
