"""The chart of the front: the score of every finished trial over the cost of its student."""

import html
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from fsd_tune.report.charts.base import ACCENT, AMBER, GREY, Chart, label, styled, teacher_score
from fsd_tune.report.members import Front, front_of
from fsd_tune.report.results import Results
from fsd_tune.report.study_db import UndrawableError
from fsd_tune.storage.shape_costs import ShapesSummary

TITLE = "Score over cost"
_LARGEST_DOT = 30
_UNITS = {"latency_ms": "ms", "size_mb": "MB", "parameters": "parameters", "flops": "operations"}


def chart(results: Results) -> Chart:
    """Draw the finished trials by cost and score, the front through the best of them, the teacher and the limits.

    Args:
        results: the results of a search.

    Raises:
        UndrawableError: no trial has finished, or the costs of the shapes are not known.
    """
    front = front_of(results)
    if front is None:
        raise UndrawableError("Not drawn yet: no trial has finished.")
    figure = go.Figure()
    largest = max(results.trials["size_mb"].max(), front.members[-1].cost.size_mb)
    if len(front.others):
        figure.add_scatter(
            **dots(front.others, front.axis, largest), name="other trial", marker_color=GREY, opacity=0.3
        )
    rows = member_rows(results, front)
    figure.add_scatter(
        x=rows[front.axis].tolist(), y=rows["score"].tolist(), mode="lines", showlegend=False, hoverinfo="skip",
        line={"color": ACCENT, "width": 1.5, "shape": "hv"},
    )  # fmt: skip
    figure.add_scatter(
        **dots(rows, front.axis, largest) | {"mode": "markers+text"}, name="front", marker_color=ACCENT,
        text=_labels(front), textposition="top left", cliponaxis=False,
    )  # fmt: skip
    chosen = rows[rows["number"] == front.chosen.number]
    figure.add_scatter(
        x=chosen[front.axis].tolist(), y=chosen["score"].tolist(), mode="markers", name="in best/", hoverinfo="skip",
        marker={"symbol": "circle-open", "size": _LARGEST_DOT + 8, "color": ACCENT, "line": {"width": 2}},
    )  # fmt: skip
    caption = (
        f"Each dot is a finished trial, and its area the size of the student. The line joins the {len(rows)} trials "
        f"that no other one beats in score and {words(front.costs)}; faint dots are beaten. Choose where the line "
        "bends, or the cheapest that is good enough."
    )
    if _has_widths(front):
        caption += " The labels are layers × width."
    if teacher_score(results) is not None:
        add_teacher(figure, results)
        caption += " The dashed line is the teacher's score."
    if add_limit(figure, results, front.axis, AMBER):
        caption += " The dotted line is the limit, beyond which no shape is trained."
    figure.update_xaxes(title=axis_title(front.axis, results.summary.shapes), rangemode="tozero")
    figure.update_yaxes(title=label(results))
    figure.update_layout(showlegend=True, legend={"itemsizing": "constant"})
    return Chart("front", TITLE, caption + conditions(results), styled(figure), height=440)


def _has_widths(front: Front) -> bool:
    return any(member.cost.hidden_size is not None for member in front.members)


def _labels(front: Front) -> list[str]:
    costs = [member.cost for member in front.members]
    return [f"{cost.layers} × {cost.width}" if _has_widths(front) else cost.text for cost in costs]


def add_teacher(figure: go.Figure, results: Results) -> None:
    """Add a dashed line at the teacher's score.

    Args:
        figure: the chart, which is changed in place.
        results: the results of the search, whose teacher's score is known.
    """
    line = {"color": GREY, "width": 1, "dash": "dash"}
    figure.add_hline(teacher_score(results), line=line, annotation={"text": "teacher", "xanchor": "left", "x": 0})


def add_limit(figure: go.Figure, results: Results, axis: str, colour: str) -> bool:
    """Add a dotted line at the limit of a cost, if the search has one.

    Args:
        figure: the chart, which is changed in place.
        results: the results of the search.
        axis: the cost.
        colour: the colour of the line.

    Returns:
        Whether the search has a limit of this cost.
    """
    limit = ((results.settings.get("search") or {}).get("limits") or {}).get(axis)
    if limit is None:
        return False
    text = {"text": f"limit {limit:g}", "yref": "paper", "y": 0, "yanchor": "bottom", "xanchor": "right", "xshift": -2}
    figure.add_vline(limit, line={"color": colour, "width": 1.5, "dash": "dot"}, annotation=text)
    return True


def member_rows(results: Results, front: Front) -> pd.DataFrame:
    """Return the rows of the front's trials, from the cheapest on.

    Args:
        results: the results of the search.
        front: its front.
    """
    numbers = [member.number for member in front.members]
    return results.trials.set_index("number", drop=False).loc[numbers]


def dots(rows: pd.DataFrame, axis: str, largest: float) -> dict[str, Any]:
    """Return a plotly trace of trials as dots whose areas are proportional to the students' sizes.

    Args:
        rows: rows of `Results.trials`.
        axis: the cost that the dots stand at.
        largest: the size in MB that has the largest dot.
    """
    texts = [
        f"trial {row['number']}, {html.escape(str(row['shape']))}: {row['score']:.4f}, {row[axis]:.4g} {_UNITS[axis]}, "
        f"{row['size_mb']:.1f} MB"
        for row in rows.to_dict("records")
    ]
    return {
        "x": rows[axis].astype(float).tolist(),
        "y": rows["score"].tolist(),
        "mode": "markers",
        "hovertext": texts,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": {
            "size": rows["size_mb"].tolist(),
            "sizemode": "area",
            "sizeref": largest / _LARGEST_DOT**2,
            "sizemin": 4,
            "line": {"width": 0},
        },
    }


def axis_title(axis: str, shapes: ShapesSummary) -> str:
    """Return the title of a cost's axis, with its unit.

    Args:
        axis: the cost.
        shapes: the costs of the shapes, for the batch and the length that belong to latency and operations.
    """
    setting = shapes.setting or {}
    return {
        "latency_ms": f"latency, ms (batch {setting.get('batch')}, {setting.get('length')} tokens)",
        "size_mb": "size in float32, MB",
        "parameters": "parameters",
        "flops": f"operations for an example of {shapes.length} tokens",
    }[axis]


def words(costs: tuple[str, ...]) -> str:
    """Return the names of costs in words, such as `latency and size`.

    Args:
        costs: their names.
    """
    names = {"latency_ms": "latency", "size_mb": "size", "parameters": "parameters", "flops": "operations"}
    return " and ".join(names[cost] for cost in costs)


def conditions(results: Results) -> str:
    """Return a sentence with the conditions of the latency; empty if it was not measured.

    Args:
        results: the results of the search.
    """
    text = results.summary.shapes.conditions
    return f" Latency: median, {text}." if text else ""
