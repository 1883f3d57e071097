"""Draw the pictures of an analysis from `analysis.json`: cka.png, gaps.png, map.png, tsne.png.

The colours of viridis, of cividis and of Okabe and Ito's palette can be told apart by colour-blind people. Classes also
differ by marker.
"""

from pathlib import Path
from typing import Any

import numpy as np

# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is faint on white.
TEACHER, STUDENT = "#0072B2", "#D55E00"
CLASSES = (("#0072B2", "o"), ("#E69F00", "^"), ("#009E73", "s"), ("#CC79A7", "D"), ("#56B4E9", "v"))
_KINDS = {"intra": "tokens of an example (intra)", "local": "examples (local)"}
_DPI = 130


def draw_pictures(found: dict[str, Any], folder: Path) -> None:
    """Draw all pictures of an analysis into a folder.

    Args:
        found: the content of `analysis.json`.
        folder: the folder of the PNG files.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for name, draw in (("cka", _cka), ("gaps", _gaps), ("map", _map), ("tsne", _tsne)):
        figure = draw(found, pyplot)
        figure.savefig(folder / f"{name}.png", dpi=_DPI)
        pyplot.close(figure)


def layer_names(count: int) -> list[str]:
    """Return the names of `hidden_states` 0 to count - 1.

    Args:
        count: the number of layers, the embeddings included.

    Returns:
        `emb.` and the layers' numbers.
    """
    return ["emb.", *map(str, range(1, count))]


def numbers(table: list[list[float | None]]) -> np.ndarray[Any, Any]:
    """Convert a table to an array, with NaN for None.

    Args:
        table: rows of numbers, as in `analysis.json`.

    Returns:
        float64 [rows, columns].
    """
    return np.asarray(table, float)


def _subtitle(analysis: dict[str, Any]) -> str:
    sample = analysis["sample"]
    return f"{analysis['task']}, {sample['examples']} of {sample['of']} dev examples"


def _cka(analysis: dict[str, Any], pyplot: Any) -> Any:
    tables = {kind: numbers(analysis["cka"][kind]) for kind in _KINDS}
    rows, columns = tables["intra"].shape
    size = (2 * max(3.4, 0.5 * columns) + 1.5, max(2.6, 0.42 * rows + 1.6))
    figure, axes = pyplot.subplots(1, 2, figsize=size, layout="constrained")
    for axis, (kind, table) in zip(axes, tables.items(), strict=True):
        image = axis.imshow(table, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axis.set(title=f"between {_KINDS[kind]}", xlabel="layer of the teacher", ylabel="layer of the student")
        axis.set_xticks(range(columns), layer_names(columns))
        axis.set_yticks(range(rows), layer_names(rows))
        for (row, column), value in np.ndenumerate(table):
            text = "–" if np.isnan(value) else f"{value:.2f}"
            colour = "black" if value > 0.6 else "white"
            axis.text(column, row, text, ha="center", va="center", size=7, color="black" if text == "–" else colour)
    figure.colorbar(image, ax=axes, label="linear CKA", shrink=0.9)
    figure.suptitle(f"Teacher-student CKA by layer: {_subtitle(analysis)}")
    return figure


def _gaps(analysis: dict[str, Any], pyplot: Any) -> Any:
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 4), layout="constrained")
    names = [f"{row['student_layer']} : {row['teacher_layer']}" for row in analysis["gaps"]]
    titles = {"distance": "distances", "relative_distance": "distances, relative to their mean", "cosine": "cosines"}
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for shift, kind, colour, hatch in ((-0.2, "intra", TEACHER, ""), (0.2, "local", STUDENT, "//")):
            gaps = [row[kind][key] for row in analysis["gaps"]]
            means, deviations = ([gap[name] for gap in gaps] for name in ("mean", "deviation"))
            # A gap is never below 0, so its error bar ends there.
            lower = [min(mean, deviation) for mean, deviation in zip(means, deviations, strict=True)]
            axis.bar(
                np.arange(len(names)) + shift, means, 0.38, yerr=(lower, deviations), label=_KINDS[kind], color=colour,
                hatch=hatch, edgecolor="white", error_kw={"ecolor": "#444444", "capsize": 2, "lw": 1},
            )  # fmt: skip
        axis.set_xticks(range(len(names)), names)
        axis.set(title=f"gap of {title}", xlabel="layers, student : teacher", ylabel="|teacher − student|")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"Gaps of pairs, mean and standard deviation: {_subtitle(analysis)}")
    return figure


def _map(analysis: dict[str, Any], pyplot: Any) -> Any:
    from matplotlib.colors import LogNorm

    figure, axes = pyplot.subplots(2, 2, figsize=(8.6, 7), layout="constrained", sharex="row", sharey="row")
    for line, kind in zip(axes, _KINDS, strict=True):
        histogram = analysis["map"][kind]
        largest = max(max(map(max, histogram[name])) for name in ("teacher", "student"))
        for axis, name in zip(line, ("teacher", "student"), strict=True):
            counts = np.asarray(histogram[name], float)
            image = axis.pcolormesh(
                histogram["cosine"], histogram["distance"], np.where(counts > 0, counts, np.nan), cmap="viridis",
                norm=LogNorm(1, max(largest, 2)),
            )  # fmt: skip
            axis.set(title=f"{name}, {_KINDS[kind]}", xlabel="cosine", ylabel="Euclidean distance")
        line[1].set_ylabel("")
        figure.colorbar(image, ax=line, label="pairs")
    pair = analysis["pair"]
    figure.suptitle(
        f"Cosine and distance of pairs, layer {pair['teacher_layer']} of the teacher, {pair['student_layer']} of the "
        f"student:\n{_subtitle(analysis)}"
    )
    return figure


def _tsne(analysis: dict[str, Any], pyplot: Any) -> Any:
    tsne = analysis["tsne"]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 5), layout="constrained")
    labels = np.asarray(tsne["labels"])
    for axis, name in zip(axes, ("teacher", "student"), strict=True):
        points = np.asarray(tsne[name]["examples"])
        for index, word in enumerate(tsne["words"]):
            class_points = points[labels == index]
            colour, marker = CLASSES[index % len(CLASSES)]
            axis.scatter(*class_points.T, s=14, c=colour, marker=marker, label=word, alpha=0.75, linewidths=0)
        if not tsne["words"]:
            image = axis.scatter(*points.T, s=14, c=labels, cmap="cividis", linewidths=0)
        axis.scatter(
            *np.asarray(tsne[name]["centroids"]).T, s=42, c="black", marker="x", linewidths=1.4,
            label="centroid" if name == "teacher" else "mean of a centroid's examples",
        )  # fmt: skip
        layer = analysis["pair"][f"{name}_layer"]
        axis.set(title=f"{name}, layer {layer}", xticks=[], yticks=[])
        axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=4)
    if not tsne["words"]:
        figure.colorbar(image, ax=axes, label="score", shrink=0.8)
    figure.suptitle(f"t-SNE of features: {_subtitle(analysis)}; centroids: {tsne['centroids']}", size=10)
    return figure
