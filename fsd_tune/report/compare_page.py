"""`fsd-tune compare`'s page, table and picture: `compare.html`, `compare.csv`, `compare.png`."""

import html
from collections.abc import Callable
from pathlib import Path

import optuna
import pandas as pd
import plotly.graph_objects as go

from fsd_tune.report import html_report, page
from fsd_tune.report.charts.base import ACCENT, AMBER, BLUE, GREY, PINK, RED, VIOLET, Chart, guarded, styled
from fsd_tune.report.compare import Comparison
from fsd_tune.report.so_far import so_far
from fsd_tune.report.study_db import UndrawableError, measured_study, quiet_optuna
from fsd_tune.storage import artifacts

_COLOURS = (ACCENT, AMBER, BLUE, VIOLET, PINK, RED, GREY)


def write(compared: Comparison, folder: Path) -> Path:
    """Write page, table and picture into `folder`, and return the page's path."""
    artifacts.write_text(folder / "compare.csv", compared.table().to_csv(index=False))
    drawn = charts(compared)
    path = folder / "compare.html"
    artifacts.write_text(path, _page(compared, drawn))
    _picture(compared, folder / "compare.png")
    return path


def charts(compared: Comparison) -> dict[str, Chart]:
    """All charts by key."""
    makers: list[tuple[str, str, Callable[[], Chart]]] = [
        ("sofar", "Best so far over cost", lambda: _so_far(compared)),
        ("edf", "Distribution of scores", lambda: _distribution(compared)),
        ("importances", "Importances side by side", lambda: _importances(compared)),
        ("parallel", "Parallel coordinates", lambda: _parallel(compared)),
    ]
    return {key: guarded(key, title, make) for key, title, make in makers}


def _named(compared: Comparison) -> list[tuple[str, str]]:
    """Each search's name, safe in plotly's labels, and its colour."""
    return [(html.escape(name), _COLOURS[i % len(_COLOURS)]) for i, name in enumerate(compared.names)]


def _so_far(compared: Comparison) -> Chart:
    figure = go.Figure()
    for index, (name, colour) in enumerate(_named(compared)):
        found = so_far(compared.results[index])
        if len(found):
            figure.add_scatter(
                x=found["steps"].tolist(), y=found["best"].tolist(), name=name, mode="lines",
                line={"color": colour, "width": 2.5, "shape": "hv"}, hovertemplate="%{x} steps: %{y:.4f}",
            )  # fmt: skip
    if not figure.data:
        raise UndrawableError("Not drawn yet: no trial has finished.")
    figure.update_xaxes(title="student steps spent, over all trials")
    figure.update_yaxes(title=html.escape(compared.metric.replace("_", " ")))
    caption = (
        "The best finished score against the optimiser steps that a search had spent. The line that is higher at the "
        "same place spends its budget better; the one that ends higher found the better student."
    )
    return Chart("sofar", "Best so far over cost", caption, styled(figure), height=400)


def _distribution(compared: Comparison) -> Chart:
    figure = go.Figure()
    for results, (name, colour) in zip(compared.results, _named(compared), strict=True):
        scores = sorted(results.trials.query("state == 'finished'")["score"].dropna())
        if scores:
            figure.add_scatter(
                x=[scores[0], *scores], y=[i / len(scores) for i in range(len(scores) + 1)], name=name, mode="lines",
                line={"color": colour, "width": 2.5, "shape": "hv"}, hovertemplate="%{y:.0%} score at most %{x:.4f}",
            )  # fmt: skip
    if not figure.data:
        raise UndrawableError("Not drawn yet: no trial has finished.")
    figure.update_xaxes(title=html.escape(compared.metric.replace("_", " ")))
    figure.update_yaxes(title="share of the finished trials", tickformat=".0%", rangemode="tozero")
    caption = (
        "The share of finished trials that score at most so much. A line further to the right is better throughout, "
        "not in its best trial alone; a steep one hardly depends on its hyperparameters."
    )
    return Chart("edf", "Distribution of scores", caption, styled(figure))


