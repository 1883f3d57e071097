"""Teachers: what a folder holds, whether it fits the task; loading classifiers and tokenizers."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune.data.splits import Task
from fsd_tune.errors import InputError
from fsd_tune.models.model_config import positions_of, read_config
from fsd_tune.models.model_weights import check_classifier, check_encoder
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.artifacts import MODEL_RECORD


def quiet_transformers() -> None:
    """No progress bars and no load reports: a missing classifier is what a pretrained model is expected to have."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@dataclass(frozen=True)
class ModelInfo:
    """What a teacher's configuration says, before any weight is read.

    Attributes:
        path: folder, absolute, for workers elsewhere read it too; or hub id.
        layers: number of layers Lt.
        hidden_size: H.
        labels: its label words in index order.
        positions: the longest input that it takes, or None when its configuration does not say.
        base: the pretrained model that it was fine-tuned from, or None when not recorded.
    """

    path: str
    layers: int
    hidden_size: int
    labels: tuple[str, ...]
    positions: int | None
    base: str | None


def read_model_info(path: str, place: str = "--teacher") -> ModelInfo:
    """Read a teacher's configuration.

    Args:
        path: a folder, or a hub id.
        place: what an error names, usually the flag.

    Raises:
        InputError: no such folder, no configuration, no tokenizer, no weights, or those of something else.
    """
    config = read_config(path, place)
    check_encoder(path, config, place)
    check_classifier(path, config, place)
    labels = tuple(str(config.id2label[index]) for index in sorted(config.id2label))
    layers, hidden = config.num_hidden_layers, config.hidden_size
    folder = Path(path).expanduser()
    name = str(folder.absolute()) if folder.is_dir() else path
    return ModelInfo(name, layers, hidden, labels, positions_of(config), _base(folder))


def describe_model(path: str, place: str) -> int | None:
    """Check a pretrained model's folder or hub id as `describe` does; the longest input that it takes, if it says."""
    config = read_config(path, place)
    check_encoder(path, config, place)
    return positions_of(config)


