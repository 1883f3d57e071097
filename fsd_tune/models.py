"""Teacher and student models: what a teacher folder holds, whether it fits the task, and the student's start."""

import copy
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune import hub
from fsd_tune.errors import InputError
from fsd_tune.glue import Task
from fsd_tune.hub import RECORD
from fsd_tune.layers import start_layers
from fsd_tune.sections import Student
from fsd_tune.settings import Settings

# What `fsd-tune teacher` writes beside a teacher's weights: the pretrained base, its scores, how it was trained.


def quiet_transformers() -> None:
    """No progress bars and no load reports: a missing classifier is what a pretrained model is expected to have."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@dataclass(frozen=True)
class TeacherInfo:
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


def describe(path: str, place: str = "--teacher") -> TeacherInfo:
    """Read a teacher's configuration.

    Args:
        path: a folder, or a hub id.
        place: what an error names, usually the flag.

    Raises:
        InputError: no such folder, no configuration, no tokenizer, no weights.
    """
    config = _config(path, place)
    labels = tuple(str(config.id2label[index]) for index in sorted(config.id2label))
    layers, hidden = config.num_hidden_layers, config.hidden_size
    folder = Path(path).expanduser()
    name = str(folder.absolute()) if folder.is_dir() else path
    return TeacherInfo(name, layers, hidden, labels, _positions(config), _base(folder))


def describe_model(path: str, place: str) -> int | None:
    """Check a pretrained model's folder or hub id as `describe` does; the longest input that it takes, if it says."""
    return _positions(_config(path, place))


def check_source(student: Student, teacher: TeacherInfo, max_length: int) -> list[str]:
    """Problems of the pretrained model that students start from, as its configuration shows them.

    Args:
        student: the settings.
        teacher: describes the teacher; its recorded base is the model where the settings name none.
        max_length: tokens of an example.
    """
    source = student.model or (teacher.base if student.start not in ("teacher", "random") else teacher.path)
    if source is None:  # `check_fit` says so
        return []
    place = "student.model" if student.model else f"student.model: the base that {teacher.path} records"
    try:
        config = _config(source, place, tokenizer=False)
        if student.hidden_size is not None and student.hidden_size <= config.hidden_size:
            _narrow(copy.deepcopy(config), student.hidden_size)
    except InputError as error:
        return list(error.problems)
    if source == teacher.path:
        return []
    problems = []
    # What the teacher does not allow either is said by `check_fit`.
    if config.num_hidden_layers < student.layers <= teacher.layers:
        problems.append(f"{place}: {source} has {config.num_hidden_layers} layers, but the student {student.layers}.")
    positions, words, own = _positions(config), config.vocab_size, _config(teacher.path, "--teacher").vocab_size
    if positions is not None and positions < max_length <= (teacher.positions or max_length):
        problems.append(f"data.max_length: found {max_length}, but {source} takes at most {positions}.")
    if words != own:
        problems.append(
            f"{place}: {source} has a vocabulary of {words}, but must share the teacher's, which has {own}."
        )
    return problems


def _positions(config: Any) -> int | None:
    positions: int | None = getattr(config, "max_position_embeddings", None)
    # RoBERTa's positions begin after the padding index.
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return None if positions is None else positions - offset


def _config(path: str, place: str, tokenizer: bool = True) -> Any:
    problems = hub.model_problems(path, place, tokenizer)
    if problems:
        raise InputError(problems)
    folder = Path(path)
    config = _folder_config(folder, place) if folder.is_dir() else _hub_config(path, place)
    sizes = ("num_hidden_layers", "hidden_size", "num_attention_heads")
    missing = [name for name in sizes if not isinstance(getattr(config, name, None), int)]
    if missing:
        raise InputError(f"{place}: {path} is no encoder: its config.json has no {', '.join(missing)}.")
    return config


def _folder_config(folder: Path, place: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder))
    except Exception as error:  # transformers raises many kinds for a malformed config.json
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{place}: {folder / 'config.json'} cannot be used: {reason}") from error


def _hub_config(name: str, place: str) -> Any:
    from transformers import AutoConfig

    unreachable = hub.unreachable("model", name)
    try:
        with hub.offline(bool(unreachable)):
            config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = unreachable or str(error).splitlines()[0]
        raise InputError(f"{place}: {name} is no folder, and cannot be loaded from the hub ({reason}).") from error
    if unreachable:
        # It is in the local cache: loading its weights, here and in workers, is not to wait for the hub again.
        hub.stay_offline()
    return config


def _base(folder: Path) -> str | None:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    base = record.get("base") if isinstance(record, dict) else None
    return str(base) if base else None


def label_order(info: TeacherInfo, task: Task, place: str = "--teacher") -> tuple[int, ...]:
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


def refuse_permuted(info: TeacherInfo, task: Task, logits: NDArray[Any], labels: NDArray[Any]) -> None:
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


def check_fit(info: TeacherInfo, task: Task, settings: Settings) -> list[str]:
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


def build_student(student: Student, teacher: TeacherInfo, task: Task, seed: int) -> Any:
    """A student of `student.layers` layers at its start, on the CPU, in float32.

    Args:
        student: the settings; `model` null means the teacher's recorded base.
        teacher: describes the teacher.
        task: gives the head its size and label words.
        seed: of everything that is not copied: the head always, all weights with `start: random`.

    Raises:
        InputError: the model to start from is missing or has fewer layers than the student.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    quiet_transformers()
    source = teacher.path if student.start in ("teacher", "random") and student.model is None else student.model
    source = source or teacher.base
    assert source is not None, "check_fit finds a teacher without a recorded base"
    place = "student.model"
    config = AutoConfig.from_pretrained(source, **label_config(task))
    if config.num_hidden_layers < student.layers:
        raise InputError(f"{place}: {source} has {config.num_hidden_layers} layers, but the student {student.layers}.")
    source_layers = config.num_hidden_layers
    config.num_hidden_layers = student.layers
    if student.hidden_size is not None:
        _narrow(config, student.hidden_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    if student.start == "random":
        return _frozen_embeddings(model, student)
    layers = start_layers(student.start, source_layers, student.layers)
    weights = load_classifier(source, task).state_dict()
    if student.start != "teacher":
        # The head of a pretrained model is not part of it: loading made a random one, unlike the seed's.
        weights = {name: value for name, value in weights.items() if not re.match(r"classifier\.", name)}
    missing, unexpected = model.load_state_dict(_renumber(weights, layers), strict=False)
    assert not unexpected, unexpected
    assert all(name.startswith("classifier.") for name in missing), missing
    return _frozen_embeddings(model, student)


def _narrow(config: Any, hidden_size: int) -> None:
    head = config.hidden_size // config.num_attention_heads
    if hidden_size % head:
        raise InputError(f"student.hidden_size: found {hidden_size}, but must be a multiple of {head}, a head's width.")
    config.intermediate_size = config.intermediate_size * hidden_size // config.hidden_size
    config.hidden_size, config.num_attention_heads = hidden_size, hidden_size // head


def _frozen_embeddings(model: Any, student: Student) -> Any:
    if student.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    return model


def _renumber(weights: dict[str, torch.Tensor], layers: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The weights of the chosen layers under their numbers in the student, and all that belongs to no layer."""
    kept = {}
    for name, value in weights.items():
        match = re.fullmatch(r"(.*\.layer\.)(\d+)(\..*)", name)
        if match is None:
            kept[name] = value
        for new, old in enumerate(layers):
            if match is not None and int(match[2]) == old:
                kept[f"{match[1]}{new}{match[3]}"] = value
    return kept