def _importances(compared: Comparison) -> Chart:
    figure, missing = go.Figure(), []
    for results, (name, colour) in zip(compared.results, _named(compared), strict=True):
        with quiet_optuna():
            try:
                found = optuna.importance.get_param_importances(measured_study(results))
            except (UndrawableError, ValueError, RuntimeError, ZeroDivisionError):
                found = {}
        if not found:
            missing.append(name)
            continue
        figure.add_bar(
            y=list(found), x=list(found.values()), name=name, orientation="h", marker={"color": colour},
            hovertemplate="%{y}: %{x:.2f}",
        )  # fmt: skip
    if not figure.data:
        raise UndrawableError("Not drawn: no search has enough finished trials that differ.")
    figure.update_xaxes(title="share of the importance", rangemode="tozero")
    figure.update_yaxes(showgrid=False, ticklabelstandoff=6)
    caption = "How much each hyperparameter decides whether a trial of its search is among the best (PED-ANOVA)."
    if missing:
        caption += f" Too few finished trials: {', '.join(missing)}."
    rows = {label for trace in figure.data for label in trace.y}
    height = 120 + len(rows) * (14 + 18 * len(figure.data))
    return Chart("importances", "Importances side by side", caption, styled(figure), height=height)


def _parallel(compared: Comparison) -> Chart:
    columns = list(dict.fromkeys(name for one in compared.results for name in one.hyperparameters))
    parts = [one.trials.query("state == 'finished'").assign(search=i) for i, one in enumerate(compared.results)]
    rows = pd.concat(parts, ignore_index=True)
    shown = [
        name for name in columns if pd.api.types.is_numeric_dtype(rows[name]) and rows[name].nunique(dropna=True) > 1
    ]
    if not len(rows) or not shown:
        raise UndrawableError("Not drawn: the finished trials differ in no number.")
    figure = go.Figure()
    axes = ["score", *shown]
    spans = {name: (float(rows[name].min()), float(rows[name].max())) for name in axes}
    for i, (name, colour) in enumerate(_named(compared)):
        x: list[float | None] = []
        y: list[float | None] = []
        for row in rows[rows["search"] == i].to_dict("records"):
            for place, axis in enumerate(axes):
                low, high = spans[axis]
                there = row[axis] == row[axis]
                x.append(place)
                y.append((row[axis] - low) / (high - low or 1.0) if there else None)
            x.append(None)
            y.append(None)
        figure.add_scatter(
            x=x, y=y, name=name, mode="lines", line={"color": colour, "width": 1.2}, opacity=0.6, hoverinfo="skip"
        )
    texts = [f"{html.escape(axis)}<br>{spans[axis][0]:.3g} to {spans[axis][1]:.3g}" for axis in axes]
    figure.update_xaxes(tickvals=list(range(len(axes))), ticktext=texts, side="bottom", range=[-0.4, len(axes) - 0.6])
    figure.update_yaxes(visible=False)
    caption = (
        "One line per finished trial, coloured by its search, from its score (left) through its hyperparameters, each "
        "axis from its lowest to its highest value. A line breaks where its method does not use a hyperparameter."
    )
    return Chart("parallel", "Parallel coordinates", caption, styled(figure), height=420, min_width=110 * len(axes))


def _page(compared: Comparison, drawn: dict[str, Chart]) -> str:
    table = compared.table()
    return page.render(
        "compare_template.html",
        drawn,
        {"plain": html_report.plain, "value": html_report.value},
        compared=compared,
        title=" · ".join(compared.names),
        columns=list(table.columns),
        rows=table.to_dict("records"),
        differing=compared.differing(),
        metric=compared.metric.replace("_", " "),
    )


def _picture(compared: Comparison, path: Path) -> None:
    """Best so far and distribution as one picture, for where a page does not go."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for index, (results, name) in enumerate(zip(compared.results, compared.names, strict=True)):
        colour = _COLOURS[index % len(_COLOURS)]
        found = so_far(compared.results[index])
        # A leading underscore would hide a label; a dollar sign would start mathematics.
        label = name.replace("$", r"\$").lstrip("_")
        left.step(found["steps"], found["best"], where="post", color=colour, label=label)
        scores = sorted(results.trials.query("state == 'finished'")["score"].dropna())
        if scores:
            steps = [i / len(scores) for i in range(len(scores) + 1)]
            right.step([scores[0], *scores], steps, where="post", color=colour)
    left.set(xlabel="student steps spent, over all trials", ylabel=compared.metric, title="best so far")
    right.set(xlabel=compared.metric, ylabel="share of the finished trials", title="distribution of scores")
    left.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