def _base(folder: Path) -> str | None:
    try:
        record = json.loads((folder / MODEL_RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    base = record.get("base") if isinstance(record, dict) else None
    return str(base) if base else None


def label_order(info: ModelInfo, task: Task, place: str = "--teacher") -> tuple[int, ...]:
    """For each label of the task the index of the teacher's logit for it.

    A teacher's own label words decide; LABEL_0.. and digits stand for the task's order.

    Raises:
        InputError: another number of labels, or other words.
    """
    if len(info.labels) != task.num_labels:
        raise InputError(
            f"{place}: {info.path} has {len(info.labels)} labels ({', '.join(info.labels)}), but {task.id} has "
            f"{task.num_labels}{' (' + ', '.join(task.labels) + ')' if task.labels else ' (regression)'}."
        )
    identity = tuple(range(task.num_labels))
    if task.regression or all(re.fullmatch(r"(LABEL_)?\d+", word) for word in info.labels):
        return identity
    own = {word.lower(): index for index, word in enumerate(info.labels)}
    if set(own) != {word.lower() for word in task.labels}:
        raise InputError(
            f"{place}: {info.path} has the labels {', '.join(info.labels)}, but {task.id} has "
            f"{', '.join(task.labels)}; set id2label in its config.json."
        )
    return tuple(own[word.lower()] for word in task.labels)


def check_label_order(info: ModelInfo, task: Task, logits: NDArray[Any], labels: NDArray[Any]) -> None:
    """Refuse a teacher without label words whose labels fit better in another order (MNLI's differs by source).

    Args:
        logits: float [N, C] on dev, in the order that `label_order` gave.
        labels: int [N].

    Raises:
        InputError: a permutation of the labels is significantly better; it is named.
    """
    if task.regression or not all(re.fullmatch(r"(LABEL_)?\d+", word) for word in info.labels):
        return
    from scipy.optimize import linear_sum_assignment

    identity = tuple(range(task.num_labels))
    # How often logit j was largest where label k was true: the best order assigns a logit to each label.
    hits = np.zeros((task.num_labels, task.num_labels))
    np.add.at(hits, (labels, logits.argmax(-1)), 1 / len(labels))
    best = tuple(int(index) for index in linear_sum_assignment(hits, maximize=True)[1])
    accuracy = {order: float(hits[list(identity), list(order)].sum()) for order in (identity, best)}
    # Three standard errors of a difference: a teacher that has learnt nothing is no evidence of another order.
    if accuracy[best] > accuracy[identity] + 3 * (0.5 / len(labels)) ** 0.5:
        words = ", ".join(f"{best.index(index)}: {task.labels[best.index(index)]}" for index in best)
        named = {index: task.labels[best.index(index)] for index in identity}
        raise InputError(
            f"--teacher: {info.path} has labels without words and scores {accuracy[best]:.3f} on dev with "
            f"{named} but {accuracy[identity]:.3f} with {task.id}'s order; write that id2label into its config.json.",
            hint=f"The permutation is {words}.",
        )


def check_fit(info: ModelInfo, task: Task, settings: Settings) -> list[str]:
    """Problems of a teacher with a task and settings that show in configurations alone; empty when it fits."""
    problems: list[str] = []
    try:
        label_order(info, task)
    except InputError as error:
        problems += error.problems
    if settings.student.layers > info.layers:
        problems.append(
            f"student.layers: found {settings.student.layers}, but must be at most the teacher's {info.layers}."
        )
    if info.positions is not None and settings.data.max_length > info.positions:
        problems.append(
            f"data.max_length: found {settings.data.max_length}, but the teacher takes at most {info.positions}; give "
            f"--data-max-length {info.positions}."
        )
    if settings.student.hidden_size is not None and settings.student.hidden_size > info.hidden_size:
        problems.append(
            f"student.hidden_size: found {settings.student.hidden_size}, but must be at most the teacher's "
            f"{info.hidden_size}."
        )
    if settings.student.model is None and settings.student.start not in ("teacher", "random") and info.base is None:
        problems.append(
            f"student.model: {info.path} does not record the pretrained model that it was fine-tuned from; give "
            "--student-model FOLDER, or --student-start teacher."
        )
    return problems


def load_classifier(path: str, task: Task, seed: int = 0) -> Any:
    """A sequence classifier with the task's labels, from a folder or hub id; a missing head starts by the seed."""
    from transformers import AutoModelForSequenceClassification

    quiet_transformers()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForSequenceClassification.from_pretrained(path, **label_config(task), dtype=torch.float32)


def label_config(task: Task) -> dict[str, Any]:
    """The configuration entries that make a model's outputs the task's: number, words, problem type."""
    if task.regression:
        return {"num_labels": 1, "problem_type": "regression"}
    return {
        "num_labels": task.num_labels,
        "id2label": dict(enumerate(task.labels)),
        "label2id": {word: index for index, word in enumerate(task.labels)},
        "problem_type": "single_label_classification",
    }


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a model's folder or hub id."""
    from transformers import AutoTokenizer

    quiet_transformers()
    return AutoTokenizer.from_pretrained(path)


def checked_tokenizer(path: str, place: str) -> Any:
    """The tokenizer of a described model.

    Raises:
        InputError: it is damaged, or makes tokens that the model has no embedding for.
    """
    from transformers import AutoConfig

    try:
        tokenizer = load_tokenizer(path)
    except Exception as error:  # tokenizers raises bare Exceptions for a damaged file
        raise InputError(f"{place}: the tokenizer in {path} cannot be loaded: {str(error).splitlines()[0]}") from error
    tokens, words = max(tokenizer.get_vocab().values()) + 1, AutoConfig.from_pretrained(path).vocab_size
    if tokens > words:
        raise InputError(f"{place}: the tokenizer in {path} has {tokens} tokens, but the model embeds {words}.")
    return tokenizer
