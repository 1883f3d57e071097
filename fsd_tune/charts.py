"""The report's charts: Optuna's own visualisations of the study, and two of ours from the results.

Every chart has a caption that says what to see in it. A chart that cannot be drawn keeps its place and says why, and
never stops the others. Colours are mid-tones that read on a light and on a dark page; the page's script sets the
colours of text and grid.
"""

import html
import math
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import plotly.colors
import plotly.graph_objects as go

from fsd_tune.results import Results

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
    "intra": ("L_I, intra-feature", ACCENT),
    "local": ("L_L, local inter-feature", AMBER),
    "global": ("L_G, global inter-feature", VIOLET),
}


class UndrawableError(Exception):
    """Why a chart cannot be drawn from this search, as a sentence for the page."""


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


def charts(results: Results) -> dict[str, Chart]:
    """All charts by key, in the page's order."""
    try:
        study: optuna.study.Study | UndrawableError = _study(results)
    except UndrawableError as reason:
        study = reason
    makers: list[tuple[str, str, Callable[[], Chart]]] = [
        ("history", "Optimisation history", lambda: _history(results, _drawable(study))),
        ("curves", "Learning curves", lambda: _curves(results, _drawable(study))),
        ("importances", "Hyperparameter importances", lambda: _importances(results, _drawable(study))),
        ("parallel", "Parallel coordinates", lambda: _parallel(results, _drawable(study))),
        ("losses", "Loss terms of the best trial", lambda: _losses(results)),
        ("clusters", "Cluster sizes of the teacher memory", lambda: _clusters(results)),
    ]
    return {key: _guarded(key, title, make) for key, title, make in makers}


def _guarded(key: str, title: str, make: Callable[[], Chart]) -> Chart:
    try:
        with _quiet_optuna():
            return make()
    except UndrawableError as reason:
        return Chart(key, title, str(reason), None)
    except Exception as error:  # a chart is worth less than the page: say what happened and draw the others
        first_line = next(iter(str(error).splitlines()), "")
        return Chart(key, title, f"Not drawn: {type(error).__name__}: {first_line}", None)


def _drawable(study: "optuna.study.Study | UndrawableError") -> optuna.study.Study:
    if isinstance(study, UndrawableError):
        raise study
    return study


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna's remarks on studies that are small or young belong in captions, not in the terminal."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _study(results: Results) -> optuna.study.Study:
    """The study in memory, its states, scores and intermediate values those of the results on disk.

    What the sampler was told of a stopped trial may be an extrapolation; the charts show what was measured.
    """
    path = results.folder / "study.db"
    if not path.is_file():
        raise UndrawableError("Not drawn: the folder has no study.db.")
    try:
        with _quiet_optuna(), tempfile.TemporaryDirectory() as folder:
            stored = _stored_trials(_copy(path, Path(folder)), str(results.summary.get("name", "")))
    except (sqlite3.Error, OSError) as error:
        raise UndrawableError(f"Not drawn: study.db cannot be read: {error}") from error
    with _quiet_optuna():
        study = optuna.create_study(direction="minimize" if results.lower_is_better else "maximize")
    rows = {int(row["number"]): row for _, row in results.trials.iterrows()}
    values: dict[int, dict[int, float]] = {}
    if results.metric in results.reports.columns:
        for number, index, value in results.reports[["trial", "report", results.metric]].itertuples(index=False):
            if isinstance(value, float) and math.isfinite(value):
                values.setdefault(int(number), {})[int(index)] = value
    study.add_trials([_measured(trial, rows.get(trial.number), values.get(trial.number, {})) for trial in stored])
    return study


def _copy(path: Path, folder: Path) -> Path:
    """A copy of an SQLite file, which is never written to itself."""
    copy = folder / path.name
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.OperationalError:
        # A killed writer leaves a journal that a reader may not roll back: that is done in the copy.
        for name in (path.name, f"{path.name}-journal", f"{path.name}-wal"):
            if (path.parent / name).exists():
                shutil.copyfile(path.parent / name, folder / name)
    return copy


