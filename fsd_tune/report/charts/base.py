"""What the charts of a page have in common: the Chart record, colours, and how a chart that fails is shown.

Every chart has a caption that says what to see in it. A chart that cannot be drawn keeps its place and says why, and
never stops the others. Colours are mid-tones that read on a light and on a dark page; the page's script sets the
colours of text and grid.
"""

import html
import math
from collections.abc import Callable
from dataclasses import dataclass

import optuna
import plotly.graph_objects as go

from fsd_tune.report.results import Results
from fsd_tune.report.study_db import UndrawableError, quiet_optuna

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
    score = results.summary.teacher.score
    return score if score is not None and math.isfinite(score) else None


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
