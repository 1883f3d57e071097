"""The report's charts of `fsd-tune analyze`: CKA of all layers, gaps of pairs, the cosine-Euclidean map, t-SNE."""

import html
import math
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fsd_tune.report.charts.base import ACCENT, AMBER, BLUE, PINK, VIOLET, Chart, styled
from fsd_tune.report.charts.best_trial import layer_map
from fsd_tune.report.results import Results

_KINDS = {"intra": "tokens of an example (intra)", "local": "examples (local)"}
_GAPS = {"distance": "distances", "relative_distance": "relative distances", "cosine": "cosines"}
# Classes differ by marker, too.
_CLASSES = ((BLUE, "circle"), (AMBER, "triangle-up"), (ACCENT, "square"), (PINK, "diamond"), (VIOLET, "cross"))
_MODELS = ("teacher", "student")


def makers(results: Results) -> list[tuple[str, str, Callable[[], Chart]]]:
    """Key, title and maker of each chart, in the page's order."""
    found = results.analysis
    return [
        ("analysis_cka", "CKA of all layers", lambda: _cka(found, _whose(results))),
        ("analysis_gaps", "Gaps of distances and cosines", lambda: _gaps(found)),
        ("analysis_map", "Cosine and Euclidean distance of pairs", lambda: _map(found)),
        ("analysis_tsne", "t-SNE of features and centroids", lambda: _tsne(found)),
    ]


def _whose(results: Results) -> str:
    """Which student was analysed, where that is not the best one of now."""
    trial, best = results.analysis["student"].get("trial"), results.best
    if trial is None or best is None or trial == best["number"]:
        return ""
    return f" This is trial {trial}, which was the best when it was analysed; `fsd-tune analyze --search` does so anew."


def _cka(found: dict[str, Any], whose: str) -> Chart:
    figure = make_subplots(1, 2, subplot_titles=[f"between {kind}" for kind in _KINDS.values()], shared_yaxes=True)
    rows, columns = len(found["cka"]["intra"]), len(found["cka"]["intra"][0])
    for column, kind in enumerate(_KINDS, start=1):
        figure.add_trace(layer_map(found["cka"][kind]).update(showscale=column == 2), 1, column)
    figure.update_xaxes(title="layer of the teacher", type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False)
    figure.update_yaxes(title="layer of the student", col=1)
    sample = found["sample"]
    caption = (
        f"Linear CKA between all layers on {sample['examples']} of {sample['of']} dev examples, drawn with seed "
        f"{sample['seed']}: of the tokens of an example, averaged (what L_I compares), and of the examples, each as "
        f"one vector (what L_L compares). 1 is the same structure.{whose}"
    )
    height, width = 170 + 34 * rows, 220 + 88 * columns
    return Chart("analysis_cka", "CKA of all layers", caption, _titled(figure), height=height, min_width=width)


