"""`fsd-tune export`: write a student as a folder to publish, with label words, a model card and optionally ONNX."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from fsd_tune.data import splits
from fsd_tune.data.splits import Task
from fsd_tune.deployment import model_card
from fsd_tune.deployment.int8 import MAX_DROP
from fsd_tune.deployment.served_files import Int8Inputs, int8_inputs, write_served_files
from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.evaluation.scoring import check_model
from fsd_tune.models import folder
from fsd_tune.models import onnx as onnx_file
from fsd_tune.models.folder import made_in_search
from fsd_tune.models.loader import load_model, require_weights
from fsd_tune.models.loading import (
    ModelInfo,
    label_config,
    label_order,
    load_config,
    load_tokenizer,
    read_model_info,
    transformers_quiet,
)
from fsd_tune.progress import Display
from fsd_tune.storage import artifacts, json_file, layout
from fsd_tune.storage.artifacts import write_json, write_text
from fsd_tune.storage.confirmation_file import confirmation_problems
from fsd_tune.storage.model_record import ModelRecord


@transformers_quiet()
def export_student(
    student: str,
    output: Path,
    *,
    task: splits.TaskLike | None,
    onnx: bool,
    overwrite: bool,
    display: Display,
    int8: bool = False,
    max_drop: float | None = None,
    data: Path | None = None,
    speed: bool = True,
) -> dict[str, Any]:
    """Check a student and write the folder to publish, whole or not at all.

    Args:
        student: folder or hub id.
        output: new, or an exported student with `overwrite`.
        task: the task of a student that records none of GLUE's: an id, or the YAML of a task of your own.
        onnx: also write `model.onnx`.
        overwrite: replace an exported student.
        display: shows progress.
        int8: also write `model_quantized.onnx`; needs `onnx` and the task's data.
        max_drop: points that the int8 file may lose on dev; None for 0.5.
        data: folder of the task's data, for int8; None for the hub, or the folder of the task's file.
        speed: measure the latency of each file for the model card.

    Returns:
        {"task", "student", "files": names, "metrics": on dev, "examples", "labels", "confirmed", "remark"} and the
        result of `served_files.write_served_files`.

    Raises:
        InputError: with every problem of student, task and output.
        FsdTuneError: the ONNX file computes other logits than the model, or no int8 file is within the bound.
    """
    display.stage("checking the student", 0, 1)
    problems = ProblemCollector(folder.check_output(output, overwrite, {"--student": student}))
    if onnx and (missing := onnx_file.lacking()):
        problems.add(f"--onnx: needs {' and '.join(missing)}, which are not installed: pip install 'fsd_tune[onnx]'.")
    info: ModelInfo | None = None
    student_task: Task | None = None
    own_order = False
    quantised: Int8Inputs | None = None
    if int8 and not onnx:
        problems.add("--int8: needs --onnx, because it quantises that file.")
    if max_drop is not None and not int8:
        problems.add("--max-drop: needs --int8, whose loss it bounds.")
    record = ModelRecord.read(student).as_json()
    with problems.collect():
        info = _check_student(student, record)
    with problems.collect():
        student_task = _student_task(student, record, task)
    if info is not None and student_task is not None:
        with problems.collect():
            own_order = label_order(info, student_task, "--student") != tuple(range(student_task.num_labels))
            quantised = (
                None
                if not int8
                else _int8_inputs(student, student_task, data, MAX_DROP if max_drop is None else max_drop)
            )
    problems.raise_any()
    assert info is not None and student_task is not None
    model, tokenizer = _load(student, student_task, own_order), load_tokenizer(student)
    record = _without_paths(record | {"task": student_task.id})
    confirmation, remark = _confirmation(Path(student), record)
    metrics, examples = model_card.scores(student_task, record)
    result: dict[str, Any] = {"task": student_task.id, "student": student, "metrics": metrics, "examples": examples}
    result |= {"labels": list(model.config.id2label.values()), "confirmed": bool(confirmation), "remark": remark}
    with artifacts.atomic_folder(output) as temporary:
        display.stage("writing", 0, 1)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(temporary / artifacts.MODEL_RECORD, record)
        result |= write_served_files(
            temporary, model, tokenizer, onnx=onnx, int8=quantised, speed=speed, display=display
        )
        served = result["size_and_speed"]
        text = model_card.card(output.absolute().name, student_task, record, confirmation, info.layers, served)
        write_text(temporary / "README.md", text)
        result["files"] = sorted(path.name for path in temporary.iterdir())
    display.close()
    return result


def _check_student(student: str, record: Mapping[str, Any]) -> ModelInfo:
    """Describe a student.

    Raises:
        InputError: it is not a student.
    """
    folder = Path(student)
    if (folder / layout.SUMMARY).is_file() and (folder / layout.SETTINGS).is_file():
        raise InputError(f"--student: {student} is a search's folder; give its student, {folder / 'best'}.")
    info = read_model_info(student, "--student")
    if "base" in record:
        raise InputError(f"--student: {student} is a teacher, but must be a student that `distill` or `search` made.")
    classes = load_config(student).architectures or []
    if not any(name.endswith("ForSequenceClassification") for name in classes):
        raise InputError(
            f"--student: {student} is no classifier (its config.json says {', '.join(classes) or 'nothing'}), but must "
            "be a student that `distill` or `search` made."
        )
    return info


def _int8_inputs(student: str, task: Task, data: Path | None, max_drop: float) -> Int8Inputs | None:
    """Return the inputs of int8, or None if the student's own problems are reported already."""
    checked = check_model(student, task, "cpu", "float32")
    return None if checked is None else int8_inputs(checked, task, data, max_drop)