def _stored_trials(path: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        names = optuna.get_all_study_names(storage)
        if name not in names:
            found = ", ".join(f"`{other}`" for other in names) or "none"
            raise UndrawableError(f"Not drawn: study.db has no study `{name}`; it has {found}.")
        trials: list[optuna.trial.FrozenTrial] = optuna.load_study(study_name=name, storage=storage).trials
        return trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _measured(trial: optuna.trial.FrozenTrial, row: Any, values: dict[int, float]) -> optuna.trial.FrozenTrial:
    """The study's record of a trial with what its files say; unchanged where it has none (not started yet)."""
    if row is None:
        return trial
    states = optuna.trial.TrialState
    score = float(row["score"])
    state = {"finished": states.COMPLETE, "stopped": states.PRUNED, "failed": states.FAIL}.get(
        row["state"], states.RUNNING
    )
    if state == states.COMPLETE and math.isnan(score):
        state = states.FAIL
    return optuna.trial.create_trial(
        state=state,
        value=score if state == states.COMPLETE else None,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=values,
    )


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
    return Chart("history", "Optimisation history", caption, _styled(figure))


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
        figure.add_vline(rung, line={"color": GREY, "width": 1, "dash": "dot"}, layer="below")
    reports = results.summary.get("reports")
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title="report" + (f" (1 to {reports}, equal parts of a trial's steps)" if reports else ""))
    if len({int(value) for value in results.reports["report"]}) <= 20:
        figure.update_xaxes(dtick=1)
    figure.update_yaxes(title=_label(results))
    caption = "Each line is one trial's evaluations as it trains. "
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
    return Chart("curves", "Learning curves", caption, _styled(figure), height=420)


def _importances(results: Results, study: optuna.study.Study) -> Chart:
    finished = _finished(study, 4)
    if all(d.single() for trial in study.get_trials(deepcopy=False) for d in trial.distributions.values()):
        raise UndrawableError("Not drawn: the search varies no hyperparameter.")
    figure = optuna.visualization.plot_param_importances(study, target_name=_label(results))
    figure.data[0].update(marker={"color": ACCENT}, width=0.55)
    figure.update_xaxes(title="share of the importance", rangemode="tozero", range=[0, 1.15 * max(figure.data[0].x)])
    figure.update_yaxes(title="", ticklabelstandoff=6)
    caption = (
        "How much each hyperparameter decides whether a finished trial is among the best (PED-ANOVA; the bars add up "
        "to 1). Search the long ones more finely; fix the short ones. "
    )
    caption += f"From {finished} finished trials" + (": a hint, no more." if finished < 30 else ".")
    height = 110 + 34 * len(figure.data[0].y)
    return Chart("importances", "Hyperparameter importances", caption, _styled(figure), height=height)


def _parallel(results: Results, study: optuna.study.Study) -> Chart:
    _finished(study, 2)
    figure = optuna.visualization.plot_parallel_coordinate(study, target_name=_label(results))
    if not figure.data:
        raise UndrawableError("Not drawn: the search varies no hyperparameter.")
    scale = [GREY, ACCENT]
    for trace in figure.data:
        if trace.mode == "lines":
            # The first axis is the score, scaled to 0..1.
            goodness = 1 - trace.y[0] if results.lower_is_better else trace.y[0]
            colour = plotly.colors.sample_colorscale(scale, [goodness])[0]
            trace.update(line={"color": colour, "width": 1 + 1.5 * goodness}, opacity=0.35 + 0.6 * goodness)
        else:
            trace.marker.update(colorscale=scale, reversescale=results.lower_is_better, showscale=False)
    figure.update_annotations(font={"size": 11, "color": None})
    axes = len(figure.layout.xaxis.tickvals)
    figure.update_xaxes(side="top", tickfont={"size": 12}, range=[-0.55, axes - 0.75])
    caption = (
        "One line per finished trial, from its score (left) through its hyperparameters; the better, the greener and "
        "thicker. Where the green lines pass through a narrow part of an axis, that hyperparameter matters and the "
        "part is its good range; where they spread over all of it, it matters little."
    )
    return Chart("parallel", "Parallel coordinates", caption, _styled(figure), height=420, min_width=96 * axes)


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
        name, colour = _LOSS_TERMS.get(term, (term.replace("_", " "), PINK))
        figure.add_scatter(
            x=reports["step"].tolist(),
            y=values.tolist(),
            name=html.escape(name),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 5},
            visible=True if term in _LOSS_TERMS else "legendonly",
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
    if lowest > 0 and highest > 30 * lowest:
        figure.update_yaxes(type="log", rangemode="normal")
        caption += " The axis is logarithmic."
    return Chart("losses", "Loss terms of the best trial", caption, _styled(figure))


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
    return Chart("clusters", "Cluster sizes of the teacher memory", caption, _styled(figure), height=300)


def _styled(figure: go.Figure) -> go.Figure:
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
    figure.update_xaxes(automargin=True, zeroline=False)
    figure.update_yaxes(automargin=True, zeroline=False)
    return figure