def _gaps(found: dict[str, Any]) -> Chart:
    figure = make_subplots(1, 3, subplot_titles=[f"gap of {title}" for title in _GAPS.values()])
    names = [f"{row['student_layer']} : {row['teacher_layer']}" for row in found["gaps"]]
    for column, key in enumerate(_GAPS, start=1):
        for (kind, name), colour, shape in zip(_KINDS.items(), (BLUE, AMBER), ("", "/"), strict=True):
            figures = [row[kind][key] for row in found["gaps"]]
            means, deviations = ([one[part] for one in figures] for part in ("mean", "deviation"))
            bars = {"type": "data", "array": deviations, "arrayminus": list(map(min, means, deviations))}
            figure.add_bar(
                x=names, y=means, name=name, legendgroup=kind, showlegend=column == 1, error_y=bars | {"thickness": 1},
                marker={"color": colour, "pattern": {"shape": shape}}, customdata=deviations,
                hovertemplate="layers %{x}: %{y:.4g} ± %{customdata:.4g}", row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(title="layers, student : teacher", type="category")
    figure.update_yaxes(rangemode="tozero")
    rows = found["gaps"]
    caption = (
        "|teacher − student| over pairs, its mean and standard deviation: the Euclidean distance and the cosine of two "
        f"tokens of an example ({rows[0]['intra']['pairs']:,} pairs) and of two examples, each as one vector "
        f"({rows[0]['local']['pairs']:,} pairs). Relative distances are divided by their model's mean, for models "
        "whose features are of different length. 0 is the teacher's own geometry."
    )
    chart = Chart("analysis_gaps", "Gaps of distances and cosines", caption, _titled(figure), height=380, min_width=720)
    # The legend stands where the titles of the parts are, else.
    figure.update_layout(legend={"y": -0.32, "yanchor": "top"})
    return chart


def _map(found: dict[str, Any]) -> Chart:
    titles = [f"{model}, {kind}" for kind in _KINDS.values() for model in _MODELS]
    figure = make_subplots(2, 2, subplot_titles=titles, vertical_spacing=0.18)
    for row, kind in enumerate(_KINDS, start=1):
        drawn = found["map"][kind]
        middles = {
            axis: [(low + high) / 2 for low, high in zip(drawn[axis], drawn[axis][1:], strict=False)]
            for axis in ("cosine", "distance")
        }
        most = max(max(map(max, drawn[model])) for model in _MODELS)
        for column, model in enumerate(_MODELS, start=1):
            figure.add_trace(
                go.Heatmap(
                    x=middles["cosine"], y=middles["distance"], customdata=drawn[model],
                    z=[[math.log10(count) if count else None for count in line] for line in drawn[model]],
                    zmin=0, zmax=math.log10(max(most, 2)), colorscale="Viridis", showscale=False,
                    hovertemplate="cosine %{x:.3f}, distance %{y:.3f}: %{customdata} pairs<extra></extra>",
                ),
                row, column,
            )  # fmt: skip
    figure.update_xaxes(title="cosine")
    figure.update_yaxes(title="distance", col=1)
    pair = found["pair"]
    caption = (
        f"How many pairs have which cosine and distance, in layer {pair['teacher_layer']} of the teacher and layer "
        f"{pair['student_layer']} of the student, brighter for more (logarithmic). Both models on the same axes: a "
        "cloud that lies elsewhere in the student is what the gaps above measure."
    )
    title = "Cosine and Euclidean distance of pairs"
    return Chart("analysis_map", title, caption, _titled(figure), height=680, min_width=640)


def _tsne(found: dict[str, Any]) -> Chart:
    made, pair = found["tsne"], found["pair"]
    figure = make_subplots(1, 2, subplot_titles=[f"{model}, layer {pair[f'{model}_layer']}" for model in _MODELS])
    for column, model in enumerate(_MODELS, start=1):
        points, first = made[model]["examples"], column == 1
        for index, word in enumerate(made["words"]):
            chosen = [point for point, label in zip(points, made["labels"], strict=True) if label == index]
            colour, symbol = _CLASSES[index % len(_CLASSES)]
            name = html.escape(word)
            figure.add_scatter(
                x=[x for x, _ in chosen], y=[y for _, y in chosen], mode="markers", name=name, legendgroup=name,
                showlegend=first, marker={"color": colour, "symbol": symbol, "size": 6, "opacity": 0.8},
                hoverinfo="name", row=1, col=column,
            )  # fmt: skip
        if not made["words"]:
            figure.add_scatter(
                x=[x for x, _ in points], y=[y for _, y in points], mode="markers", showlegend=False,
                text=made["labels"],
                marker={
                    "color": made["labels"], "colorscale": "Cividis", "size": 6, "showscale": not first,
                    "colorbar": {"thickness": 10, "title": {"text": "score"}},
                },
                hovertemplate="score %{text}<extra></extra>", row=1, col=column,
            )  # fmt: skip
        centroids = made[model]["centroids"]
        figure.add_scatter(
            x=[x for x, _ in centroids], y=[y for _, y in centroids], mode="markers", name="centroids",
            legendgroup="centroids", showlegend=first, hoverinfo="name",
            marker={"color": "#888888", "symbol": "x-thin", "size": 9, "line": {"width": 2, "color": "#888888"}},
            row=1, col=column,
        )  # fmt: skip
    figure.update_xaxes(showticklabels=False, showgrid=False)
    figure.update_yaxes(showticklabels=False, showgrid=False)
    caption = (
        f"Each dot a dev example, as one vector, by its label; crosses are centroids ({made['centroids']}; "
        "in the student the means of each centroid's examples). What lies together in the teacher should lie together "
        "in the student; places and distances between groups say nothing by themselves."
    )
    chart = Chart("analysis_tsne", "t-SNE of features and centroids", caption, _titled(figure), 460, 640)
    figure.update_layout(legend={"y": -0.04, "yanchor": "top"})
    return chart


def _titled(figure: go.Figure) -> go.Figure:
    """Our look, with room for the titles of the parts."""
    styled(figure).update_layout(margin={"t": 34})
    return figure.update_annotations(font_size=13)
