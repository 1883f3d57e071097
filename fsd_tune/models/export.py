"""`fsd-tune export`: a student as a folder to publish, with label words, a model card, and on demand an ONNX file."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch

from fsd_tune.data import splits
from fsd_tune.data.splits import Task
from fsd_tune.errors import InputError
from fsd_tune.models import folder, model_card
from fsd_tune.models import onnx as onnx_file
from fsd_tune.models.folder import made_in_search, record_of
from fsd_tune.models.loading import (
    ModelInfo,
    label_config,
    label_order,
    load_tokenizer,
    quiet_transformers,
    read_model_info,
)
from fsd_tune.progress import Display
from fsd_tune.storage import artifacts
from fsd_tune.storage.artifacts import write_json, write_text


def run(
    student: str, output: Path, *, task: splits.TaskLike | None, onnx: bool, overwrite: bool, display: Display
) -> dict[str, Any]:
    """Check a student and write its folder, beside and renamed.

    Args:
        student: folder or hub id.
        output: new, or an exported student with `overwrite`.
        task: for a student that records none of GLUE's: an id, or the file of one's own.
        onnx: also write `model.onnx`.
        overwrite: replace what is there.
        display: where progress goes.

    Returns:
        {"task", "student", "files": names, "metrics": on dev, "examples", "labels", "onnx_difference": None or float}

    Raises:
        InputError: with every problem of student, task and output.
        FsdTuneError: the ONNX file computes something else.
    """
    display.stage("checking the student", 0, 1)
    quiet_transformers()
    problems = folder.check_output(output, overwrite)
    if onnx and (lacking := onnx_file.lacking()):
        problems.append(f"--onnx: needs {' and '.join(lacking)}, not installed here: pip install 'fsd_tune[onnx]'.")
    found, info, record = None, None, record_of(student)
    try:
        info = _student(student, record)
    except InputError as error:
        problems += error.problems
    try:
        found = _task(student, record, task)
    except InputError as error:
        problems += error.problems
    own_order = False
    try:
        if info is not None and found is not None:
            own_order = label_order(info, found, "--student") != tuple(range(found.num_labels))
    except InputError as error:
        problems += error.problems
    if problems or found is None or info is None:
        raise InputError(problems)
    model, tokenizer = _load(student, found, own_order), load_tokenizer(student)
    record = _without_paths(record | {"task": found.id})
    confirmation = _confirmation(Path(student), record)
    metrics, examples = model_card.scores(found, record)
    made: dict[str, Any] = {"task": found.id, "student": student, "metrics": metrics, "examples": examples}
    made |= {"labels": list(model.config.id2label.values()), "confirmed": bool(confirmation), "onnx_difference": None}
    with artifacts.atomic_folder(output) as temporary:
        display.stage("writing", 0, 1)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(temporary / artifacts.MODEL_RECORD, record)
        text = model_card.card(output.absolute().name, found, record, confirmation, info.layers)
        write_text(temporary / "README.md", text)
        if onnx:
            display.stage("ONNX: tracing the model, which takes a while", 0, 1)
            made["onnx_difference"] = onnx_file.write(temporary / "model.onnx", model, tokenizer)
        made["files"] = sorted(path.name for path in temporary.iterdir())
    display.close()
    return made


def _student(student: str, record: Mapping[str, Any]) -> ModelInfo:
    """Describes it.

    Raises:
        InputError: it is no student.
    """
    from transformers import AutoConfig

    folder = Path(student)
    if (folder / "summary.json").is_file() and (folder / "settings.yaml").is_file():
        raise InputError(f"--student: {student} is a search's folder; give its student, {folder / 'best'}.")
    info = read_model_info(student, "--student")
    if "base" in record:
        raise InputError(f"--student: {student} is a teacher, but must be a student that `distill` or `search` made.")
    kinds = AutoConfig.from_pretrained(student).architectures or []
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise InputError(
            f"--student: {student} is no classifier (its config.json says {', '.join(kinds) or 'nothing'}), but must "
            "be a student that `distill` or `search` made."
        )
    return info


def _task(student: str, record: Mapping[str, Any], given: splits.TaskLike | None) -> Task:
    recorded = record.get("task")
    if given is None and not isinstance(recorded, str):
        raise InputError(f"--task: is missing: {student} records no task, so give the one that it was trained on.")
    if given is None and recorded not in splits.TASKS:
        raise InputError(f"--task-file: is missing: {student} was trained on {recorded}, so give that task's YAML.")
    found = splits.get_task(given or str(recorded))
    if isinstance(recorded, str) and found.id != recorded:
        raise InputError(f"--task: found {found.id}, but {student} records {recorded}; leave --task out.")
    return found


def _load(student: str, task: Task, own_order: bool) -> Any:
    """The classifier with the task's label words; one whose own words stand in another order keeps them.

    Raises:
        InputError: weights are missing.
    """
    from transformers import AutoModelForSequenceClassification

    words = {} if own_order else label_config(task)
    if task.regression:
        words |= {"id2label": {0: "score"}, "label2id": {"score": 0}}
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        student, **words, dtype=torch.float32, output_loading_info=True
    )
    if loading["missing_keys"]:
        first = sorted(loading["missing_keys"])[0]
        raise InputError(f"--student: {student} lacks weights ({first} and {len(loading['missing_keys']) - 1} more).")
    return model.eval()


def _confirmation(student: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """The confirmation of the search that the student lies in, where its winner is this student's configuration."""
    search = made_in_search(student)
    if search is None:
        return {}
    try:
        made = json.loads((search / "confirm" / "summary.json").read_text(encoding="utf-8"))
        same: bool = made["winner"]["config"] == record["config"] or made["winner"]["trial"] == record["trial"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return made if same else {}


def _without_paths(value: Any) -> Any:
    """The record for others to read: absolute paths of this machine, and its teacher's, by their last part."""
    if isinstance(value, dict):
        made = {key: _without_paths(part) for key, part in value.items()}
        if isinstance(made.get("teacher"), dict) and "name" in made["teacher"]:
            made["teacher"]["name"] = model_card.plain_name(made["teacher"]["name"])
        return made
    if isinstance(value, list):
        return [_without_paths(part) for part in value]
    absolute = isinstance(value, str) and (PurePath(value).is_absolute() or value.startswith("~"))
    return PurePath(value).name if absolute else value
