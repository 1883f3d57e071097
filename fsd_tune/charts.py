"""The report's charts: Optuna's own visualisations of the study, and two of ours from the results.

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
import plotly.colors
import plotly.graph_objects as go

from fsd_tune.results import Results
from fsd_tune.study_file import UndrawableError, measured_study, quiet_optuna

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
_LOSS_TERMS = {
    "task": ("task", GREY),
    "kd": ("KD", BLUE),
    "intra": ("L_I (intra)", ACCENT),
    "local": ("L_L (local)", AMBER),
    "global": ("L_G (global)", VIOLET),
}
_DASHES = ("dot", "dash", "dashdot")


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
    """All charts by key, in the page's order; drawn once for a report and what else shows them."""
    from fsd_tune.confirm_report import chart

    # Read once, and inside the guard: an unreadable study takes no chart with it that does not need it.
    study = functools.cache(lambda: measured_study(results))
    makers: list[tuple[str, str, Callable[[], Chart]]] = [
        *([("confirmation", "Scores by seed", lambda: chart(results.confirmation))] if results.confirmation else []),
        ("history", "Optimisation history", lambda: _history(results, study())),
        ("curves", "Learning curves", lambda: _curves(results, study())),
        ("importances", "Hyperparameter importances", lambda: _importances(results, study())),
        ("parallel", "Parallel coordinates", lambda: _parallel(results, study())),
        ("losses", "Loss terms of the best trial", lambda: _losses(results)),
        ("clusters", "Cluster sizes of the teacher memory", lambda: _clusters(results)),
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


def _finished(study: optuna.study.Study, at_least: int) -> int:
    """How many trials have finished; UndrawableError when those are fewer than `at_least`."""
    finished = len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))
    if finished < at_least:
        needed = "one finished trial" if at_least == 1 else f"{at_least} finished trials"
        raise UndrawableError(f"Not drawn yet: it needs at least {needed}, and there are {finished}.")
    return finished


def _label(results: Results) -> str:
    """The metric's name for an axis: plotly reads a little HTML in labels."""
    return html.escape(results.metric.replace("_", " "))


def _teacher_score(results: Results) -> float | None:
    teacher = results.summary.get("teacher")
    score = teacher.get("score") if isinstance(teacher, dict) else None
    return float(score) if isinstance(score, int | float) and math.isfinite(score) else None


def _history(results: Results, study: optuna.study.Study) -> Chart:
    _finished(study, 1)
    figure = optuna.visualization.plot_optimization_history(study, target_name=_label(results))
    dots, best = figure.data[:2]
    dots.update(name="finished trial", marker={"color": GREY, "size": 8}, hovertemplate="trial %{x}: %{y:.4f}")
    best.update(name="best so far", line={"color": ACCENT, "width": 2.5, "shape": "hv"}, hoverinfo="skip")
    caption = (
        "Each dot is the score of a trial that finished; the line is the best so far. Where the line still climbs at "
        "the right, more trials may pay; where it has long been flat, they hardly will. Stopped and failed trials have "
        "no dot."
    )
    teacher = _teacher_score(results)
    if teacher is not None:
        figure.add_hline(
            teacher,
            line={"color": GREY, "width": 1, "dash": "dash"},
            annotation={"text": "teacher", "xanchor": "right"},
        )
        caption += " The dashed line is the teacher."
    figure.update_xaxes(title="trial number")
    return Chart("history", "Optimisation history", caption, styled(figure))


def _curves(results: Results, study: optuna.study.Study) -> Chart:
    figure = optuna.visualization.plot_intermediate_values(study)
    if not figure.data:
        raise UndrawableError("Not drawn yet: no trial has reported.")
    states = dict(zip(results.trials["number"], results.trials["state"], strict=True))
    best = results.best
    best_number = None if best is None else int(best["number"])
    many = len(figure.data) > 60
    named: set[str] = set()
    for trace in figure.data:
        number = int(trace.name.removeprefix("Trial"))
        state = states.get(number, "running")
        name = f"best: trial {number}" if number == best_number else state
        is_best = number == best_number
        trace.update(
            name=name,
            legendgroup=name,
            legendrank=0 if is_best else 1000,
            showlegend=name not in named,
            mode="lines" if many and len(trace.x) > 1 and not is_best else "lines+markers",
            line={"color": ACCENT if is_best else STATE_COLOURS.get(state, GREY), "width": 3 if is_best else 1.2},
            marker={"size": 6 if is_best else 4},
            opacity=1.0 if is_best else 0.35 if many else 0.7,
            hovertemplate=f"trial {number}, report %{{x}}: %{{y:.4f}}<extra></extra>",
        )
        named.add(name)
    figure.data = sorted(figure.data, key=lambda trace: trace.legendrank, reverse=True)
    rungs = [rung for rung in results.summary.get("rungs") or [] if isinstance(rung, int | float)]
    for rung in rungs:
        figure.add_vline(
            rung,
            line={"color": GREY, "width": 1.5, "dash": "dot"},
            layer="below",
            annotation={"text": "rung", "yref": "paper", "y": 0, "yanchor": "bottom", "xanchor": "left", "xshift": 2},
        )
    reports = results.summary.get("reports")
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title="report" + (f" (of {reports})" if reports else ""))
    if len({int(value) for value in results.reports["report"]}) <= 20:
        figure.update_xaxes(dtick=1)
    figure.update_yaxes(title=_label(results))
    caption = "Each line is one trial's evaluations, at equal parts of its steps. "
    if rungs:
        places = ", ".join(f"{rung:g}" for rung in rungs)
        caption += (
            f"At the dotted lines (reports {places}) ASHA stops trials that lag behind. Where stopped lines run well "
            "below the best one, little was lost; where lines cross after a rung, a longer grace would be safer."
        )
    else:
        caption += (
            "Every trial ran to its end. Where lines are ordered early and stay so, early stopping would be safe."
        )
    return Chart("curves", "Learning curves", caption, styled(figure), height=420)


