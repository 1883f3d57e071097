"""Run `fsd-tune analyze`: compare a student's features with its teacher's in numbers (`analysis.json`) and pictures.

Both models run once over a sample of dev. The features of all their layers stay on disk in half precision until the
analysis ends, so that memory holds one layer of the sample at a time.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fsd_tune.device import select_device
from fsd_tune.evaluation.analysis import geometry, pictures
from fsd_tune.evaluation.analysis.inputs import ANALYSIS, AnalysisPlan
from fsd_tune.memory import kmeans, teacher_outputs
from fsd_tune.memory.teacher_outputs import TeacherOutputs
from fsd_tune.models.loading import ModelInfo, label_order, load_classifier
from fsd_tune.progress import Display
from fsd_tune.report import html_report
from fsd_tune.storage import artifacts, files, layout
from fsd_tune.versions import versions

_EXAMPLES_PER_CENTROID = 10


def analyze(plan: AnalysisPlan, device: str, display: Display) -> dict[str, Any]:
    """Analyse the models and write `plan.output`.

    If `plan.output` lies in a search's folder, the report of that search is written again.

    Args:
        plan: the checked inputs.
        device: the device that the models run on: auto, cpu or cuda.
        display: shows progress.

    Returns:
        The content of `analysis.json`. Layers are indices of `hidden_states`; 0 is the output of the embeddings.

    Raises:
        FsdTuneError: the disk is full.
    """
    started = time.monotonic()
    with files.temporary_folder(plan.output) as folder:
        teacher = _outputs(plan, plan.teacher, "teacher", folder, device, display)
        student = _outputs(plan, plan.student, "student", folder, device, display)
        document = _description(plan) | _comparison(plan, teacher, student, display)
    document |= {"versions": versions(), "seconds": round(time.monotonic() - started, 2)}
    document = _without_nan(document)
    display.stage("pictures", 0, 1)
    with artifacts.writing(plan.output) as (temporary, facts):
        artifacts.write_json(temporary / ANALYSIS, document)
        pictures.draw_pictures(document, temporary)
        facts |= plan.identity
    if plan.output.name == layout.ANALYSIS and (plan.output.parent / layout.SUMMARY).is_file():
        html_report.write_report(plan.output.parent)
    display.close()
    return document


def analysis_lines(document: dict[str, Any], output: Path) -> list[str]:
    """Return an analysis as lines for a terminal.

    Args:
        document: the result of `analyze`.
        output: the folder of the analysis.

    Returns:
        The lines.
    """
    sample = document["sample"]
    text = [
        f"{document['student']['name']} beside {document['teacher']['name']} on {document['task']}: "
        f"{sample['examples']} of {sample['of']} dev examples (seed {sample['seed']})"
    ]
    for row in document["gaps"]:
        teacher_layer = row["teacher_layer"]
        student_layer = row["student_layer"]
        text.append(f"  layer {student_layer} of the student, {teacher_layer} of the teacher")
        for kind in ("intra", "local"):
            distance, relative, cosine = (row[kind][key] for key in ("distance", "relative_distance", "cosine"))
            cka = document["cka"][kind][student_layer][teacher_layer]
            text.append(
                f"    {kind}: CKA {'undefined' if cka is None else f'{cka:.4f}'}; gap of distances {_gap(distance)}, "
                f"relative {_gap(relative)}, of cosines {_gap(cosine)}"
            )
    return [*text, f"numbers and pictures: {output}"]


def _gap(figures: dict[str, float]) -> str:
    return f"{figures['mean']:.4g} ± {figures['deviation']:.4g}"


def _outputs(
    plan: AnalysisPlan, info: ModelInfo, name: str, folder: Path, device: str, display: Display
) -> TeacherOutputs:
    """Write one model's features of the sample for all layers, and return them mapped from disk."""

    def progress(_: str, done: int, total: int) -> None:
        display.stage(f"the {name}'s features", done, total)

    layers = range(info.layers + 1)
    sample = plan.samples[name == "student"]
    model = load_classifier(info.path, plan.task)
    order = label_order(info, plan.task, f"--{name}")
    teacher_outputs.write_outputs(
        folder / name, model, order, sample, layers, "masked", "float32", select_device(device), progress
    )
    return teacher_outputs.read_outputs(folder / name, mapped=True)


