"""The model card of an exported student: `README.md` with the hub's metadata, from what its folder records.

The text is in `model_card_template.md`. A card holds no path of the machine: a teacher is named by its hub id or by the
last part of its folder.
"""

import math
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fsd_tune.data.splits import Task
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS
from fsd_tune.settings.shapes import SHAPE

# Rows of GLUE's dev splits (`nyu-mll/glue`, MNLI's matched one): a folder in GLUE's layout may hold anything else.
_DEV_ROWS = {
    "cola": 1043, "sst2": 872, "mrpc": 408, "qqp": 40430, "stsb": 1500,
    "mnli": 9815, "qnli": 5463, "rte": 277, "wnli": 71,
}  # fmt: skip
_HUB_METRICS = {"pearson": "pearsonr", "spearman": "spearmanr"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def card(
    name: str,
    task: Task,
    record: Mapping[str, Any],
    confirmation: Mapping[str, Any],
    layers: int,
    served: Mapping[str, Any] | None = None,
) -> str:
    """Return the text of a model card.

    Args:
        name: the model's name.
        task: the task that it was trained on.
        record: `fsd_tune.json` of its folder; the card leaves out what is not recorded.
        confirmation: `confirm/summary.json` of the search whose winner this is; empty without one.
        layers: number of the student's layers.
        served: `size_and_speed` of `served_files.write_served_files`; None to leave size and speed out.
    """
    metrics, examples = scores(task, record)
    official = _official(task, examples)
    data = ModelCardData(
        language="en",
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["knowledge-distillation", "feature-structure-distillation", *([] if task.tables else ["glue"]), task.id],
        datasets=["nyu-mll/glue"] if official else None,
        metrics=[_HUB_METRICS.get(metric, metric) for metric in task.metrics],
        model_name=name,
        eval_results=[_result(task, metric, value, official) for metric, value in metrics.items()] or None,
    )
    teacher = record.get("teacher")
    # The card's line about the student has its shape.
    config = {name: value for name, value in (record.get("config") or {}).items() if name not in SHAPE}
    method = config.pop("method", None)
    length = record.get("max_length")
    configurations = confirmation.get("configurations", [])
    template = resources.files("fsd_tune.deployment").joinpath("model_card_template.md").read_text(encoding="utf-8")
    rendered = ModelCard.from_template(
        data,
        template_str=template,
        name=name,
        task=task,
        layers=layers,
        record=record,
        teacher=plain_name(teacher["name"]) if isinstance(teacher, dict) else None,
        max_length=length if isinstance(length, int) else None,
        scores={_words(metric): value for metric, value in metrics.items()},
        metric=_words(task.metric),
        examples=examples,
        notes=_notes(task, record, examples),
        confirmation=confirmation,
        confirmed=[entry for entry in configurations if _is_number(entry.get("fresh", {}).get("mean"))],
        config=config,
        method=method,
        formula=METHODS[method].formula if method in METHODS else None,
        hyperparameters=HYPERPARAMETERS,
        is_number=_is_number,
        served=served,
    )
    return str(rendered) + "\n"


def scores(task: Task, record: Mapping[str, Any]) -> tuple[dict[str, float], int | None]:
    """Return the model's recorded metrics on dev.

    Args:
        task: the task.
        record: `fsd_tune.json` of the model's folder.

    Returns:
        Metric name to value, and the number of examples if recorded; empty and None if it was never scored on dev.
    """
    dev = record.get("dev")
    if isinstance(dev, dict):
        values, examples = dev.get("metrics", {}), dev.get("examples")
    elif record.get("select_on") in (None, "dev"):
        reports = record.get("reports") or [{}]
        values, examples = record.get("last_report") or reports[-1], record.get("examples")
    else:
        return {}, None
    return {metric: values[metric] for metric in task.metrics if _is_number(values.get(metric))}, examples


def plain_name(name: object) -> str:
    """Return a hub id unchanged, or the last part of a folder's path.

    Args:
        name: a hub id, or a folder's path.
    """
    return str(name) if _HUB_ID.fullmatch(str(name)) else PurePath(str(name)).name


def _official(task: Task, examples: int | None) -> bool:
    return examples is not None and _DEV_ROWS.get(task.id) == examples


def _result(task: Task, metric: str, value: float, official: bool) -> EvalResult:
    layout = f"GLUE {task.folder}" if official else f"own data in the layout of GLUE {task.folder}"
    return EvalResult(
        task_type="text-classification",
        task_name="Text Classification",
        dataset_type="nyu-mll/glue" if official else "custom",
        dataset_name=task.id if task.tables else layout,
        dataset_config=task.id,
        dataset_split="validation_matched" if task.id == "mnli" else "validation",
        metric_type=_HUB_METRICS.get(metric, metric),
        metric_name=_words(metric),
        metric_value=round(float(value), 5),
    )


def _notes(task: Task, record: Mapping[str, Any], examples: int | None) -> list[str]:
    """Return sentences on how the scores came about: how the model was selected, and its teacher's score."""
    notes = []
    teacher, score = record.get("teacher"), record.get("score")
    if isinstance(record.get("dev"), dict):
        rows = f" on {record['examples']:,} examples" if isinstance(record.get("examples"), int) else ""
        notes.append(f"Dev was not used for selection: trials were judged on a part of the training split{rows}.")
    elif "trial" in record:
        count = f"the best of {record['trials']} trials" if record.get("trials") else "a search's best trial"
        notes.append(f"This is {count}, selected on the examples that score it: expect slightly less on new ones.")
    if _is_number(score):
        judged = "its last evaluation" if record.get("judge_by") == "last" else "the mean of its last three evaluations"
        notes.append(f"It was judged by {judged}: {_words(task.metric)} {score:.4f}.")
    if isinstance(teacher, dict) and _is_number(teacher.get("score")):
        judged_on = "" if record.get("select_on") in (None, "dev") else ", on the examples that trials were judged on"
        notes.append(f"The teacher's {_words(task.metric)}{judged_on}: {teacher['score']:.4f}.")
    if examples is not None and not task.tables and not _official(task, examples):
        notes.append(
            f"GLUE's own dev split of {task.folder} has {_DEV_ROWS.get(task.id, 0):,} examples, so these are scores on "
            "other data."
        )
    return notes


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
