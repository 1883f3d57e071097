"""`fsd-tune analyze`: how a student's features differ from its teacher's, as numbers (`analysis.json`) and pictures.

Both models run once over a sample of dev; their features of all layers lie on disk, in half precision, while this
works, so that memory holds one layer of the sample at a time.
"""

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fsd_tune.device import select_device
from fsd_tune.evaluation.analysis import geometry, pictures
from fsd_tune.evaluation.analysis.inputs import ANALYSIS, Plan
from fsd_tune.memory import kmeans, teacher_outputs
from fsd_tune.memory.teacher_outputs import TeacherOutputs
from fsd_tune.models.loading import ModelInfo, label_order, load_classifier
from fsd_tune.progress import Display
from fsd_tune.report import html_report
from fsd_tune.storage import artifacts
from fsd_tune.versions import versions

_EXAMPLES_A_CENTROID = 10


def run(plan: Plan, device: str, display: Display) -> dict[str, Any]:
    """Analyse and write `plan.output`; the report of the search whose folder holds it is written anew.

    Args:
        plan: the checked inputs.
        device: auto, cpu or cuda; where the models run.
        display: where progress goes.

    Returns:
        What `analysis.json` holds. Layers are indices of `hidden_states`, the embeddings' output being 0.

    Raises:
        FsdTuneError: no space left.
    """
    started = time.monotonic()
    plan.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{plan.output.name}-", dir=plan.output.parent) as folder:
        teacher = _outputs(plan, plan.teacher, "teacher", Path(folder), device, display)
        student = _outputs(plan, plan.student, "student", Path(folder), device, display)
        found = _described(plan) | _compared(plan, teacher, student, display)
    found |= {"versions": versions(), "seconds": round(time.monotonic() - started, 2)}
    found = _plain(found)
    display.stage("pictures", 0, 1)
    with artifacts.writing(plan.output) as (temporary, facts):
        artifacts.write_json(temporary / ANALYSIS, found)
        pictures.write(found, temporary)
        facts |= plan.identity
        temporary.chmod(0o755)
    if plan.output.name == "analysis" and (plan.output.parent / "summary.json").is_file():
        html_report.write(plan.output.parent)
    display.close()
    return found


def lines(found: dict[str, Any], output: Path) -> list[str]:
    """The analysis for people."""
    sample = found["sample"]
    said = [
        f"{found['student']['name']} beside {found['teacher']['name']} on {found['task']}: {sample['examples']} of "
        f"{sample['of']} dev examples (seed {sample['seed']})"
    ]
    for row in found["gaps"]:
        t, s = row["teacher_layer"], row["student_layer"]
        said.append(f"  layer {s} of the student, {t} of the teacher")
        for kind in ("intra", "local"):
            distance, relative, cosine = (row[kind][key] for key in ("distance", "relative_distance", "cosine"))
            cka = found["cka"][kind][s][t]
            said.append(
                f"    {kind}: CKA {'undefined' if cka is None else f'{cka:.4f}'}; gap of distances {_gap(distance)}, "
                f"relative {_gap(relative)}, of cosines {_gap(cosine)}"
            )
    return [*said, f"numbers and pictures: {output}"]


def _gap(figures: dict[str, float]) -> str:
    return f"{figures['mean']:.4g} ± {figures['deviation']:.4g}"


def _outputs(plan: Plan, info: ModelInfo, name: str, folder: Path, device: str, display: Display) -> TeacherOutputs:
    """One model's features of the sample, of all layers."""

    def progress(_: str, done: int, total: int) -> None:
        display.stage(f"the {name}'s features", done, total)

    layers = range(info.layers + 1)
    sample = plan.samples[name == "student"]
    where = select_device(device)
    model, order = load_classifier(info.path, plan.task), label_order(info, plan.task, f"--{name}")
    teacher_outputs.write(folder / name, model, order, sample, layers, "masked", "float32", where, progress)
    return teacher_outputs.read(folder / name, mapped=True)


