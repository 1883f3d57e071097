"""The pictures of `fsd-tune analyze` in a report: its embedded PNG files, each with a caption."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.report.members import chosen_trial
from fsd_tune.report.results import Results
from fsd_tune.storage import layout


@dataclass(frozen=True)
class Picture:
    """One picture of the page.

    Attributes:
        key: its anchor in the page.
        title: its heading.
        caption: what to see in it.
        source: the picture as a `data:` URI; empty if its file is missing.
    """

    key: str
    title: str
    caption: str
    source: str


def analysis_pictures(results: Results) -> list[Picture]:
    """Return the pictures of the analysis in a search's folder, in the page's order; empty without an analysis.

    Args:
        results: the results of the search.
    """
    if not results.analysis:
        return []
    folder = results.folder / layout.ANALYSIS
    captions: tuple[tuple[str, str, Callable[[], str]], ...] = (
        ("cka", "CKA of all layers", lambda: _cka(results.analysis) + _analysed_student(results)),
        ("gaps", "Gaps of distances and cosines", lambda: _gaps(results.analysis)),
        ("map", "Cosine and Euclidean distance of pairs", lambda: _map(results.analysis)),
        ("tsne", "t-SNE of features and centroids", lambda: _tsne(results.analysis)),
    )
    return [_picture(folder / f"{name}.png", title, caption) for name, title, caption in captions]


def data_uri(path: Path) -> str:
    """Return a PNG file as a `data:` URI, which a page can show without a request.

    Args:
        path: the PNG file.
    """
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _picture(path: Path, title: str, caption: Callable[[], str]) -> Picture:
    """Return a picture. If it cannot be shown, its caption says why."""
    key = f"analysis_{path.stem}"
    hint = "`fsd-tune analyze --search` writes it again."
    try:
        return Picture(key, title, caption(), data_uri(path))
    except FileNotFoundError:
        return Picture(key, title, f"Not drawn: the file {path.parent.name}/{path.name} is missing; {hint}", "")
    except (OSError, KeyError, IndexError, TypeError, AttributeError):
        return Picture(key, title, f"Not drawn: the analysis in {path.parent.name}/ is damaged; {hint}", "")


def _analysed_student(results: Results) -> str:
    """Return a sentence that names the analysed student if it is no longer the best one."""
    trial, best = results.analysis["student"].get("trial"), chosen_trial(results)
    if trial is None or best is None or trial == best["number"]:
        return ""
    return (
        f" This is trial {trial}, which was the best when it was analysed. `fsd-tune analyze --search` analyses the "
        "current best one."
    )


def _cka(analysis: Mapping[str, Any]) -> str:
    sample = analysis["sample"]
    return (
        f"Linear CKA between all layers on {sample['examples']} of {sample['of']} dev examples, drawn with seed "
        f"{sample['seed']}. Left: between the tokens of an example, averaged over examples, which L_I compares. Right: "
        "between examples, each as one vector, which L_L compares. 1 means the same structure."
    )


def _gaps(analysis: Mapping[str, Any]) -> str:
    first = analysis["gaps"][0]
    return (
        "Mean and standard deviation of |teacher − student| over pairs: the Euclidean distance and the cosine of two "
        f"tokens of an example ({first['intra']['pairs']:,} pairs) and of two examples, each as one vector "
        f"({first['local']['pairs']:,} pairs). Relative distances are divided by their model's mean, because the "
        "features of two models may differ in length. 0 means the teacher's own geometry."
    )


def _map(analysis: Mapping[str, Any]) -> str:
    pair = analysis["pair"]
    return (
        f"The number of pairs by cosine and distance, in layer {pair['teacher_layer']} of the teacher and layer "
        f"{pair['student_layer']} of the student. Brighter is more, on a logarithmic scale. Both models share their "
        "axes: a cloud that lies elsewhere in the student is what the gaps above measure."
    )


def _tsne(analysis: Mapping[str, Any]) -> str:
    return (
        "Each dot is a dev example as one vector, coloured by its label. Crosses are centroids "
        f"({analysis['tsne']['centroids']}), in the student the means of each centroid's examples. What lies together "
        "in the teacher should lie together in the student. Positions, and distances between groups, mean nothing by "
        "themselves."
    )
