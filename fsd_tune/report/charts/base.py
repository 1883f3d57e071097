"""What the charts of a page have in common, and which of them a report has.

Every chart has a caption that says what to see in it. A chart that cannot be drawn keeps its place and says why, and
never stops the others. Colours are mid-tones that read on a light and on a dark page; the page's script sets the
colours of text and grid.
"""

import functools
import html
import math
from collections.abc import Callable
from dataclasses import dataclass

import optuna
import plotly.graph_objects as go

from fsd_tune.report.results import Results
from fsd_tune.report.study_db import UndrawableError, measured_study, quiet_optuna

ACCENT, AMBER, RED, BLUE, VIOLET, PINK, GREY = (
    "#0d9488",
    "#c2760c",
    "#d9534a",
    "#4083c9",
    "#8b6fd0",
    "#b85c9e",
    "#8a94a0",
)
STATE_COLOURS = {"finished": GREY, "stopped": AMBER, "failed": RED, "running": BLUE, "interrupted": VIOLET}


@dataclass(frozen=True)
class Chart:
    """One chart of the page.

    Attributes:
        key: its anchor in the page.
        caption: what to see in it; where `figure` is None, why it is not drawn.
        height: pixels.
        min_width: pixels below which it scrolls in its own box; 0 for any width.
    """

    key: str
    title: str
    caption: str
    figure: go.Figure | None
    height: int = 360
    min_width: int = 0


@functools.lru_cache(maxsize=1)
def charts(results: Results) -> dict[str, Chart]:
    """A report's charts by key, in the page's order; drawn once for a report and what else shows them."""
    # These import what is defined here.
    from fsd_tune.report import confirmation as confirm_report
    from fsd_tune.report.charts import analysis as charts_analysis
    from fsd_tune.report.charts import best_trial as charts_best
    from fsd_tune.report.charts import search as charts_search
    from fsd_tune.report.charts import space as charts_space

    # Read once, and inside the guard: an unreadable study takes no chart with it that does not need it.
    study = functools.cache(lambda: measured_study(results))
    confirmed = results.confirmation
    makers: list[tuple[str, str, Callable[[], Chart]]] = [
        *([("confirmation", "Scores by seed", lambda: confirm_report.chart(confirmed))] if confirmed else []),
        ("history", "Optimisation history", lambda: charts_search.history(results, study())),
        ("cost", "Best so far over cost", lambda: charts_search.cost(results)),
        ("curves", "Learning curves", lambda: charts_search.curves(results, study())),
        ("timeline", "Timeline of workers", lambda: charts_search.timeline(results)),
        ("importances", "Hyperparameter importances", lambda: charts_space.importances(results, study())),
        ("parallel", "Parallel coordinates", lambda: charts_space.parallel(results, study())),
        ("slices", "Slices", lambda: charts_space.slices(results, study())),
        ("losses", "Loss terms of the best trial", lambda: charts_best.losses(results)),
        ("similarity", "Teacher-student CKA by layer", lambda: charts_best.similarity(results)),
        ("clusters", "Cluster sizes of the teacher memory", lambda: charts_best.clusters(results)),
        *(charts_analysis.makers(results) if results.analysis else []),
    ]
    return {key: guarded(key, title, make) for key, title, make in makers}


def guarded(key: str, title: str, make: Callable[[], Chart]) -> Chart:
    """A chart, or its place with the reason why it is not drawn."""
    try:
        with quiet_optuna():
            return make()
    except UndrawableError as reason:
        return Chart(key, title, str(reason), None)
    except Exception as error:  # a chart is worth less than the page: say what happened and draw the others
        first_line = next(iter(str(error).splitlines()), "")
        return Chart(key, title, f"Not drawn: {type(error).__name__}: {first_line}", None)


def finished(study: optuna.study.Study, at_least: int) -> int:
    """How many trials have finished; UndrawableError when those are fewer than `at_least`."""
    count = len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))
    if count < at_least:
        needed = "one finished trial" if at_least == 1 else f"{at_least} finished trials"
        raise UndrawableError(f"Not drawn yet: it needs at least {needed}, and there are {count}.")
    return count


def label(results: Results) -> str:
    """The metric's name for an axis: plotly reads a little HTML in labels."""
    return html.escape(results.metric.replace("_", " "))


def teacher_score(results: Results) -> float | None:
    """The teacher's score on what selects; None where it is not known."""
    teacher = results.summary.get("teacher")
    score = teacher.get("score") if isinstance(teacher, dict) else None
    return float(score) if isinstance(score, int | float) and math.isfinite(score) else None


def styled(figure: go.Figure) -> go.Figure:
    """Our plain look; text and grid colours are set by the page, which knows whether it is light or dark."""
    figure.update_layout(
        template="none",
        title=None,
        autosize=True,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 12, "t": 16, "b": 8},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        font={"size": 13},
    )
    figure.update_xaxes(automargin=True, zeroline=False, showgrid=False, title_font_size=13)
    figure.update_yaxes(automargin=True, zeroline=False, title_font_size=13)
    return figure
