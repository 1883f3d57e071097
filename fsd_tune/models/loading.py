"""Describe models, check that they fit a task, and load classifiers and tokenizers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune.data.splits import Task
from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.models.loader import fill, load_model, require_weights
from fsd_tune.models.loader import load_config as load_config
from fsd_tune.models.loader import load_tokenizer as load_tokenizer
from fsd_tune.models.model_config import check_weights, positions_of, read_config
from fsd_tune.models.probe import check_encoder
from fsd_tune.models.quiet import quiet_transformers as quiet_transformers
from fsd_tune.models.quiet import transformers_quiet as transformers_quiet
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.model_record import ModelRecord
from fsd_tune.storage.uri import local_path

# Labels without words of their own: transformers' LABEL_0, LABEL_1, ... or digits.
_NUMBERED = re.compile(r"LABEL_\d+")
_NO_WORD = re.compile(r"(LABEL_)?\d+")


@dataclass(frozen=True)
class ModelInfo:
    """The facts in a classifier's configuration, read before any weight.

    Attributes:
        path: folder (absolute, because workers in other folders read it too) or hub id.
        layers: number of layers.
        hidden_size: H.
        labels: label words in index order.
        positions: the longest input that it takes, in tokens; None if its configuration does not say.
        base: the pretrained model that it was fine-tuned from; None if not recorded.
    """

    path: str
    layers: int
    hidden_size: int
    labels: tuple[str, ...]
    positions: int | None
    base: str | None


@transformers_quiet()
def read_model_info(path: str, flag: str = "--teacher") -> ModelInfo:
    """Return what a classifier's configuration says, after checking that its weights are complete.

    Args:
        path: a folder, or a hub id.
        flag: the flag that errors name.

    Raises:
        InputError: no such folder, no configuration, no tokenizer, no weights, or the weights of something else.
    """
    config = read_config(path, flag)
    check_encoder(path, config, flag)
    check_weights(path, config, flag, head=True)
    folder = local_path(path)
    return ModelInfo(
        path=str(folder.absolute()) if folder.is_dir() else path,
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        labels=tuple(str(config.id2label[index]) for index in sorted(config.id2label)),
        positions=positions_of(config),
        base=ModelRecord.read(folder).base or None,
    )


def describe_model(path: str, flag: str) -> int | None:
    """Check a pretrained model, which needs no classification head.

    Args:
        path: a folder, or a hub id.
        flag: the flag that errors name.

    Returns:
        The longest input that it takes, in tokens; None if its configuration does not say.

    Raises:
        InputError: no such folder, no configuration, no tokenizer, no weights, or no encoder.
    """
    config = read_config(path, flag)
    check_encoder(path, config, flag)
    check_weights(path, config, flag, head=False)
    return positions_of(config)


def label_order(info: ModelInfo, task: Task, flag: str = "--teacher") -> tuple[int, ...]:
    """Return for each label of the task the index of the model's logit for it.

    Label words decide. LABEL_0, LABEL_1, ... and digits stand for the task's order, unless digits are its words.

    Args:
        info: describes the model.
        task: the task.
        flag: the flag that errors name.

    Raises:
        InputError: another number of labels, or other words.
    """
    if len(info.labels) != task.num_labels:
        raise InputError(
            f"{flag}: {info.path} has {len(info.labels)} labels ({', '.join(info.labels)}), but {task.id} has "
            f"{task.num_labels}{' (' + ', '.join(task.labels) + ')' if task.labels else ' (regression)'}."
        )
    if task.regression or _has_no_words(info, task):
        return tuple(range(task.num_labels))
    index_of = {word.lower(): index for index, word in enumerate(info.labels)}
    if set(index_of) != {word.lower() for word in task.labels}:
        raise InputError(
            f"{flag}: {info.path} has the labels {', '.join(info.labels)}, but {task.id} has "
            f"{', '.join(task.labels)}; set id2label in its config.json."
        )
    return tuple(index_of[word.lower()] for word in task.labels)


def check_label_order(info: ModelInfo, task: Task, logits: NDArray[Any], labels: NDArray[Any]) -> None:
    """Refuse a teacher without label words whose labels fit better in another order (MNLI's differs by source).

    Args:
        info: describes the teacher.
        task: the task.
        logits: float [N, C] on dev, in the order that `label_order` gave.
        labels: int [N].

    Raises:
        InputError: a permutation of the labels is significantly better; the message names it.
    """
    if task.regression or not _has_no_words(info, task):
        return
    from scipy.optimize import linear_sum_assignment

    identity = tuple(range(task.num_labels))
    # How often logit j was largest when label k was true; the best order assigns a logit to each label.
    hits = np.zeros((task.num_labels, task.num_labels))
    np.add.at(hits, (labels, logits.argmax(-1)), 1 / len(labels))
    best = tuple(int(index) for index in linear_sum_assignment(hits, maximize=True)[1])
    accuracy = {order: float(hits[list(identity), list(order)].sum()) for order in (identity, best)}
    # Three standard errors of a difference, because a teacher that has learnt nothing is no evidence of another order.
    if accuracy[best] > accuracy[identity] + 3 * (0.5 / len(labels)) ** 0.5:
        words = ", ".join(f"{best.index(index)}: {task.labels[best.index(index)]}" for index in best)
        id2label = {index: task.labels[best.index(index)] for index in identity}
        raise InputError(
            f"--teacher: {info.path} has labels without words and scores {accuracy[best]:.3f} on dev with "
            f"{id2label} but {accuracy[identity]:.3f} with {task.id}'s order; write that id2label into its "
            "config.json.",
            hint=f"The permutation is {words}.",
        )


def _has_no_words(info: ModelInfo, task: Task) -> bool:
    """Return whether a model's labels are mere numbers, which say nothing about their order."""
    if {word.lower() for word in info.labels} == {word.lower() for word in task.labels}:
        return False
    # If the task's words are digits, other digits are other words, unless they are just the indices.
    digits = all(word.isdigit() for word in task.labels)
    named = digits and info.labels != tuple(str(index) for index in range(len(info.labels)))
    return all((_NUMBERED if named else _NO_WORD).fullmatch(word) for word in info.labels)


def check_fit(info: ModelInfo, task: Task, settings: Settings) -> list[str]:
    """Return the problems of a teacher with a task and settings that configurations show; empty if it fits.

    Args:
        info: describes the teacher.
        task: the task.
        settings: of the search or run.
    """
    problems = ProblemCollector()
    with problems.collect():
        label_order(info, task)
    problems.add(
        *(
            f"student.layers: found {layers}, but must be at most the teacher's {info.layers}."
            for layers in settings.student.possible("layers")
            if layers > info.layers
        )
    )
    if info.positions is not None and settings.data.max_length > info.positions:
        problems.add(
            f"data.max_length: found {settings.data.max_length}, but the teacher takes at most {info.positions}; give "
            f"--data-max-length {info.positions}."
        )
    problems.add(
        *(
            f"student.hidden_size: found {width}, but must be at most the teacher's {info.hidden_size}."
            for width in settings.student.possible("hidden_size")
            if width is not None and width > info.hidden_size
        )
    )
    copied = set(settings.student.possible("start")) - {"teacher", "random"}
    if settings.student.model is None and copied and info.base is None:
        problems.add(
            f"student.model: {info.path} does not record the pretrained model that it was fine-tuned from; give "
            "--student-model FOLDER, or --student-start teacher."
        )
    return problems.lines


@transformers_quiet()
def load_classifier(path: str, task: Task) -> Any:
    """Load a classifier that was fine-tuned on a task, with the task's labels, in float32 on the CPU.

    Args:
        path: a folder, or a hub id.
        task: the task.

    Raises:
        InputError: weights are missing.
    """
    config = load_config(path, **label_config(task))
    return require_weights(load_model(path, config), path).model


@transformers_quiet()
def load_with_new_head(path: str, task: Task, seed: int) -> Any:
    """Load the encoder of a pretrained model, whatever its head, under a new head for a task, in float32 on the CPU.

    Args:
        path: a folder, or a hub id.
        task: gives the head its size and label words.
        seed: initialises the head.

    Raises:
        InputError: weights of the encoder are missing.
    """
    config = load_config(path, **label_config(task))
    loaded = require_weights(load_model(path, config), path, head=False)
    encoder = encoder_weights(loaded.stored(), loaded.model.base_model_prefix)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return fill(config, encoder).model


def encoder_weights(weights: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Drop the head's weights; families have heads of one layer or two, with or without a pooler.

    Args:
        weights: by their names in a model.
        prefix: the model's `base_model_prefix`.
    """
    return {name: value for name, value in weights.items() if name.startswith(f"{prefix}.")}


def load_finished(path: str | Path) -> Any:
    """Load a finished classifier with its own labels, in float32 on the CPU.

    Args:
        path: a folder, or a hub id.

    Raises:
        InputError: weights are missing.
    """
    return require_weights(load_model(path, load_config(path)), path).model


def label_config(task: Task) -> dict[str, Any]:
    """Return the configuration entries that make a model's outputs the task's: number, words, problem type.

    Args:
        task: the task whose labels the model predicts.
    """
    if task.regression:
        return {"num_labels": 1, "problem_type": "regression"}
    return {
        "num_labels": task.num_labels,
        "id2label": dict(enumerate(task.labels)),
        "label2id": {word: index for index, word in enumerate(task.labels)},
        "problem_type": "single_label_classification",
    }


def checked_tokenizer(path: str, flag: str) -> Any:
    """Return the tokenizer of a model, after checking that the model has an embedding for each token.

    Args:
        path: a folder, or a hub id.
        flag: the flag that errors name.

    Raises:
        InputError: it is damaged, or makes tokens that the model has no embedding for.
    """
    try:
        tokenizer = load_tokenizer(path)
    except Exception as error:  # tokenizers raises bare Exceptions for a damaged file
        raise InputError(f"{flag}: the tokenizer in {path} cannot be loaded: {str(error).splitlines()[0]}") from error
    tokens = max(tokenizer.get_vocab().values()) + 1
    embeddings = load_config(path).vocab_size
    if tokens > embeddings:
        raise InputError(f"{flag}: the tokenizer in {path} has {tokens} tokens, but the model embeds {embeddings}.")
    return tokenizer