def _described(plan: Plan) -> dict[str, Any]:
    def model(info: ModelInfo) -> dict[str, Any]:
        return {"name": info.path, "layers": info.layers, "hidden_size": info.hidden_size}

    sample = {"split": "dev", "examples": len(plan.sample), "of": plan.of, "seed": plan.seed}
    return {
        "task": plan.task.id,
        "teacher": model(plan.teacher),
        "student": model(plan.student) | {"trial": plan.record.get("trial")},
        "sample": sample | {"tokens": len(plan.sample.ids), "max_length": plan.sample.max_length},
        "identity": plan.identity,
        "pair": {"teacher_layer": plan.pair[0], "student_layer": plan.pair[1]},
    }


def _compared(plan: Plan, teacher: TeacherOutputs, student: TeacherOutputs, display: Display) -> dict[str, Any]:
    display.stage("CKA of tokens, all layers", 0, 1)
    intra_cka = geometry.intra_cka(teacher, student)
    grams: list[list[Tensor]] = []
    layers = len(teacher.shards) + len(student.shards)
    for outputs in (teacher, student):
        grams.append([])
        for layer in sorted(outputs.shards):
            display.stage("products of examples, layers", sum(map(len, grams)), layers)
            grams[-1].append(geometry.example_gram(outputs, layer))
    theirs, ours = grams
    held = geometry.examples_within(plan.sample.lengths)
    rows, maps = [], {}
    for done, (t, s) in enumerate(plan.pairs):
        display.stage("gaps, layer pairs", done, len(plan.pairs))
        pairs = {
            "intra": (geometry.intra_pairs(teacher, t, held), geometry.intra_pairs(student, s, held)),
            "local": (geometry.local_pairs(theirs[t]), geometry.local_pairs(ours[s])),
        }
        row: dict[str, Any] = {"teacher_layer": t, "student_layer": s}
        rows.append(row | {kind: geometry.gap(*both) for kind, both in pairs.items()})
        if (t, s) == plan.pair:
            maps = {kind: geometry.cosine_euclidean(*both) for kind, both in pairs.items()}
    return {
        "cka": {"intra": intra_cka, "local": geometry.local_cka(theirs, ours)},
        "gaps": rows,
        "intra_examples": held,
        "map": maps,
        "tsne": _embedded(plan, teacher, theirs, ours, display),
    }


def _embedded(
    plan: Plan, teacher: TeacherOutputs, theirs: list[Tensor], ours: list[Tensor], display: Display
) -> dict[str, Any]:
    """t-SNE of features and centroids: the teacher's memory, or k-means of the sample; the student's cluster means."""
    t, s = plan.pair
    centroids, n = plan.centroids(), len(plan.sample)
    if centroids is None:
        k = min(plan.task.default_centroids, max(2, n // _EXAMPLES_A_CENTROID))
        clusters = kmeans.cluster(teacher, t, k, display.stage)[1].astype(np.int64)
        whole = geometry.with_means(theirs[t], clusters)
        made = f"k-means of the {n} examples"
    else:
        whole = geometry.example_gram(teacher, t, centroids)
        clusters = geometry.pairwise_geometry(whole)[0][:n, n:].argmin(1).numpy()
        made = f"the teacher memory {plan.memory.name if plan.memory else ''}"
    found: dict[str, Any] = {"centroids": made}
    for name, gram in (("teacher", whole), ("student", geometry.with_means(ours[s], clusters))):
        display.stage(f"t-SNE of the {name}'s features", 0, 1)
        points = np.round(geometry.embedded(gram, plan.seed), 3).tolist()
        found[name] = {"examples": points[:n], "centroids": points[n:]}
    words = [] if plan.task.regression else list(plan.task.labels)
    return found | {"labels": plan.sample.labels.tolist(), "words": words}


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """Without NaN, which JSON has not."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(part) for key, part in value.items()}
        if isinstance(value, list):
            return [clean(part) for part in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    made: dict[str, Any] = json.loads(json.dumps(clean(found)))
    return made
