"""Shared parts of a page's charts: the `Chart` record, colours, and the placeholder of a chart that is not drawn.

Every chart has a caption that says what to see in it. The caption of a chart that cannot be drawn says why, and the
other charts are drawn all the same. Colours are mid-tones that are legible on a light and on a dark page. The page's
script sets the colours of text and grid.
"""

import html
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import optuna
import plotly.graph_objects as go

from fsd_tune.report.results import Results
from fsd_tune.report.study_db import UndrawableError, quiet_optuna

ACCENT = "#0d9488"
AMBER = "#c2760c"
RED = "#d9534a"
BLUE = "#4083c9"
VIOLET = "#8b6fd0"
PINK = "#b85c9e"
GREY = "#8a94a0"
STATE_COLOURS = {"finished": GREY, "stopped": AMBER, "failed": RED, "running": BLUE, "interrupted": VIOLET}


_LOGGER = logging.getLogger(__name__)
_FAULT = (
    "Not drawn, because of a fault in this version of fsd_tune. The tables and the other charts are complete. The log "
    "of the command that wrote this page names the fault."
)


@dataclass(frozen=True)
class Chart:
    """One chart of the page.

    Attributes:
        key: its anchor in the page.
        title: its heading.
        caption: what to see in it; if `figure` is None, why it is not drawn.
        figure: the drawing; None if it cannot be drawn.
        height: pixels.
        min_width: pixels below which it scrolls in its own box; 0 for any width.
    """

    key: str
    title: str
    caption: str
    figure: go.Figure | None
    height: int = 360
    min_width: int = 0


def guarded(key: str, title: str, make: Callable[[], Chart]) -> Chart:
    """Return a chart, or a placeholder with the reason why it cannot be drawn.

    Args:
        key: anchor of the chart.
        title: heading of the chart.
        make: the function that draws it; raises UndrawableError if the search does not allow it.

    Returns:
        The chart. If it cannot be drawn, it has no figure, and its caption is the reason.
    """
    try:
        with quiet_optuna():
            return make()
    except UndrawableError as reason:
        return Chart(key, title, str(reason), None)
    except Exception as error:  # One chart must not stop the page, so log its error.
        _LOGGER.warning("the chart %s was not drawn: %s: %s", key, type(error).__name__, error)
        return Chart(key, title, _FAULT, None)


def finished(study: optuna.study.Study, at_least: int) -> int:
    """Return the number of finished trials.

    Args:
        study: the study of the search.
        at_least: the number of finished trials that the chart needs.

    Raises:
        UndrawableError: fewer trials have finished.
    """
    count = len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))
    if count < at_least:
        needed = "one finished trial" if at_least == 1 else f"{at_least} finished trials"
        raise UndrawableError(f"Not drawn yet: it needs at least {needed}, and there are {count}.")
    return count


def label(results: Results) -> str:
    """Return the metric's name for an axis, escaped, because plotly reads a little HTML in labels.

    Args:
        results: the results of a search.
    """
    return html.escape(results.metric.replace("_", " "))


def teacher_score(results: Results) -> float | None:
    """Return the teacher's score on the split that selects trials; None if it is not known.

    Args:
        results: the results of a search.
    """
    score = results.summary.teacher.score
    return score if score is not None and math.isfinite(score) else None


def styled(figure: go.Figure) -> go.Figure:
    """Return a figure in the plain look of the pages. The page's script sets the colours of text and grid.

    Args:
        figure: the figure, which is changed in place.
    """
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
