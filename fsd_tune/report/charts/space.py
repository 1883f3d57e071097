"""The report's charts of what mattered: importances, parallel coordinates, slices; all of them Optuna's."""

import optuna
import plotly.colors

from fsd_tune.report.charts.base import ACCENT, GREY, Chart, finished, label, styled
from fsd_tune.report.results import Results
from fsd_tune.report.study_db import UndrawableError


def importances(results: Results, study: optuna.study.Study) -> Chart:
    """How much each hyperparameter decides."""
    count = finished(study, 4)
    if all(d.single() for trial in study.get_trials(deepcopy=False) for d in trial.distributions.values()):
        raise UndrawableError("Not drawn: the search varies no hyperparameter.")
    figure = optuna.visualization.plot_param_importances(study, target_name=label(results))
    figure.data[0].update(marker={"color": ACCENT}, width=0.55)
    figure.update_xaxes(title="share of the importance", rangemode="tozero", range=[0, 1.15 * max(figure.data[0].x)])
    figure.update_yaxes(title="", ticklabelstandoff=6, showgrid=False)
    caption = (
        "How much each hyperparameter decides whether a finished trial is among the best (PED-ANOVA; the bars add up "
        "to 1). Search the long ones more finely; fix the short ones. "
    )
    caption += f"From {count} finished trials" + (": a hint, no more." if count < 30 else ".")
    height = 110 + 34 * len(figure.data[0].y)
    return Chart("importances", "Hyperparameter importances", caption, styled(figure), height=height)


def parallel(results: Results, study: optuna.study.Study) -> Chart:
    """Finished trials through all hyperparameters."""
    finished(study, 2)
    figure = optuna.visualization.plot_parallel_coordinate(study, target_name=label(results))
    if not figure.data:
        raise UndrawableError("Not drawn: the search varies no hyperparameter.")
    scale = [GREY, ACCENT]
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    # The first axis is the score. Among many lines only the best few stand out, and they are drawn last, on top.
    lines.sort(key=lambda trace: trace.y[0], reverse=results.lower_is_better)
    for place, trace in enumerate(lines, start=1):
        weight = (place / len(lines)) ** (1 + len(lines) / 40)
        colour = plotly.colors.sample_colorscale(scale, [weight])[0]
        trace.update(line={"color": colour, "width": 1 + 1.5 * weight}, opacity=0.3 + 0.7 * weight)
    figure.data = lines
    figure.update_annotations(font={"size": 11, "color": None})
    axes = len(figure.layout.xaxis.tickvals)
    figure.update_xaxes(side="top", tickfont={"size": 12}, ticks="", showline=False, range=[-0.55, axes - 0.75])
    caption = (
        "One line per finished trial, from its score (left) through its hyperparameters; the better, the greener and "
        "thicker. Where the green lines pass through a narrow part of an axis, that hyperparameter matters and the "
        "part is its good range; where they spread over all of it, it matters little."
    )
    return Chart("parallel", "Parallel coordinates", caption, styled(figure), height=420, min_width=96 * axes)


def slices(results: Results, study: optuna.study.Study) -> Chart:
    """The score over each hyperparameter by itself."""
    finished(study, 2)
    varied = [name for name in _searched(study) if results.trials[name].nunique(dropna=True) > 1]
    if not varied:
        raise UndrawableError("Not drawn: the search varies no hyperparameter.")
    figure = optuna.visualization.plot_slice(study, params=varied, target_name=label(results))
    for trace in figure.data:
        # Later trials darker, as Optuna means it, in the page's own colour.
        colours = {"colorscale": [[0, GREY], [1, ACCENT]], "showscale": False}
        trace.marker.update(size=7, line={"width": 0}, opacity=0.8, **colours)
        axis = figure.layout["xaxis" + trace.xaxis.removeprefix("x")]
        # The panels are narrow: the ends of what was tried are enough to read them by.
        values = list(dict.fromkeys(trace.x))
        shown = (
            sorted({min(values), max(values)}) if all(isinstance(value, int | float) for value in values) else values
        )
        texts = [f"{value:.3g}" if isinstance(value, float) else str(value).strip("'") for value in shown]
        axis.update(tickvals=shown, ticktext=texts)
    figure.update_xaxes(tickfont={"size": 11}, tickangle=0, ticks="", showline=False)
    figure.update_layout(width=None, height=None)
    caption = (
        "The score of finished trials over one hyperparameter at a time, later trials greener. A slope or a hump says "
        "where to search more finely; a level cloud that it matters little; green at an edge that the range ends too "
        "early. Trials that do not use a hyperparameter are missing in its picture."
    )
    return Chart("slices", "Slices", caption, styled(figure), height=320, min_width=90 + 120 * len(varied))


def _searched(study: optuna.study.Study) -> list[str]:
    return list(dict.fromkeys(name for trial in study.get_trials(deepcopy=False) for name in trial.distributions))