def _importances(results: Results, study: optuna.study.Study) -> Chart:
    finished = _finished(study, 4)
    if all(d.single() for trial in study.get_trials(deepcopy=False) for d in trial.distributions.values()):
        raise UndrawableError("Not drawn: the search varies no hyperparameter.")
    figure = optuna.visualization.plot_param_importances(study, target_name=_label(results))
    figure.data[0].update(marker={"color": ACCENT}, width=0.55)
    figure.update_xaxes(title="share of the importance", rangemode="tozero", range=[0, 1.15 * max(figure.data[0].x)])
    figure.update_yaxes(title="", ticklabelstandoff=6, showgrid=False)
    caption = (
        "How much each hyperparameter decides whether a finished trial is among the best (PED-ANOVA; the bars add up "
        "to 1). Search the long ones more finely; fix the short ones. "
    )
    caption += f"From {finished} finished trials" + (": a hint, no more." if finished < 30 else ".")
    height = 110 + 34 * len(figure.data[0].y)
    return Chart("importances", "Hyperparameter importances", caption, styled(figure), height=height)


def _parallel(results: Results, study: optuna.study.Study) -> Chart:
    _finished(study, 2)
    figure = optuna.visualization.plot_parallel_coordinate(study, target_name=_label(results))
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


def _losses(results: Results) -> Chart:
    best = results.best
    if best is None:
        raise UndrawableError("Not drawn yet: no trial has finished.")
    reports = results.reports[results.reports["trial"] == best["number"]]
    figure = go.Figure()
    lowest, highest = math.inf, 0.0
    for column in (name for name in reports.columns if str(name).startswith("loss/")):
        values = reports[column].astype(float)
        if not values.notna().any():
            continue
        term = str(column).removeprefix("loss/")
        whole, _, part = term.partition("/")
        name, colour = _LOSS_TERMS.get(whole, (whole, PINK))
        if part:
            name = f"{name.split(' ')[0]}: {part}"
        figure.add_scatter(
            x=reports["step"].tolist(),
            y=values.tolist(),
            name=html.escape(name),
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": _DASHES[len(figure.data) % 3] if part else "solid"},
            marker={"size": 5},
            visible="legendonly" if part else True,
            hovertemplate="step %{x}: %{y:.4g}",
        )
        lowest, highest = min(lowest, values.min()), max(highest, values.max())
    if not figure.data:
        raise UndrawableError("Not drawn: the best trial reported no loss terms.")
    figure.update_xaxes(title="optimiser step")
    figure.update_yaxes(title="loss term, unweighted", rangemode="tozero")
    caption = (
        f"The terms of trial {best['number']}'s loss before their weights. A term that falls is being learnt; one that "
        "stays flat is too weakly weighted, or already met. Their sizes do not compare: each has a scale of its own."
    )
    if any(trace.visible == "legendonly" for trace in figure.data):
        caption += " Faint names in the legend are parts of a term: click one to see it."
    if lowest > 0 and highest > 30 * lowest:
        figure.update_yaxes(type="log", rangemode="normal")
        caption += " The axis is logarithmic."
    return Chart("losses", "Loss terms of the best trial", caption, styled(figure))


def _clusters(results: Results) -> Chart:
    memory = results.summary.get("memory")
    sizes = sorted(memory.get("sizes") or []) if isinstance(memory, dict) else []
    if not sizes:
        raise UndrawableError("Not drawn: this search uses no teacher memory.")
    figure = go.Figure(go.Histogram(x=sizes, marker={"color": ACCENT}, nbinsx=30, hovertemplate="%{x} examples: %{y}"))
    figure.update_layout(bargap=0.08)
    figure.update_xaxes(title="examples in a cluster")
    figure.update_yaxes(title="clusters")
    median = sizes[len(sizes) // 2]
    caption = (
        f"{len(sizes)} centroids hold {sizes[0]:,} to {sizes[-1]:,} training examples each, {median:,} in the middle. "
        "One hump is healthy; many clusters of a single example say that there are more centroids than structure."
    )
    return Chart("clusters", "Cluster sizes of the teacher memory", caption, styled(figure), height=300)


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
