"""The charts of what mattered: importances, parallel coordinates, slices."""

import html

import optuna
import plotly.colors
import plotly.graph_objects as go

from fsd_tune.report import importances as measure
from fsd_tune.report.charts.base import ACCENT, GREY, Chart, finished, label, styled
from fsd_tune.report.results import Results
from fsd_tune.report.study_db import UndrawableError
from fsd_tune.storage.known_trials import study_of
from fsd_tune.storage.layout import TrialState

# Lines of the parallel coordinates: of the best trials, and of the others.
_MOST_OF_EITHER = 50
_NOTHING_VARIED = "Not drawn: the search varies no hyperparameter."


def importances(results: Results) -> Chart:
    """Draw the share of the trials' ranks that each hyperparameter explains, beside the level of noise.

    Args:
        results: the results of a search.

    Raises:
        UndrawableError: there are too few trials to compare, or the search varies no hyperparameter.
    """
    measured = measure.importances(results)
    if measured.trials < measure.FEWEST:
        raise UndrawableError(
            f"Not drawn yet: it compares trials at the same report and needs at least {measure.FEWEST} of them, "
            f"because with fewer any hyperparameter seems important by chance. There are {measured.trials}."
        )
    if not measured.rows:
        raise UndrawableError(_NOTHING_VARIED)
    names = [html.escape(row.name) for row in measured.rows]
    figure = go.Figure(
        go.Bar(
            x=[row.share for row in measured.rows], y=names, orientation="h", width=0.55, showlegend=False,
            marker={"color": [ACCENT if row.stands_out else GREY for row in measured.rows]},
            customdata=[row.trials for row in measured.rows],
            hovertemplate="%{y}: %{x:.2f} of the variance, %{customdata} trials<extra></extra>",
        )
    )  # fmt: skip
    figure.add_scatter(
        x=[row.noise for row in measured.rows], y=names, mode="markers", name="noise level", hoverinfo="skip",
        marker={"symbol": "line-ns", "size": 18, "line": {"width": 2, "color": GREY}},
    )  # fmt: skip
    figure.update_xaxes(title="share of variance explained", range=[0, 1])
    figure.update_yaxes(title="", ticklabelstandoff=6, showgrid=False, autorange="reversed")
    height = 130 + 34 * len(names)
    return Chart("importances", "Hyperparameter importances", _advice(results, measured), styled(figure), height=height)


def _advice(results: Results, measured: measure.Importances) -> str:
    """Return the caption. It gives only the advice that the number of trials supports."""
    point = "by their scores" if measured.report is None else f"at report {measured.report}"
    if measured.report is not None and results.summary.reports:
        point += f" of {results.summary.reports}"
    kinds = "finished" if measured.report is None else "finished and stopped"
    caption = (
        f"How much of the order of {measured.trials} {kinds} trials, compared {point}, each hyperparameter explains by "
        "itself. The upright marks are the level that pure noise reaches in 1 of 20 searches of this size. "
    )
    important = [row.name for row in measured.rows if row.stands_out]
    if important:
        caption += f"Above it: {', '.join(important)}. Search these more finely. "
    else:
        caption += "No bar is above it, so these trials do not say which hyperparameter matters. "
    if measured.trials >= measure.ENOUGH:
        caption += "You can fix the others: one that matters much rarely stays below the mark with this many trials."
    else:
        caption += (
            f"Do not fix the others yet: below {measure.ENOUGH} trials one that matters may well stay below the mark."
        )
    if measured.report is not None and measured.report != results.summary.reports:
        caption += " What matters early may not matter at the end."
    return caption


def parallel(results: Results, study: optuna.study.Study) -> Chart:
    """Draw finished trials as lines through all hyperparameters.

    Args:
        results: the results of the search.
        study: its study, as `measured_study` returns it.

    Raises:
        UndrawableError: fewer than two trials have finished, or the search varies no hyperparameter.
    """
    count = finished(study, 2)
    drawn = _some_finished(results, study)
    figure = optuna.visualization.plot_parallel_coordinate(drawn, target_name=label(results))
    if not figure.data:
        raise UndrawableError(_NOTHING_VARIED)
    scale = [GREY, ACCENT]
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    # The first axis is the score. Among many lines only the best few stand out, and they are drawn last, on top.
    lines.sort(key=lambda trace: trace.y[0], reverse=results.lower_is_better)
    for position, trace in enumerate(lines, start=1):
        weight = (position / len(lines)) ** (1 + len(lines) / 40)
        colour = plotly.colors.sample_colorscale(scale, [weight])[0]
        trace.update(line={"color": colour, "width": 1 + 1.5 * weight}, opacity=0.3 + 0.7 * weight)
    figure.data = lines
    figure.update_annotations(font={"size": 11, "color": None})
    axes = len(figure.layout.xaxis.tickvals)
    figure.update_xaxes(side="top", tickfont={"size": 12}, ticks="", showline=False, range=[-0.55, axes - 0.75])
    which = "" if len(lines) == count else f", the best {_MOST_OF_EITHER} and some of all ranks below them"
    caption = (
        f"Each line is one of {len(lines)} finished trials{which}, from its score (left) through its hyperparameters; "
        "the better, the greener and thicker. If the green lines pass through a narrow part of an axis, that "
        "hyperparameter matters and the part is its good range; if they spread over all of it, it matters little."
    )
    return Chart("parallel", "Parallel coordinates", caption, styled(figure), height=420, min_width=96 * axes)


