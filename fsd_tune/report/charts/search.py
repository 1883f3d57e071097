"""The report's charts of how the search went: history, best so far over cost, learning curves, workers."""

import html
from typing import Any

import optuna
import plotly.graph_objects as go

from fsd_tune.report.charts.base import ACCENT, GREY, STATE_COLOURS, Chart, finished, label, styled, teacher_score
from fsd_tune.report.methods import compares_equally
from fsd_tune.report.results import Results
from fsd_tune.report.study_db import UndrawableError

# More learning curves than this are drawn fainter and without markers.
_MANY_CURVES = 60


def history(results: Results, study: optuna.study.Study) -> Chart:
    """Draw the finished trials by number and the best score so far, with Optuna.

    Args:
        results: the results of the search.
        study: its study, as `measured_study` returns it.

    Raises:
        UndrawableError: no trial has finished.
    """
    finished(study, 1)
    figure = optuna.visualization.plot_optimization_history(study, target_name=label(results))
    dots, best = figure.data[:2]
    dots.update(name="finished trial", marker={"color": GREY, "size": 8}, hovertemplate="trial %{x}: %{y:.4f}")
    best.update(name="best so far", line={"color": ACCENT, "width": 2.5, "shape": "hv"}, hoverinfo="skip")
    caption = (
        "Each dot is the score of a trial that finished; the line is the best so far. If the line still climbs at "
        "the right, more trials may help; if it has long been flat, they hardly will. Stopped and failed trials have "
        "no dot."
    )
    teacher = teacher_score(results)
    if teacher is not None:
        figure.add_hline(
            teacher,
            line={"color": GREY, "width": 1, "dash": "dash"},
            annotation={"text": "teacher", "xanchor": "right"},
        )
        caption += " The dashed line is the teacher."
    figure.update_xaxes(title="trial number")
    return Chart("history", "Optimisation history", caption, styled(figure))


def cost(results: Results) -> Chart:
    """Draw the best finished score against the student steps of all trials so far.

    Args:
        results: the results of a search.

    Raises:
        UndrawableError: no trial has finished.
    """
    progress = results.best_so_far()
    if not len(progress):
        raise UndrawableError("Not drawn yet: no trial has finished.")
    figure = go.Figure(
        go.Scatter(
            x=progress["steps"].tolist(), y=progress["best"].tolist(), mode="lines", showlegend=False,
            line={"color": ACCENT, "width": 2.5, "shape": "hv"}, hovertemplate="%{x:,} steps: %{y:.4f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title="student steps spent, over all trials", rangemode="tozero")
    figure.update_yaxes(title=label(results))
    caption = (
        "The best score so far over the optimiser steps that all trials, including stopped ones, had taken by then. "
        "If the line has long been flat, a smaller budget would have found the same student."
    )
    teacher = teacher_score(results)
    if teacher is not None:
        line = {"color": GREY, "width": 1, "dash": "dash"}
        figure.add_hline(teacher, line=line, annotation={"text": "teacher", "xanchor": "right"})
        caption += " The dashed line is the teacher."
    return Chart("cost", "Best so far over cost", caption, styled(figure))


def curves(results: Results, study: optuna.study.Study) -> Chart:
    """Draw the learning curve of every trial and ASHA's rungs.

    Args:
        results: the results of the search.
        study: its study, as `measured_study` returns it.

    Raises:
        UndrawableError: no trial has reported.
    """
    traces = _curve_traces(results, study)
    if not traces:
        raise UndrawableError("Not drawn yet: no trial has reported.")
    figure = go.Figure(traces)
    rungs = results.summary.rungs or []
    for rung in rungs:
        figure.add_vline(
            rung,
            line={"color": GREY, "width": 1.5, "dash": "dot"},
            layer="below",
            annotation={"text": "rung", "yref": "paper", "y": 0, "yanchor": "bottom", "xanchor": "left", "xshift": 2},
        )
    reports = results.summary.reports
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title="report" + (f" (of {reports})" if reports else ""))
    if len({int(value) for value in results.reports["report"]}) <= 20:
        figure.update_xaxes(dtick=1)
    figure.update_yaxes(title=label(results))
    caption = "Each line is one trial's evaluations, at equal parts of its steps. "
    if rungs:
        rung_reports = ", ".join(f"{rung:g}" for rung in rungs)
        others = " others of their method" if compares_equally(results) else ""
        caption += (
            f"At the dotted lines (reports {rung_reports}) ASHA stops trials that lag behind{others}. If stopped lines "
            "run well below the best one, little was lost; if lines cross after a rung, a longer grace would be safer."
        )
    else:
        caption += (
            "Every trial ran to its end. If the lines keep their order from early on, early stopping would be safe."
        )
    return Chart("curves", "Learning curves", caption, styled(figure), height=420)


def _curve_traces(results: Results, study: optuna.study.Study) -> list[dict[str, Any]]:
    """Return a trace for each trial, the best one last; many trials share one for each state, with gaps between them.

    Plotly needs milliseconds for each trace, and a browser even longer.
    """
    failed_or_waiting = (optuna.trial.TrialState.FAIL, optuna.trial.TrialState.WAITING)
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state not in failed_or_waiting]
    trials = [trial for trial in trials if trial.intermediate_values]
    states = dict(zip(results.trials["number"], results.trials["state"], strict=True))
    best = results.best
    best_number = None if best is None else int(best["number"])
    many = len(trials) > _MANY_CURVES
    names_in_legend: set[str] = set()
    traces: dict[Any, dict[str, Any]] = {}
    for trial in trials:
        is_best = trial.number == best_number
        state = states.get(trial.number, "running")
        name = f"best: trial {trial.number}" if is_best else state
        as_line = many and len(trial.intermediate_values) > 1 and not is_best
        colour = ACCENT if is_best else STATE_COLOURS.get(state, GREY)
        trace = traces.setdefault(
            (name, as_line) if many else trial.number,
            {
                "type": "scatter",
                "x": [],
                "y": [],
                "customdata": [],
                "name": name,
                "legendgroup": name,
                "legendrank": 0 if is_best else 1000,
                "showlegend": name not in names_in_legend,
                "mode": "lines" if as_line else "lines+markers",
                "line": {"color": colour, "width": 3 if is_best else 1.2},
                "marker": {"size": 6 if is_best else 4},
                "opacity": 1.0 if is_best else 0.35 if many else 0.7,
                "hovertemplate": "trial %{customdata}, report %{x}: %{y:.4f}<extra></extra>",
            },
        )
        names_in_legend.add(name)
        gap = [None] if trace["x"] else []
        trace["x"] += [*gap, *sorted(trial.intermediate_values)]
        trace["y"] += [*gap, *(value for _, value in sorted(trial.intermediate_values.items()))]
        trace["customdata"] += [trial.number] * (len(gap) + len(trial.intermediate_values))
    return sorted(traces.values(), key=lambda trace: -int(trace["legendrank"]))


