"""The model card of an exported student: `README.md` with the hub's front matter, from what its folder records.

No path of the machine and no user's name goes into it: a teacher is called by the last part of its name.
"""

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from fsd_tune.data.splits import Task
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS

# Rows of GLUE's dev splits (`nyu-mll/glue`, MNLI's matched one): a folder in GLUE's layout may hold anything else.
_DEV_ROWS = {
    "cola": 1043, "sst2": 872, "mrpc": 408, "qqp": 40430, "stsb": 1500,
    "mnli": 9815, "qnli": 5463, "rte": 277, "wnli": 71,
}  # fmt: skip
_HUB_METRICS = {"pearson": "pearsonr", "spearman": "spearmanr"}
_PAPER = (
    "Feature structure distillation: Jung, Kim, Na, Kim, *Feature structure distillation with Centered Kernel "
    "Alignment in BERT transferring*, Expert Systems with Applications, 2023 ([arXiv:2204.08922](https://arxiv.org/abs/2204.08922))."
)


def card(name: str, task: Task, record: Mapping[str, Any], confirmation: Mapping[str, Any], layers: int) -> str:
    """The card's text.

    Args:
        name: of the model.
        task: what it was trained on.
        record: `fsd_tune.json`; what it lacks is left out.
        confirmation: `confirm/summary.json` of the search whose winner this is; empty without one.
        layers: of the student.
    """
    metrics, examples = scores(task, record)
    data = ModelCardData(
        language="en",
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["knowledge-distillation", "feature-structure-distillation", *([] if task.tables else ["glue"]), task.id],
        datasets=["nyu-mll/glue"] if _official(task, examples) else None,
        metrics=[_HUB_METRICS.get(metric, metric) for metric in task.metrics],
        model_name=name,
        eval_results=[_result(task, metric, value, examples) for metric, value in metrics.items()] or None,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        _summary(task, record, layers),
        _use(task, record),
        _scores(task, record, metrics, examples),
        _confirmed(task, confirmation),
        _training(record, layers),
        _PAPER,
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def scores(task: Task, record: Mapping[str, Any]) -> tuple[dict[str, float], int | None]:
    """This model's metrics on dev, and on how many examples; none where it was never scored there."""
    dev = record.get("dev")
    if isinstance(dev, dict):
        found, examples = dev.get("metrics", {}), dev.get("examples")
    elif record.get("select_on") in (None, "dev"):
        reports = record.get("reports") or [{}]
        found, examples = record.get("last_report") or reports[-1], record.get("examples")
    else:
        return {}, None
    return {metric: found[metric] for metric in task.metrics if _number(found.get(metric))}, examples


def plain_name(name: object) -> str:
    """The last part of a folder's path or a hub id."""
    return PurePath(str(name)).name


def _official(task: Task, examples: int | None) -> bool:
    return examples is not None and _DEV_ROWS.get(task.id) == examples


def _result(task: Task, metric: str, value: float, examples: int | None) -> EvalResult:
    official = _official(task, examples)
    layout = f"GLUE {task.folder}" if official else f"own data in the layout of GLUE {task.folder}"
    return EvalResult(
        task_type="text-classification",
        task_name="Text Classification",
        dataset_type="nyu-mll/glue" if official else "custom",
        dataset_name=task.id if task.tables else layout,
        dataset_config=task.id,
        dataset_split="validation_matched" if task.id == "mnli" else "validation",
        metric_type=_HUB_METRICS.get(metric, metric),
        metric_name=metric.replace("_", " "),
        metric_value=round(float(value), 5),
    )


def _summary(task: Task, record: Mapping[str, Any], layers: int) -> str:
    teacher = record.get("teacher")
    made = f"distilled from the teacher `{plain_name(teacher['name'])}` " if isinstance(teacher, dict) else ""
    output = (
        f"It gives a score{'' if task.tables else ', the higher the more alike the two sentences (0 to 5)'}."
        if task.regression
        else f"Its labels are {', '.join(f'`{label}`' for label in task.labels)}."
    )
    by = "by fsd_tune" if record.get("config") else "of which no making is recorded"
    name = f"the task {task.id}" if task.tables else f"{task.folder} (GLUE)"
    return f"A student of {layers} layers for {name}, {made}{by}. {output}"


def _use(task: Task, record: Mapping[str, Any]) -> str:
    pair = len(task.columns) == 2
    text = '{"text": "First text.", "text_pair": "Second text."}' if pair else '"A sentence."'
    length = record.get("max_length")
    cut = f", truncation=True, max_length={length}" if isinstance(length, int) else ""
    trained = f" It was trained on at most {length} tokens." if cut else ""
    return (
        "## How to use\n\n```python\nfrom transformers import pipeline\n\n"
        f'classify = pipeline("text-classification", model="THIS_FOLDER"{cut})\nclassify({text})\n```\n\n'
        f"It is a plain `transformers` model: no code of fsd_tune is needed.{trained}"
    )


def _scores(task: Task, record: Mapping[str, Any], metrics: Mapping[str, float], examples: int | None) -> str:
    if not metrics:
        return "## Scores\n\nNone are recorded on dev."
    on = "dev" if examples is None else f"{examples:,} dev examples"
    lines = [f"| metric | this model, on {on} |", "| --- | --- |"]
    lines += [f"| {metric.replace('_', ' ')} | {value:.4f} |" for metric, value in metrics.items()]
    notes = []
    teacher, score = record.get("teacher"), record.get("score")
    if isinstance(record.get("dev"), dict):
        held = f" on {record['examples']:,} examples" if isinstance(record.get("examples"), int) else ""
        notes.append(f"Dev selected nothing: trials were judged on a part of the training split{held}.")
    elif "trial" in record:
        count = f"the best of {record['trials']} trials" if record.get("trials") else "a search's best trial"
        notes.append(f"This is {count}, chosen on the examples that score it: expect slightly less on new ones.")
    if _number(score):
        judged = "its last evaluation" if record.get("judge_by") == "last" else "the mean of its last three evaluations"
        notes.append(f"It was judged by {judged}: {task.metric.replace('_', ' ')} {score:.4f}.")
    if isinstance(teacher, dict) and _number(teacher.get("score")):
        where = "" if record.get("select_on") in (None, "dev") else ", on what selected"
        notes.append(f"The teacher's {task.metric.replace('_', ' ')}{where}: {teacher['score']:.4f}.")
    if examples is not None and not task.tables and not _official(task, examples):
        notes.append(
            f"GLUE's own dev split of {task.folder} has {_DEV_ROWS.get(task.id, 0):,} examples, so these are scores on "
            "other data."
        )
    return "## Scores\n\n" + "\n".join(lines) + ("\n\n" + " ".join(notes) if notes else "")


def _confirmed(task: Task, confirmation: Mapping[str, Any]) -> str:
    """What the configuration scores on seeds that chose nothing, beside its baselines."""
    rows = [one for one in confirmation.get("configurations", []) if _number(one.get("fresh", {}).get("mean"))]
    if not rows:
        return ""
    seeds = ", ".join(map(str, confirmation["fresh_seeds"]))
    lines = [f"| configuration | {task.metric.replace('_', ' ')}, mean ± standard deviation |", "| --- | --- |"]
    for one in rows:
        deviation = one["fresh"].get("deviation")
        spread = f" ± {deviation:.4f}" if _number(deviation) else ""
        label = "this configuration" if one["role"] == "winner" else one["label"]
        lines.append(f"| {label} | {one['fresh']['mean']:.4f}{spread} |")
    verdicts = [f"{one['verdict']} ({one['baseline']})" for one in confirmation.get("differences", [])]
    return (
        f"### Confirmed on fresh seeds\n\nTrained anew on the seeds {seeds}, which chose nothing, and scored on "
        f"{confirmation['dev_examples']:,} examples:\n\n" + "\n".join(lines)
    ) + (f"\n\nAgainst the baselines: {'; '.join(verdicts)}." if verdicts else "")


def _training(record: Mapping[str, Any], layers: int) -> str:
    config = dict(record.get("config") or {})
    if not config:
        return ""
    method = config.pop("method", None)
    facts = [f"* Method: `{method}`, {METHODS[method].formula}." if method in METHODS else f"* Method: `{method}`."]
    student = record.get("student")
    start = f", started by `{student['start']}`" if isinstance(student, dict) and student.get("start") else ""
    facts.append(f"* Student: {layers} layers{start}.")
    if record.get("train_examples"):
        facts.append(f"* Training examples: {record['train_examples']:,}.")
    facts.append(f"* Seed: {record.get('seed')}. Precision: {record.get('precision')}.")
    versions = record.get("versions")
    if isinstance(versions, dict):
        facts.append("* Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    table = ["| hyperparameter | value | what it is |", "| --- | --- | --- |"]
    for key, value in config.items():
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        table.append(f"| {key} | {shown} | {HYPERPARAMETERS[key].doc if key in HYPERPARAMETERS else ''} |")
    return "## Training\n\n" + "\n".join(facts) + "\n\n" + "\n".join(table)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