def _some_finished(results: Results, study: optuna.study.Study) -> optuna.study.Study:
    """Return the study, or one with the best finished trials and some of the others if more lines were drawn than show.

    The others are evenly spread over the ranks, so that the axes keep what was tried.
    """
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(trials) <= 2 * _MOST_OF_EITHER:
        return study
    ranked = sorted(trials, key=lambda trial: trial.value, reverse=not results.lower_is_better)
    best, others = ranked[:_MOST_OF_EITHER], ranked[_MOST_OF_EITHER:]
    others = [others[index * (len(others) - 1) // (_MOST_OF_EITHER - 1)] for index in range(_MOST_OF_EITHER)]
    return study_of(sorted(best + others, key=lambda trial: trial.number), study.direction.name.lower())


def slices(results: Results, study: optuna.study.Study) -> Chart:
    """Draw the score over each hyperparameter separately.

    Args:
        results: the results of the search.
        study: its study, as `measured_study` returns it.

    Raises:
        UndrawableError: fewer than two trials have finished, or no hyperparameter varies among the finished ones.
    """
    count = finished(study, 2)
    varied, unfinished = _varied(results, study)
    if not varied and unfinished:
        raise UndrawableError(f"Not drawn: only trials that did not finish vary a hyperparameter ({unfinished}).")
    if not varied:
        raise UndrawableError(_NOTHING_VARIED)
    figure = optuna.visualization.plot_slice(study, params=varied, target_name=label(results))
    for trace in figure.data:
        # Later trials are darker, as Optuna draws them, in the page's own colour.
        colours = {"colorscale": [[0, GREY], [1, ACCENT]], "showscale": False}
        trace.marker.update(size=7, line={"width": 0}, opacity=0.8, **colours)
        axis = figure.layout["xaxis" + (trace.xaxis or "x").removeprefix("x")]
        # The panels are narrow, so label only the lowest and the highest value tried.
        values = list(dict.fromkeys(trace.x))
        tick_values = (
            sorted({min(values), max(values)}) if all(isinstance(value, int | float) for value in values) else values
        )
        texts = [f"{value:.3g}" if isinstance(value, float) else str(value).strip("'") for value in tick_values]
        axis.update(tickvals=tick_values, ticktext=texts)
    figure.update_xaxes(tickfont={"size": 11}, tickangle=0, ticks="", showline=False)
    figure.update_layout(width=None, height=None)
    caption = (
        f"The score of {count} finished trials over one hyperparameter at a time, later trials greener. A slope or a "
        "hump shows where to search more finely. A level cloud means that the hyperparameter matters little, green "
        "dots at an edge that its range ends too early. A panel lacks the trials that do not use its hyperparameter."
    )
    if unfinished:
        caption += f" Not shown, because fewer than two values of it finished: {unfinished}."
    return Chart("slices", "Slices", caption, styled(figure), height=320, min_width=90 + 120 * len(varied))


def _varied(results: Results, study: optuna.study.Study) -> tuple[list[str], str]:
    """Return the hyperparameters that differ among finished trials, and those that differ only if all trials count."""
    complete = optuna.trial.TrialState.COMPLETE
    trials = study.get_trials(deepcopy=False)
    searched = dict.fromkeys(name for trial in trials for name in trial.distributions)
    # Optuna can draw only hyperparameters that some finished trial has.
    drawable = {name for trial in trials if trial.state == complete for name in trial.params}
    finished_trials = results.trials[results.trials["state"] == TrialState.FINISHED]

    def differs(name: str) -> bool:
        return name in drawable and finished_trials[name].nunique(dropna=True) > 1

    others = [name for name in searched if not differs(name) and results.trials[name].nunique(dropna=True) > 1]
    return [name for name in searched if differs(name)], ", ".join(others)
