"""The page, the table and the picture of `fsd-tune compare`: `compare.html`, `compare.csv`, `compare.png`."""

import html
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from fsd_tune.report import html_report, page
from fsd_tune.report.charts import front
from fsd_tune.report.charts.base import (
    ACCENT,
    AMBER,
    BLUE,
    GREY,
    PINK,
    RED,
    VIOLET,
    Chart,
    guarded,
    styled,
    teacher_score,
)
from fsd_tune.report.compare import Comparison
from fsd_tune.report.importances import FEWEST, importances
from fsd_tune.report.members import LATENCY, front_of
from fsd_tune.report.pictures import Picture, data_uri
from fsd_tune.report.results import Results
from fsd_tune.report.study_db import UndrawableError
from fsd_tune.storage import artifacts, files
from fsd_tune.storage.layout import TrialState

_COLOURS = (ACCENT, AMBER, BLUE, VIOLET, PINK, RED, GREY)
_FAINT = 0.25
_CURVES = (
    "Left: the best finished score against the optimiser steps that a search had spent. A line that is higher after "
    "the same steps spends its budget better; a line that ends higher found the better student. Right: the share of "
    "finished trials with at most the score below. A line further to the right is better in all its trials, not only "
    "in the best; a steep line hardly depends on its hyperparameters."
)


def write_comparison(compared: Comparison, folder: Path) -> Path:
    """Write the page, the table and the picture of a comparison.

    Args:
        compared: the searches.
        folder: the folder to write into.

    Returns:
        The page's path.
    """
    artifacts.write_text(folder / "compare.csv", compared.table().to_csv(index=False))
    picture, path = folder / "compare.png", folder / "compare.html"
    _draw(compared, picture)
    curves = Picture("curves", "Best so far over cost, and distribution of scores", _CURVES, data_uri(picture))
    artifacts.write_text(path, _page(compared, curves))
    return path


def charts(compared: Comparison) -> dict[str, Chart]:
    """Return the charts of the page by key.

    Args:
        compared: the searches.
    """
    makers: list[tuple[str, str, Callable[[], Chart]]] = [
        *([("front", front.TITLE, lambda: _fronts(compared))] if len(compared.fronts()) else []),
        ("importances", "Importances side by side", lambda: _importances(compared)),
        ("parallel", "Parallel coordinates", lambda: _parallel(compared)),
    ]
    return {key: guarded(key, title, make) for key, title, make in makers}


def _finished(results: Results) -> pd.DataFrame:
    return results.trials[results.trials["state"] == TrialState.FINISHED]


def _named(compared: Comparison) -> list[tuple[str, str]]:
    """Return each search's name, safe in plotly's labels, and its colour."""
    return [(html.escape(name), _COLOURS[i % len(_COLOURS)]) for i, name in enumerate(compared.names)]


def _fronts(compared: Comparison) -> Chart:
    """Draw the finished trials of the searches with several shapes by cost and score, with a line along each front."""
    found = [
        (results, front_of(results), *named) for results, named in zip(compared.results, _named(compared), strict=True)
    ]
    fronts = [(results, members, name, colour) for results, members, name, colour in found if members is not None]
    axis, remark = fronts[0][1].axis, ""
    conditions = compared.latency_conditions()
    if any(members.axis != axis for _, members, _, _ in fronts):
        axis, remark = (
            "parameters",
            " The searches were after different costs, so the axis is the number of parameters.",
        )
    elif axis == LATENCY and len(set(conditions.values())) > 1:
        axis = "parameters"
        measured = "; ".join(f"{name}: {text}" for name, text in conditions.items())
        remark = f" Their latencies cannot be compared ({measured}), so the axis is the number of parameters."
    elif axis == LATENCY:
        remark = f" Latency: median, {next(iter(conditions.values()))}."
    largest = max(results.trials["size_mb"].max() for results, *_ in fronts)
    figure = go.Figure()
    for results, members, name, colour in fronts:
        if len(members.others):
            figure.add_scatter(
                **front.dots(members.others, axis, largest), marker_color=colour, opacity=_FAINT, showlegend=False
            )
        rows = front.member_rows(results, members).sort_values(axis)
        figure.add_scatter(
            **front.dots(rows, axis, largest) | {"mode": "lines+markers"}, marker_color=colour, name=name,
            line={"color": colour, "width": 1.5, "shape": "hv"},
        )  # fmt: skip
        front.add_limit(figure, results, axis, colour)
    caption = (
        "Each dot is a finished trial, coloured by its search, and its area the size of the student. A line joins the "
        "students of a search that no other one of it beats; the line further up and to the left is the better front."
    )
    teachers = {teacher_score(results) for results, *_ in fronts}
    if len(teachers) == 1 and None not in teachers:
        front.add_teacher(figure, fronts[0][0])
        caption += " The dashed line is the teacher's score."
    figure.update_xaxes(title=front.axis_title(axis, fronts[0][0].summary.shapes), rangemode="tozero")
    figure.update_yaxes(title=html.escape(compared.metric.replace("_", " ")))
    figure.update_layout(showlegend=True, legend={"itemsizing": "constant"})
    return Chart("front", front.TITLE, caption + remark, styled(figure), height=440)


