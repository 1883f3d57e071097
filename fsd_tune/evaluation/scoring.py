"""Score a finished model on any split, with its own labels, maximum length and precision."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune.data import splits
from fsd_tune.data.batching import TokenizedSplit, tokenize
from fsd_tune.data.splits import Split, Task
from fsd_tune.device import resolve_precision, select_device
from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.models.inference import predict
from fsd_tune.models.loading import checked_tokenizer, label_order, load_config, load_finished, read_model_info
from fsd_tune.models.probe import usable_precision
from fsd_tune.profiling.side_by_side import compare_models
from fsd_tune.progress import Display
from fsd_tune.storage.model_record import ModelRecord

# Maximum length in tokens of a model that records none and accepts longer examples.
_DEFAULT_LENGTH = 128


def evaluate(
    student: str | Path,
    task: splits.TaskLike,
    *,
    teacher: str | Path | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    precision: str | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """Score a student, or a teacher, on the dev splits of a task.

    Example:
        >>> import fsd_tune as fsd
        >>> fsd.evaluate("runs/rte/best", "rte", data="glue")  # doctest: +SKIP
        {'task': 'rte', 'metric': 'accuracy', 'precision': 'float32',
         'splits': {'dev': {'accuracy': 0.6534}}, 'examples': {'dev': 277}}

    Args:
        student: folder or hub id of the model.
        task: id of a GLUE task, or the YAML file of your own.
        teacher: folder or hub id of its teacher, to compare both in score, size and speed; None for the student alone.
        data: folder that holds `SST-2/`, `RTE/` and so on; None loads GLUE from the hub.
        device: auto, cpu or cuda.
        precision: auto, float32 or bf16; None for the one that the model's folder records, else float32. The scores in
            the folder were computed in the recorded one.
        display: shows progress; None shows nothing.

    Returns:
        {"task": id, "metric": the task's main metric, "precision", "splits": {split: {metric: value}}, "examples":
        {split: number of examples}}. With `teacher` also "side_by_side": `compare_models`'s document of "student" and
        "teacher", with "scores": {name: {metric: value}} on the first of the dev splits.

    Raises:
        InputError: model, data and their labels do not fit together, or logits are not finite.
    """
    display = display or Display(quiet=True)
    problems = ProblemCollector()
    resolved: Task | None = None
    with problems.collect():
        resolved = splits.get_task(task)
        dev_names = [name for name in resolved.splits if name.startswith("dev")]
        dev_splits = splits.load_splits(resolved, dev_names, None if data is None else Path(data))
    with problems.collect():
        checked = check_model(str(student), resolved, device, precision)
    checked_teacher: CheckedModel | None = None
    if teacher is not None:
        with problems.collect():
            checked_teacher = check_model(str(teacher), resolved, device, precision, "--teacher")
    problems.raise_any()
    assert resolved is not None and checked is not None
    for note in checked.notes:
        display.line(f"note: {note}")
    scorer = Scorer(checked)
    scores: dict[str, dict[str, float]] = {}
    tokenized: dict[str, TokenizedSplit] = {}
    for name, split in dev_splits.items():
        logits, tokenized[name] = scorer.logits(split, partial(display.stage, name, total=len(split)))
        scores[name] = splits.compute_metrics(resolved, logits, tokenized[name].labels)
    document = {
        "task": resolved.id,
        "metric": resolved.metric,
        "precision": checked.precision,
        "splits": scores,
        "examples": {name: len(tokens) for name, tokens in tokenized.items()},
    }
    if checked_teacher is not None:
        first = next(iter(dev_splits))
        progress = partial(display.stage, f"{first}, teacher", total=len(dev_splits[first]))
        logits, tokens = Scorer(checked_teacher).logits(dev_splits[first], progress)
        display.stage("size and speed", 0, 1)
        document["side_by_side"] = _side_by_side(checked, checked_teacher, tokenized[first]) | {
            "scores": {
                "student": scores[first],
                "teacher": splits.compute_metrics(resolved, logits, tokens.labels),
            }
        }
    display.close()
    return document


def _side_by_side(student: "CheckedModel", teacher: "CheckedModel", tokens: TokenizedSplit) -> dict[str, Any]:
    """Return size and speed of both models at the median length of a split."""
    models = {
        name: (load_config(model.path), model.path) for name, model in (("student", student), ("teacher", teacher))
    }
    return compare_models(models, int(np.median(tokens.lengths)), student.device.type)


@dataclass(frozen=True)
class CheckedModel:
    """A model whose configuration fits a task; its weights have not been read.

    Attributes:
        path: folder or hub id.
        task: the task.
        tokenizer: the model's own.
        order: for each label of the task, the index of the model's logit.
        record: the content of `fsd_tune.json` in its folder; empty for models from elsewhere.
        max_length: largest number of tokens of an example: the recorded one, else 128 or the model's limit.
        precision: float32 or bf16: the requested one, else the recorded one, else float32.
        device: the device that the model will run on.
        notes: sentences for the user, such as that bf16 is not possible.
    """

    path: str
    task: Task
    tokenizer: Any
    order: tuple[int, ...]
    record: ModelRecord
    max_length: int
    precision: str
    device: torch.device
    notes: tuple[str, ...] = ()


def check_model(
    path: str, task: Task | None, device: str, precision: str | None = None, flag: str = "--student"
) -> CheckedModel | None:
    """Read a model's configuration, record and tokenizer, and check that it fits a task.

    Args:
        path: folder or hub id of the student.
        task: the task whose labels the model must have; None if it is not known.
        device: auto, cpu or cuda.
        precision: auto, float32 or bf16; None for the one that the folder records.
        flag: the flag that errors name.

    Returns:
        The model with the settings to score it with; None without a task.

    Raises:
        InputError: `path` is not a model, its tokenizer is damaged, or its labels are not the task's.
    """
    info = read_model_info(path, flag)
    if task is None:
        return None
    order = label_order(info, task, flag)
    tokenizer = checked_tokenizer(path, flag)
    torch_device = select_device(device)
    record = ModelRecord.read(path)
    if precision is None:
        precision = "bf16" if record.precision == "bf16" else "float32"
    length = record.max_length
    if length is None or not 0 < length <= (info.positions or length):
        length = min(info.positions or _DEFAULT_LENGTH, _DEFAULT_LENGTH)
    precision, notes = usable_precision(resolve_precision(precision, torch_device), [path])
    return CheckedModel(path, task, tokenizer, order, record, length, precision, torch_device, notes)


class Scorer:
    """A checked model with its weights, which computes logits."""

    def __init__(self, checked: CheckedModel) -> None:
        self._checked = checked
        self._model = load_finished(checked.path).to(checked.device)

    def logits(
        self, split: Split, progress: Callable[[int], None] = lambda done: None
    ) -> tuple[NDArray[np.float32], TokenizedSplit]:
        """Return the logits of a split's examples, and the tokenised split.

        Args:
            split: the examples.
            progress: called with the number of examples done.

        Returns:
            Logits float32 [N, C] in the order of the task's labels, [N, 1] for regression; and the tokenised split.

        Raises:
            InputError: some logits are not finite.
        """
        checked = self._checked
        tokens = tokenize(split, checked.tokenizer, checked.max_length)
        logits = predict(self._model, tokens, checked.precision, checked.device, progress)[:, list(checked.order)]
        nonfinite = int((~np.isfinite(logits).all(-1)).sum())
        if nonfinite:
            raise InputError(
                f"--student: {checked.path} gives logits that are not finite for {nonfinite} of {len(logits)} examples "
                f"of {split.source} in {checked.precision}; it has diverged in training."
            )
        return logits, tokens
