"""Initialise a student: from layers of a pretrained encoder of any family, from its teacher, or at random."""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fsd_tune.data.splits import Task
from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.models.layers import start_layers
from fsd_tune.models.loader import load_config, load_model, new_model, require_weights
from fsd_tune.models.loading import ModelInfo, encoder_weights, label_config, label_order, transformers_quiet
from fsd_tune.models.model_config import check_weights, keep_layers, narrow, positions_of, read_config
from fsd_tune.models.probe import check_encoder
from fsd_tune.settings.schema import Student


def init_source(student: Student, teacher: ModelInfo) -> str | None:
    """Return the folder or hub id that a student starts from; None if the teacher's base is needed but not recorded.

    Args:
        student: the settings.
        teacher: describes the teacher.
    """
    if student.start == "teacher":
        return teacher.path
    return student.model or (teacher.path if student.start == "random" else teacher.base)


def check_source(student: Student, teacher: ModelInfo, max_length: int) -> list[str]:
    """Return the problems of the model that students start from, as its configuration shows them.

    Args:
        student: the settings.
        teacher: describes the teacher; students start from its recorded base if the settings name no model.
        max_length: tokens of an example.

    Returns:
        A line for each problem, empty if there is none.
    """
    if student.start == "teacher" and student.model is not None:
        return [f"student.model: found {student.model}, but start: teacher takes the teacher's layers; leave it out."]
    source = init_source(student, teacher)
    if source is None:  # `check_fit` reports it
        return []
    flag = source_flag(student, teacher)
    teacher_config = read_config(teacher.path, "--teacher")
    try:
        config = read_config(source, flag, tokenizer=False)
        check_encoder(source, config, flag)
    except InputError as error:
        return list(error.problems)
    collector = ProblemCollector()
    if source != teacher.path and student.start != "random":
        with collector.collect():
            check_weights(source, config, flag, head=False)
    # `check_fit` reports a width that exceeds the teacher's.
    if student.hidden_size is not None and student.hidden_size <= teacher.hidden_size:
        with collector.collect():
            narrow(copy.deepcopy(config), student.hidden_size)
    problems = collector.lines
    if config.num_hidden_layers < student.layers <= teacher.layers:
        problems.append(f"{flag}: {source} has {config.num_hidden_layers} layers, but the student {student.layers}.")
    elif not problems and student.layers <= config.num_hidden_layers and student.start != "random":
        problems += _layer_mismatches(student, config, flag, source)
    if source == teacher.path:
        return problems
    if student.start == "random":
        _use_vocabulary_of(teacher_config, config)
    positions = positions_of(config)
    if positions is not None and positions < max_length <= (teacher.positions or max_length):
        problems.append(f"data.max_length: found {max_length}, but {source} takes at most {positions}.")
    return problems


def source_flag(student: Student, teacher: ModelInfo) -> str:
    """Return the name that errors give to the model that students start from.

    Args:
        student: the settings.
        teacher: describes the teacher.
    """
    return "student.model" if student.model else f"student.model: the base that {teacher.path} records"