def timeline(results: Results) -> Chart:
    """Draw the trials of each worker over time.

    Args:
        results: the results of a search.

    Raises:
        UndrawableError: no trial has reported.
    """
    needed_columns = {"timestamp", "time_this_iter_s", "pid", "hostname"}
    if not len(results.reports) or not needed_columns <= set(results.reports.columns):
        raise UndrawableError("Not drawn yet: no trial has reported.")
    reports = results.reports.dropna(subset=sorted(needed_columns))
    reports = reports.assign(begun=reports["timestamp"] - reports["time_this_iter_s"])
    zero = float(reports["begun"].min())
    spans = reports.groupby(["hostname", "pid", "trial"]).agg(begun=("begun", "min"), ended=("timestamp", "max"))
    states = dict(zip(results.trials["number"], results.trials["state"], strict=True))
    workers: dict[tuple[str, int], str] = {}
    spans = spans.sort_values("begun").reset_index()
    for span in spans.to_dict("records"):
        host = str(span["hostname"])
        workers.setdefault((host, int(span["pid"])), f"{len(workers) + 1}: {html.escape(host)}")
    names = [workers[str(host), int(pid)] for host, pid in zip(spans["hostname"], spans["pid"], strict=True)]
    spans = spans.assign(worker=names, state=[states.get(trial, "running") for trial in spans["trial"]])
    figure = go.Figure()
    for state, rows in spans.groupby("state", sort=False):
        figure.add_bar(
            y=rows["worker"].tolist(),
            x=((rows["ended"] - rows["begun"]) / 60).tolist(),
            base=((rows["begun"] - zero) / 60).tolist(),
            customdata=rows["trial"].tolist(),
            orientation="h",
            name=str(state),
            marker={
                "color": STATE_COLOURS.get(str(state), GREY),
                "line": {"width": 1, "color": "rgba(127,127,127,0.4)"},
            },
            hovertemplate=f"trial %{{customdata}}, {state}: %{{x:.1f}} min from %{{base:.1f}}<extra></extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0.35, showlegend=True)
    figure.update_xaxes(title="minutes since the first trial began", rangemode="tozero")
    figure.update_yaxes(title="worker", autorange="reversed", showgrid=False, ticklabelstandoff=6)
    caption = (
        "Each bar is a trial on the worker process that trained it. A gap in a row is time without training: a "
        "start, a waiting evaluation or a worker without a trial. A trial whose worker died continues in another row."
    )
    return Chart("timeline", "Timeline of workers", caption, styled(figure), height=110 + 34 * len(workers))
