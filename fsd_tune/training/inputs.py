"""Check and load the inputs of a search or run before any work starts: task, data, teacher and settings."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from fsd_tune.data import holdout
from fsd_tune.data.batching import TokenizedSplit, split_digest, tokenize
from fsd_tune.data.holdout import holdout_record
from fsd_tune.data.splits import Split, Task, TaskLike, get_task, load_splits
from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.models.layers import layer_pairs
from fsd_tune.models.loading import ModelInfo, check_fit, checked_tokenizer, read_model_info
from fsd_tune.models.model_config import read_config
from fsd_tune.models.student_init import check_source, init_source, source_flag
from fsd_tune.models.tokenizer_match import check_tokens
from fsd_tune.settings.judging import JUDGE_BY
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import NEEDS_EQUAL_WIDTHS
from fsd_tune.settings.schema import Student
from fsd_tune.settings.shapes import RANDOM, students
from fsd_tune.storage.model_record import ModelRecord
from fsd_tune.tracking.login import tracking_problems


def holdout_problems(teacher: ModelInfo, held: Split, held_out: float, data: Path | None) -> list[str]:
    """Return the problems of a teacher that was trained on the held-out rows, or whose record does not exclude it.

    Args:
        teacher: description of the teacher.
        held: the held-out rows.
        held_out: their share of the training split.
        data: folder of the data, for the command that trains another teacher.

    Returns:
        One line, or nothing if the teacher's record names these held-out rows.
    """
    record = ModelRecord.read(teacher.path)
    if record.holdout_rows == holdout_record(held, held_out)["holdout_rows"]:
        return []
    words = ["fsd-tune", "teacher", "--model", teacher.base or "MODEL", *held.task.words]
    words += ["--data", str(data)] if data is not None else []
    words += ["--holdout", f"{held_out:g}", "--output", "FOLDER"]
    share = record.holdout
    recorded = "records no holdout" if share is None else f"leaves out another holdout ({share:g})"
    return [
        f"--teacher: {teacher.path} {recorded}, so it may have seen the rows that search.select_on holds out "
        f"({held_out:g} of the training split); make one that does not: {shlex.join(words)}"
    ]


@dataclass(frozen=True)
class Inputs:
    """The loaded inputs of a search or run.

    Attributes:
        task: the task.
        teacher: description of the teacher.
        train: tokenised training split, of at most `data.train_limit` rows.
        dev: tokenised split that evaluations use: dev, or with a holdout the held-out rows of the training split.
        final: with a holdout the tokenised dev split, for the final score alone; else None.
        notes: sentences that a user should know, such as the number of skipped rows.
    """

    task: Task
    teacher: ModelInfo
    train: TokenizedSplit
    dev: TokenizedSplit
    final: TokenizedSplit | None
    notes: tuple[str, ...]


def load_inputs(settings: Settings, task_name: TaskLike, teacher: str, data: Path | None) -> Inputs:
    """Return the loaded inputs, or raise an error with every problem.

    Args:
        settings: the settings of the search or run.
        task_name: id of the task, or the YAML file of your own task.
        teacher: folder or hub id.
        data: the folder that holds `SST-2/` and so on, or that the paths in the task's file are relative to; None for
            the hub, or the folder of the task's file.

    Raises:
        InputError: with all problems of data, teacher and settings.
    """
    problems = ProblemCollector(tracking_problems(settings.wandb))
    task = info = splits = tokenizer = training_rows = held_rows = None
    length = settings.data.max_length
    share = holdout.holdout_share(settings)
    with problems.collect():
        task = get_task(task_name)
    with problems.collect():
        info = read_model_info(teacher)
    with problems.collect():
        splits = None if task is None else load_train_and_dev(task, data)
    if task is not None and info is not None:
        problems.add(*check_fit(info, task, settings), *_check_pairs(settings, info))
        own = students(settings)
        problems.add(*_once(check_source(student, info, length) for student in own))
        problems.add(*_once(_check_width(student, settings, info) for student in own))
        with problems.collect():
            tokenizer = checked_tokenizer(teacher, "--teacher")
            if splits is not None:
                # The tokens depend on the model that students start from, not on their shape.
                by_source = {(init_source(student, info), student.start == RANDOM): student for student in own}
                problems.add(
                    *_once(
                        check_tokens(student, info, tokenizer, splits["train"], length)
                        for student in by_source.values()
                    )
                )
    if splits is not None:
        training_rows = held_rows = splits["train"]
        with problems.collect():
            if share is not None:
                training_rows, held_rows = holdout.split_holdout(splits["train"], share)
                problems.add(*([] if info is None else holdout_problems(info, held_rows, share, data)))
    problems.raise_any()
    assert task is not None and info is not None and splits is not None
    assert training_rows is not None and held_rows is not None
    # The limit applies after the split, so that the holdout loses no rows.
    train = tokenize(training_rows, tokenizer, length, settings.data.train_limit)
    dev = tokenize(splits["dev"], tokenizer, length)
    judged, final = (dev, None) if share is None else (tokenize(held_rows, tokenizer, length), dev)
    skipped = [split for split in splits.values() if split.skipped]
    notes = tuple(f"{split.source}: {split.skipped} rows skipped (missing columns or labels)." for split in skipped)
    return Inputs(task, info, train, judged, final, notes)


def load_train_and_dev(task: Task, data: Path | None) -> dict[str, Split]:
    """Load the splits that training needs: train and dev.

    Args:
        task: the task.
        data: as for `load_inputs`.

    Returns:
        The splits by their names, `train` and `dev`.
    """
    return load_splits(task, ("train", "dev"), data)


def _once(lines: Iterable[list[str]]) -> list[str]:
    """Return the lines of several lists, each once."""
    return list(dict.fromkeys(chain.from_iterable(lines)))


def _check_pairs(settings: Settings, teacher: ModelInfo) -> list[str]:
    try:
        # What fits the shallowest student fits all.
        layer_pairs(settings.loss.layers, teacher.layers, min(settings.student.possible("layers")))
    except ValueError as error:
        return [f"loss.layers: {error}."]
    return []


def _check_width(student: Student, settings: Settings, teacher: ModelInfo) -> list[str]:
    """Return the problem of a method that cannot use a student of another width (`check_fit` refuses wider ones)."""
    methods = [name for name in settings.methods if name in NEEDS_EQUAL_WIDTHS]
    source, flag = init_source(student, teacher), source_flag(student, teacher)
    if not methods or source is None:
        return []
    try:
        config = read_config(source, flag, tokenizer=False)
    except InputError:  # `check_source` reports it.
        return []
    width = student.hidden_size or getattr(config, "hidden_size", None)
    if width in (None, teacher.hidden_size) or (student.hidden_size or 0) > teacher.hidden_size:
        return []
    width_text = f"found {width}" if student.hidden_size else f"{source} has {width}"
    return [
        f"student.hidden_size: {width_text}, but method {methods[0]} compares [CLS] vectors number by number: must "
        f"be the teacher's {teacher.hidden_size}."
    ]


def shared_facts(settings: Settings, spec: MemorySpec, metric: str) -> dict[str, Any]:
    """Return the facts that two runs must share for their scores to be comparable, for W&B.

    Args:
        settings: the settings of the run.
        spec: what its memory depends on.
        metric: the task's selection metric.

    Returns:
        {name: value} of the task, the metric, how trials are judged, and a digest of the dev split.
    """
    return {
        "task": spec.task.id,
        "metric": metric,
        "select_on": settings.search.model_dump(mode="json")["select_on"],
        "judge_by": JUDGE_BY,
        "dev split": split_digest(spec.dev),
    }