@transformers_quiet()
def build_student(student: Student, teacher: ModelInfo, task: Task, seed: int) -> Any:
    """Build an untrained student of `student.layers` layers, on the CPU, in float32.

    Args:
        student: the settings; `model` null means the teacher's recorded base.
        teacher: describes the teacher.
        task: gives the head its size and label words.
        seed: initialises everything that is not copied: the head, or all weights with `start: random`.

    Returns:
        A transformers classifier.

    Raises:
        InputError: the model to start from has fewer layers than the student.
    """
    source, config, shorter, layers = _configs(student, teacher, task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(shorter)
    if student.start != "random":
        # Loading initialises what the source lacks, at least a head, at random. The student keeps its seed's weights.
        with torch.random.fork_rng(devices=[]):
            loaded = require_weights(load_model(source, config), source, head=student.start == "teacher")
        weights = loaded.stored()
        if student.start == "teacher":
            _reorder(weights, loaded.model.base_model_prefix, label_order(teacher, task))
        else:
            weights = encoder_weights(weights, loaded.model.base_model_prefix)
        missing, unexpected = model.load_state_dict(_renumber(weights, layers, config), strict=False)
        assert not unexpected, unexpected
        encoder = encoder_weights(dict.fromkeys(missing), loaded.model.base_model_prefix)
        assert set(encoder) <= loaded.missing | set(loaded.misshapen), encoder
    if student.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    return model


@transformers_quiet()
def student_config(student: Student, teacher: ModelInfo, task: Task) -> Any:
    """Return the transformers configuration of a student. No weight is read or made.

    Args:
        student: the settings; `model` null means the teacher's recorded base.
        teacher: describes the teacher.
        task: gives the head its size and label words.

    Raises:
        InputError: the model to start from has fewer layers than the student.
    """
    return _configs(student, teacher, task)[2]


def _configs(student: Student, teacher: ModelInfo, task: Task) -> tuple[str, Any, Any, tuple[int, ...]]:
    """Return the model that a student starts from, its configuration, the student's, and the layers (0-based)."""
    source = init_source(student, teacher)
    assert source is not None, "check_fit finds a teacher without a recorded base"
    config = load_config(source, **label_config(task))
    if config.num_hidden_layers < student.layers:
        raise InputError(
            f"student.model: {source} has {config.num_hidden_layers} layers, but the student {student.layers}."
        )
    shorter = copy.deepcopy(config)
    if student.start == "random":
        _use_vocabulary_of(load_config(teacher.path), shorter)
    layers = _shorten(shorter, student)
    if student.hidden_size is not None:
        narrow(shorter, student.hidden_size)
    return source, config, shorter, layers


def _shorten(config: Any, student: Student) -> tuple[int, ...]:
    """Give a configuration the student's number of layers, and return the source's layers (0-based) for them."""
    start = "copy" if student.start == "random" else student.start
    layers = start_layers(start, config.num_hidden_layers, student.layers)
    keep_layers(config, layers)
    return layers


def _use_vocabulary_of(teacher: Any, config: Any) -> None:
    """Give word embeddings that are not copied the size that the teacher's tokenizer needs."""
    config.vocab_size = teacher.vocab_size
    config.pad_token_id = teacher.pad_token_id


def _renumber(weights: Mapping[str, torch.Tensor], layers: Sequence[int], config: Any) -> dict[str, torch.Tensor]:
    """Return the chosen layers' weights under their numbers in the student, and all weights outside the layers.

    A model's layers are the list of modules that is as long as the model is deep (`encoder.layer`,
    `transformer.layer`, `layers`). ALBERT has no such list: it applies one layer repeatedly.
    """
    parts = {name: match for name in weights if (match := re.fullmatch(r"(.+?\.)(\d+)(\..+)", name))}
    lists: dict[str, set[int]] = {}
    for match in parts.values():
        lists.setdefault(match[1], set()).add(int(match[2]))
    whole = {prefix for prefix, numbers in lists.items() if numbers == set(range(config.num_hidden_layers))}
    renumbered = {}
    for name, value in weights.items():
        if name not in parts or parts[name][1] not in whole:
            renumbered[name] = value
            continue
        prefix, old, rest = parts[name].groups()
        renumbered |= {f"{prefix}{new}{rest}": value for new, chosen in enumerate(layers) if chosen == int(old)}
    return renumbered


def _reorder(weights: dict[str, torch.Tensor], prefix: str, order: Sequence[int]) -> None:
    """Put the rows of a head's last layer into the task's order, which may differ from the teacher's.

    Families disagree on whether the head stands before the encoder, but a head's own layers stand in order.
    """
    rows = [name for name in weights if not name.startswith(f"{prefix}.") and len(weights[name]) == len(order)]
    last = rows[-1].rpartition(".")[0]
    for name in (f"{last}.weight", f"{last}.bias"):
        if name in weights:
            weights[name] = weights[name][list(order)]


def _layer_mismatches(student: Student, config: Any, flag: str, source: str) -> list[str]:
    """Return a problem if the chosen layers do not fit the student's by name and shape, as in a few families."""
    shorter = copy.deepcopy(config)
    layers = _shorten(shorter, student)
    groups = getattr(config, "num_hidden_groups", 1)
    if groups != 1:
        return [f"{flag}: {source} shares its layers in {groups} groups and cannot be copied; use `start: random`."]
    source_weights = _renumber(_skeleton(config), layers, config)
    needed = _skeleton(shorter)
    shapes = [{name: value.shape for name, value in weights.items()} for weights in (source_weights, needed)]
    wrong = sorted(name for name in {*source_weights, *needed} if shapes[0].get(name) != shapes[1].get(name))
    if not wrong:
        return []
    return [
        f"student.start: found {student.start}, but the layers of {source} ({config.model_type}) are not "
        f"interchangeable: {wrong[0]} has no counterpart; try copy or random."
    ]


def _skeleton(config: Any) -> dict[str, torch.Tensor]:
    """Return a classifier's weights as names and shapes, without memory for values."""
    with torch.device("meta"):
        weights: dict[str, torch.Tensor] = new_model(config).state_dict()
    return weights
