"""The report's charts of the best trial and the memory: loss terms, CKA with the teacher by layer, clusters."""

import html
import itertools
import math

import plotly.graph_objects as go

from fsd_tune.report.charts.base import ACCENT, AMBER, BLUE, GREY, PINK, VIOLET, Chart, styled
from fsd_tune.report.members import chosen_trial
from fsd_tune.report.results import Results
from fsd_tune.report.study_db import UndrawableError
from fsd_tune.settings.methods import TERMS

# Other terms take the next of `_SPARE`, because no method has them beside L_I, L_L or L_G.
_COLOURS = {"task": GREY, "kd": BLUE, "intra": ACCENT, "local": AMBER, "global": VIOLET}
_SPARE = (PINK, AMBER)
_DASHES = ("dot", "dash", "dashdot")


def losses(results: Results) -> Chart:
    """Draw the loss terms of the best trial's reports.

    Args:
        results: the results of a search.

    Raises:
        UndrawableError: no trial has finished, or the best trial reported no loss terms.
    """
    best = chosen_trial(results)
    if best is None:
        raise UndrawableError("Not drawn yet: no trial has finished.")
    reports = results.reports[results.reports["trial"] == best["number"]]
    figure = go.Figure()
    colours, spare = dict(_COLOURS), itertools.cycle(_SPARE)
    lowest, highest = math.inf, 0.0
    for column in (name for name in reports.columns if str(name).startswith("loss/")):
        values = reports[column].astype(float)
        if not values.notna().any():
            continue
        term = str(column).removeprefix("loss/")
        term_name, _, part = term.partition("/")
        name = TERMS[term_name].label if term_name in TERMS else term_name
        if term_name not in colours:
            colours[term_name] = next(spare)
        if part:
            name = f"{name.split(' ')[0]}: {part}"
        figure.add_scatter(
            x=reports["step"].tolist(),
            y=values.tolist(),
            name=html.escape(name),
            mode="lines+markers",
            line={"color": colours[term_name], "width": 2, "dash": _DASHES[len(figure.data) % 3] if part else "solid"},
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
        "stays flat is weighted too weakly, or already met. Do not compare their sizes: each term has its own scale."
    )
    if any(trace.visible == "legendonly" for trace in figure.data):
        caption += " Faint names in the legend are parts of a term: click one to see it."
    if lowest > 0 and highest > 30 * lowest:
        figure.update_yaxes(type="log", rangemode="normal")
        caption += " The axis is logarithmic."
    return Chart("losses", "Loss terms of the best trial", caption, styled(figure))


def similarity(results: Results) -> Chart:
    """Draw the CKA between the layers of the best student and of its teacher as a heat map.

    Args:
        results: the results of a search.

    Raises:
        UndrawableError: the best student has not been compared with its teacher yet.
    """
    examples, table = results.summary.layer_cka.examples, results.summary.layer_cka.cka
    if not table:
        raise UndrawableError("Not drawn yet: the best student is compared with its teacher at the search's end.")
    figure = go.Figure(layer_map(table))
    figure.update_xaxes(title="layer of the teacher", type="category", showgrid=False)
    figure.update_yaxes(title="layer of the student", type="category", showgrid=False)
    caption = (
        f"Linear CKA between the tokens of a sentence as teacher and student see them, mean over {examples} "
        "examples that it was not trained on. 1 means the same structure. L_I raises the pairs of `loss.layers`. "
        "A bright diagonal means that the student's layers follow the teacher's in order."
    )
    height, width = 130 + 34 * len(table), 120 + 44 * len(table[0])
    title = "Teacher-student CKA by layer"
    return Chart("similarity", title, caption, styled(figure), height=height, min_width=width)


def layer_map(table: list[list[float | None]]) -> go.Heatmap:
    """Return a heat map of the CKA between all layers.

    Args:
        table: CKA as [student's layers][teacher's layers], the embeddings first; None where undefined.
    """
    names = [["embeddings", *(f"{layer}" for layer in range(1, count))] for count in (len(table[0]), len(table))]
    return go.Heatmap(
        z=table, x=names[0], y=names[1], zmin=0, zmax=1, colorscale=[[0, "rgba(127,127,127,0.1)"], [1, ACCENT]],
        texttemplate="%{z:.2f}", hovertemplate="student %{y}, teacher %{x}: %{z:.3f}<extra></extra>",
        colorbar={"thickness": 10, "title": {"text": "CKA"}},
    )  # fmt: skip


def clusters(results: Results) -> Chart:
    """Draw a histogram of the number of training examples per centroid.

    Args:
        results: the results of a search.

    Raises:
        UndrawableError: the search uses no teacher memory.
    """
    sizes = sorted(results.summary.memory.sizes or [])
    if not sizes:
        raise UndrawableError("Not drawn: this search uses no teacher memory.")
    figure = go.Figure(go.Histogram(x=sizes, marker={"color": ACCENT}, nbinsx=30, hovertemplate="%{x} examples: %{y}"))
    figure.update_layout(bargap=0.08)
    figure.update_xaxes(title="examples in a cluster")
    figure.update_yaxes(title="clusters")
    median = sizes[len(sizes) // 2]
    caption = (
        f"{len(sizes)} centroids have {sizes[0]:,} to {sizes[-1]:,} training examples each; the median is {median:,}. "
        "One hump is healthy. Many clusters of a single example mean that there are too many centroids."
    )
    return Chart("clusters", "Cluster sizes of the teacher memory", caption, styled(figure), height=300)
