"""A finished model as it is used: on any split, with its own labels, maximum length and precision."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune.data import splits as glue
from fsd_tune.data.batching import TokenizedSplit, tokenize
from fsd_tune.data.splits import Split, Task
from fsd_tune.device import resolve_precision, select_device
from fsd_tune.errors import InputError
from fsd_tune.models.folder import record_of
from fsd_tune.models.inference import predict
from fsd_tune.models.loading import checked_tokenizer, label_order, load_finished, read_model_info
from fsd_tune.progress import Display


def evaluate(
    student: str,
    task_name: glue.TaskLike,
    data: Path | None,
    device: str,
    precision: str | None,
    display: Display | None = None,
) -> dict[str, Any]:
    """Metrics of a student (or teacher) on the task's dev splits.

    Without a `precision` in the one that its folder records, for which its scores were reported; else float32.

    Returns:
        {"task", "metric", "precision", "splits": {split: {metric: value}}, "examples": {split: N}}

    Raises:
        InputError: the folder, the data or their labels do not fit; logits that are not finite.
    """
    display = display or Display(quiet=True)
    problems: list[str] = []
    hint = ""
    task = checked = splits = None
    try:
        task = glue.get_task(task_name)
        splits = glue.load(task, [name for name in task.splits if name.startswith("dev")], data)
    except InputError as error:
        problems += error.problems
        hint = error.hint
    try:
        checked = check(student, task, device, precision)
    except InputError as error:
        problems += error.problems
    if problems or task is None or checked is None or splits is None:
        raise InputError(problems, hint)
    scorer = Scorer(checked)
    scores, examples = {}, {}
    for name, split in splits.items():
        logits, tokens = scorer.logits(split, partial(display.stage, name, total=len(split)))
        scores[name], examples[name] = glue.evaluate(task, logits, tokens.labels), len(tokens)
    display.close()
    return {
        "task": task.id,
        "metric": task.metric,
        "precision": checked.precision,
        "splits": scores,
        "examples": examples,
    }


# Of a model that records none and could take more.
_DEFAULT_LENGTH = 128


@dataclass(frozen=True)
class Checked:
    """A model whose configuration fits a task; no weight has been read.

    Attributes:
        path: folder or hub id.
        task: the task.
        tokenizer: its own.
        order: for each label of the task the index of the model's logit for it.
        made: what `fsd_tune.json` in its folder says of its making; empty for models from elsewhere.
        max_length: tokens of an example: what was recorded, else 128 or what the model takes.
        precision: float32 or bf16: what was asked for, else what was recorded, else float32.
        device: where it will compute.
    """

    path: str
    task: Task
    tokenizer: Any
    order: tuple[int, ...]
    made: dict[str, Any]
    max_length: int
    precision: str
    device: torch.device


def check(path: str, task: Task | None, device: str, precision: str | None = None) -> Checked | None:
    """Read a model's configuration, record and tokenizer.

    Args:
        path: `--student`, a folder or hub id.
        task: whose labels it must have; None where that is not known, and then so is the result.
        device: auto, cpu or cuda.
        precision: auto, float32 or bf16; None for the one that the folder records, for which its scores were reported.

    Raises:
        InputError: no model is there, its tokenizer is damaged, or its labels are not the task's.
    """
    info = read_model_info(path, "--student")
    if task is None:
        return None
    order = label_order(info, task, "--student")
    tokenizer = checked_tokenizer(path, "--student")
    where = select_device(device)
    made = record_of(path)
    if precision is None:
        precision = "bf16" if made.get("precision") == "bf16" else "float32"
    length = made.get("max_length")
    if not isinstance(length, int) or not 0 < length <= (info.positions or length):
        length = min(info.positions or _DEFAULT_LENGTH, _DEFAULT_LENGTH)
    return Checked(path, task, tokenizer, order, made, length, resolve_precision(precision, where), where)


class Scorer:
    """A checked model with its weights and tokenizer."""

    def __init__(self, checked: Checked) -> None:
        self._checked = checked
        self._model = load_finished(checked.path).to(checked.device)

    def logits(
        self, split: Split, progress: Callable[[int], None] = lambda done: None
    ) -> tuple[NDArray[np.float32], TokenizedSplit]:
        """Logits float32 [N, C] in the order of the task's labels, [N, 1] for regression; and the split's tokens.

        Raises:
            InputError: some are not finite.
        """
        checked = self._checked
        tokens = tokenize(split, checked.tokenizer, checked.max_length)
        logits = predict(self._model, tokens, checked.precision, checked.device, progress)[:, list(checked.order)]
        wrong = int((~np.isfinite(logits).all(-1)).sum())
        if wrong:
            raise InputError(
                f"--student: {checked.path} gives logits that are not finite for {wrong} of {len(logits)} examples of "
                f"{split.source} in {checked.precision}; it has diverged in training."
            )
        return logits, tokens