def _description(plan: AnalysisPlan) -> dict[str, Any]:
    def model(info: ModelInfo) -> dict[str, Any]:
        return {"name": info.path, "layers": info.layers, "hidden_size": info.hidden_size}

    sample = {"split": "dev", "examples": len(plan.sample), "of": plan.dev_examples, "seed": plan.seed}
    return {
        "task": plan.task.id,
        "teacher": model(plan.teacher),
        "student": model(plan.student) | {"trial": plan.record.trial},
        "sample": sample | {"tokens": len(plan.sample.ids), "max_length": plan.sample.max_length},
        "identity": plan.identity,
        "pair": {"teacher_layer": plan.pair[0], "student_layer": plan.pair[1]},
    }


def _comparison(
    plan: AnalysisPlan, teacher: TeacherOutputs, student: TeacherOutputs, display: Display
) -> dict[str, Any]:
    """Return the CKA of all layers, the gaps of the layer pairs, and the data of the map and of t-SNE."""
    display.stage("CKA of tokens, all layers", 0, 1)
    intra_cka = geometry.intra_cka(teacher, student)
    teacher_grams, student_grams = _example_grams(teacher, student, display)
    examples = geometry.examples_within(plan.sample.lengths)
    rows = []
    maps = {}
    for done, (t, s) in enumerate(plan.pairs):
        display.stage("gaps, layer pairs", done, len(plan.pairs))
        pairs = {
            "intra": (geometry.intra_pairs(teacher, t, examples), geometry.intra_pairs(student, s, examples)),
            "local": (geometry.local_pairs(teacher_grams[t]), geometry.local_pairs(student_grams[s])),
        }
        row: dict[str, Any] = {"teacher_layer": t, "student_layer": s}
        rows.append(row | {kind: geometry.gap(*models) for kind, models in pairs.items()})
        if (t, s) == plan.pair:
            maps = {kind: geometry.cosine_euclidean(*models) for kind, models in pairs.items()}
    return {
        "cka": {"intra": intra_cka, "local": geometry.local_cka(teacher_grams, student_grams)},
        "gaps": rows,
        "intra_examples": examples,
        "map": maps,
        "tsne": _tsne(plan, teacher, teacher_grams, student_grams, display),
    }


def _example_grams(
    teacher: TeacherOutputs, student: TeacherOutputs, display: Display
) -> tuple[list[Tensor], list[Tensor]]:
    """Return, for each layer of each model, the products of the flattened examples, float64 [S, S]."""
    grams: tuple[list[Tensor], list[Tensor]] = ([], [])
    total = len(teacher.shards) + len(student.shards)
    for model_grams, outputs in zip(grams, (teacher, student), strict=True):
        for layer in sorted(outputs.shards):
            display.stage("products of examples, layers", sum(map(len, grams)), total)
            model_grams.append(geometry.example_gram(outputs, layer))
    return grams


def _tsne(
    plan: AnalysisPlan,
    teacher: TeacherOutputs,
    teacher_grams: list[Tensor],
    student_grams: list[Tensor],
    display: Display,
) -> dict[str, Any]:
    """Return t-SNE of features and centroids.

    The teacher's centroids come from its memory, or from a k-means of the sample. The student's centroids are the means
    of its features over the teacher's clusters.
    """
    t, s = plan.pair
    centroids = plan.centroids()
    n = len(plan.sample)
    if centroids is None:
        k = min(plan.task.default_centroids, max(2, n // _EXAMPLES_PER_CENTROID))
        clusters = kmeans.cluster(teacher, t, k, display.stage)[1].astype(np.int64)
        teacher_gram = geometry.with_means(teacher_grams[t], clusters)
        origin = f"k-means of the {n} examples"
    else:
        teacher_gram = geometry.example_gram(teacher, t, centroids)
        clusters = geometry.pairwise_geometry(teacher_gram)[0][:n, n:].argmin(1).numpy()
        origin = f"the teacher memory {plan.memory.name if plan.memory else ''}"
    document: dict[str, Any] = {"centroids": origin}
    student_gram = geometry.with_means(student_grams[s], clusters)
    for name, gram in (("teacher", teacher_gram), ("student", student_gram)):
        display.stage(f"t-SNE of the {name}'s features", 0, 1)
        points = np.round(geometry.embedded(gram, plan.seed), 3).tolist()
        document[name] = {"examples": points[:n], "centroids": points[n:]}
    words = [] if plan.task.regression else list(plan.task.labels)
    return document | {"labels": plan.sample.labels.tolist(), "words": words}


def _without_nan(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document as JSON types, with NaN replaced by None, because JSON has no NaN."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(part) for key, part in value.items()}
        if isinstance(value, list):
            return [clean(part) for part in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    cleaned: dict[str, Any] = json.loads(json.dumps(clean(document)))
    return cleaned