def _importances(compared: Comparison) -> Chart:
    figure = go.Figure()
    counts = []
    missing = []
    for results, (name, colour) in zip(compared.results, _named(compared), strict=True):
        measured = importances(results)
        if measured.trials < FEWEST or not measured.rows:
            missing.append(name)
            continue
        counts.append(f"{measured.trials} of {name}")
        figure.add_bar(
            y=[html.escape(row.name) for row in measured.rows], x=[row.share for row in measured.rows], name=name,
            orientation="h", hovertemplate="%{y}: %{x:.2f}",
            marker={"color": colour, "opacity": [1.0 if row.stands_out else _FAINT for row in measured.rows]},
        )  # fmt: skip
    if not figure.data:
        raise UndrawableError(f"Not drawn: no search has {FEWEST} trials that differ and can be compared.")
    figure.update_xaxes(title="share of variance explained", range=[0, 1])
    figure.update_yaxes(showgrid=False, ticklabelstandoff=6)
    caption = (
        "How much of the order of a search's trials each hyperparameter explains by itself, from trials compared at "
        f"the same report: {', '.join(counts)}. A faint bar does not exceed the noise of 1 in 20 searches."
    )
    if missing:
        caption += f" Too few trials: {', '.join(missing)}."
    rows = {label for trace in figure.data for label in trace.y}
    height = 120 + len(rows) * (14 + 18 * len(figure.data))
    return Chart("importances", "Importances side by side", caption, styled(figure), height=height)


def _parallel(compared: Comparison) -> Chart:
    columns = list(dict.fromkeys(name for results in compared.results for name in results.hyperparameters))
    parts = [_finished(results).assign(search=i) for i, results in enumerate(compared.results)]
    rows = pd.concat(parts, ignore_index=True)
    shown = [
        name for name in columns if pd.api.types.is_numeric_dtype(rows[name]) and rows[name].nunique(dropna=True) > 1
    ]
    if not len(rows) or not shown:
        raise UndrawableError("Not drawn: no numeric hyperparameter differs among the finished trials.")
    figure = go.Figure()
    axes = ["score", *shown]
    spans = {name: (float(rows[name].min()), float(rows[name].max())) for name in axes}
    for i, (name, colour) in enumerate(_named(compared)):
        x: list[float | None] = []
        y: list[float | None] = []
        for row in rows[rows["search"] == i].to_dict("records"):
            for position, axis in enumerate(axes):
                low, high = spans[axis]
                x.append(position)
                y.append(None if pd.isna(row[axis]) else (row[axis] - low) / (high - low or 1.0))
            x.append(None)
            y.append(None)
        figure.add_scatter(
            x=x, y=y, name=name, mode="lines", line={"color": colour, "width": 1.2}, opacity=0.6, hoverinfo="skip"
        )
    texts = [f"{html.escape(axis)}<br>{spans[axis][0]:.3g} to {spans[axis][1]:.3g}" for axis in axes]
    figure.update_xaxes(tickvals=list(range(len(axes))), ticktext=texts, side="bottom", range=[-0.4, len(axes) - 0.6])
    figure.update_yaxes(visible=False)
    caption = (
        "Each line is a finished trial, coloured by its search, from its score (left) through its hyperparameters, "
        "each axis from its lowest to its highest value. A line breaks where its method does not use a hyperparameter."
    )
    return Chart("parallel", "Parallel coordinates", caption, styled(figure), height=420, min_width=110 * len(axes))


def _page(compared: Comparison, curves: Picture) -> str:
    table = compared.table()
    return page.render(
        "compare_template.html",
        charts(compared),
        {"plain": html_report.plain, "value": html_report.value},
        compared=compared,
        curves=curves,
        folders=[results.folder.name for results in compared.results],
        title=" · ".join(compared.names),
        columns=list(table.columns),
        rows=table.to_dict("records"),
        methods=compared.methods().to_dict("records"),
        fronts=compared.fronts().to_dict("records"),
        conditions=compared.latency_conditions(),
        differing=compared.differing(),
        metric=compared.metric.replace("_", " "),
    )


def _draw(compared: Comparison, path: Path) -> None:
    """Draw the best score so far and the distribution of scores as one PNG file, for the page and for papers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for index, (results, name) in enumerate(zip(compared.results, compared.names, strict=True)):
        colour = _COLOURS[index % len(_COLOURS)]
        best = results.best_so_far()
        # A leading underscore would hide a label; a dollar sign would start mathematics.
        label = name.replace("$", r"\$").lstrip("_")
        left.step(best["steps"], best["best"], where="post", color=colour, label=label)
        scores = sorted(_finished(results)["score"].dropna())
        if scores:
            steps = [i / len(scores) for i in range(len(scores) + 1)]
            right.step([scores[0], *scores], steps, where="post", color=colour)
    left.set(xlabel="student steps spent, over all trials", ylabel=compared.metric, title="best so far")
    right.set(xlabel=compared.metric, ylabel="share of the finished trials", title="distribution of scores")
    left.legend(frameon=False)
    files.make_folder(path.parent)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