def _student_task(student: str, record: Mapping[str, Any], task_option: splits.TaskLike | None) -> Task:
    recorded = record.get("task")
    if task_option is None and not isinstance(recorded, str):
        raise InputError(f"--task: is missing: {student} records no task, so give the one that it was trained on.")
    if task_option is None and recorded not in splits.TASKS:
        raise InputError(f"--task-file: is missing: {student} was trained on {recorded}, so give that task's YAML.")
    task = splits.get_task(task_option or str(recorded))
    if isinstance(recorded, str) and task.id != recorded:
        raise InputError(f"--task: found {task.id}, but {student} records {recorded}; leave --task out.")
    return task


def _load(student: str, task: Task, own_order: bool) -> Any:
    """Load the classifier with the task's label words, or with its own if their order differs.

    Raises:
        InputError: weights are missing.
    """
    words = {} if own_order else label_config(task)
    if task.regression:
        words |= {"id2label": {0: "score"}, "label2id": {"score": 0}}
    return require_weights(load_model(student, load_config(student, **words)), student).model


def _confirmation(student: Path, record: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the confirmation of the search that the student lies in, if its winner is this student's configuration.

    Returns:
        The confirmation's summary, empty without one; and why there is none although its file exists, else empty.
    """
    search = made_in_search(student)
    file = search / layout.CONFIRM / layout.SUMMARY if search is not None else None
    if file is None or not file.exists():
        return {}, ""
    again = "the model card is written without the scores on fresh seeds; run `fsd-tune confirm` again to have them"
    try:
        summary = json_file.read_mapping(file)
    except (OSError, ValueError) as error:
        return {}, f"{file}: cannot be read ({error}); {again}"
    if problems := confirmation_problems(summary):
        return {}, f"{file}: {problems[0]}; {again}"
    winner = summary["winner"]
    if winner["config"] == record.get("config") or winner["trial"] == record.get("trial"):
        return summary, ""
    return {}, f"{file}: confirms {winner['label']}, not this student; the model card is written without its scores"


def _without_paths(value: Any) -> Any:
    """Return a record with each absolute path replaced by its last part, because others will read it."""
    if isinstance(value, dict):
        return {key: _without_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_paths(part) for part in value]
    absolute = isinstance(value, str) and (PurePath(value).is_absolute() or value.startswith("~"))
    return PurePath(value).name if absolute else value
