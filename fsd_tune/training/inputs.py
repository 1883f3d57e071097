"""A verb's inputs checked and loaded before any work starts: task, data, teacher, and what settings ask of them."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.data import holdout
from fsd_tune.data.batching import TokenizedSplit, split_digest, tokenize
from fsd_tune.data.holdout import holdout_record
from fsd_tune.data.splits import Split, Task, TaskLike, get_task, load
from fsd_tune.errors import InputError
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.models.layers import layer_pairs
from fsd_tune.models.loading import ModelInfo, check_fit, checked_tokenizer, load_config, read_model_info
from fsd_tune.models.student_init import check_source
from fsd_tune.models.tokenizer_match import check_tokens
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import NEEDS_EQUAL_WIDTHS
from fsd_tune.storage.artifacts import MODEL_RECORD
from fsd_tune.tracking.login import tracking_problems


def holdout_problems(teacher: ModelInfo, held: Split, held_out: float, data: Path | None) -> list[str]:
    """A teacher that has been trained on what is held out, or that does not say it has not.

    Args:
        teacher: describes it.
        held: the rows that are held out.
        held_out: their share.
        data: the folder of the data, for the command that makes another.
    """
    try:
        said = json.loads((Path(teacher.path) / MODEL_RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = {}
    said = said if isinstance(said, dict) else {}
    if said.get("holdout_rows") == holdout_record(held, held_out)["holdout_rows"]:
        return []
    words = ["fsd-tune", "teacher", "--model", teacher.base or "MODEL", *held.task.words]
    words += ["--data", str(data)] if data is not None else []
    words += ["--holdout", f"{held_out:g}", "--output", "FOLDER"]
    found = (
        f"leaves out another holdout ({said['holdout']:g})" if _is_number(said.get("holdout")) else "records no holdout"
    )
    return [
        f"--teacher: {teacher.path} {found}, so that it may know the rows that search.select_on holds out "
        f"({held_out:g} of the training split); make one that does not: {shlex.join(words)}"
    ]


@dataclass(frozen=True)
class Inputs:
    """What a search or a run works on.

    Attributes:
        task: the task.
        teacher: the teacher's description.
        train, dev: tokenised splits; `train` has at most `data.train_limit` rows. With a holdout `dev`, which trials
            are judged on, is what is held out of the training split.
        final: with a holdout the dev split, for the final figure alone; else None.
        notes: what a user should know, such as rows that were skipped.
    """

    task: Task
    teacher: ModelInfo
    train: TokenizedSplit
    dev: TokenizedSplit
    final: TokenizedSplit | None
    notes: tuple[str, ...]


def load_inputs(settings: Settings, task_name: TaskLike, teacher: str, data: Path | None) -> Inputs:
    """Load everything, or name every problem.

    Args:
        settings: of the search or run.
        task_name: id of the task, or the file of one's own.
        teacher: folder or hub id.
        data: the folder that holds `SST-2/` and so on, or what the file's paths start from; None for the hub, or the
            file's own folder.

    Raises:
        InputError: with all problems of data, teacher and settings.
    """
    problems, hint = tracking_problems(settings.wandb), ""
    task = info = splits = tokenizer = None
    try:
        task = get_task(task_name)
    except InputError as error:
        problems += error.problems
    try:
        info = read_model_info(teacher)
    except InputError as error:
        problems += error.problems
    if task is not None:
        try:
            splits = load_splits(task, data)
        except InputError as error:
            problems += error.problems
            hint = error.hint
    if task is not None and info is not None:
        problems += check_fit(info, task, settings)
        problems += _check_pairs(settings, info)
        unusable = check_source(settings.student, info, settings.data.max_length)
        problems += unusable or _check_widths(settings, info)
        try:
            tokenizer = checked_tokenizer(teacher, "--teacher")
            if splits is not None:
                problems += check_tokens(settings.student, info, tokenizer, splits["train"], settings.data.max_length)
        except InputError as error:
            problems += error.problems
    rest = held = None if splits is None else splits["train"]
    share = holdout.holdout_share(settings)
    if share is not None and splits is not None:
        try:
            rest, held = holdout.split_holdout(splits["train"], share)
            problems += [] if info is None else holdout_problems(info, held, share, data)
        except InputError as error:
            problems += error.problems
    if problems or task is None or info is None or splits is None or rest is None or held is None:
        raise InputError(problems, hint)
    length = settings.data.max_length
    # The limit is on what remains, so that it takes nothing out of the holdout.
    train = tokenize(rest, tokenizer, length, settings.data.train_limit)
    dev = tokenize(splits["dev"], tokenizer, length)
    judged, final = (dev, None) if share is None else (tokenize(held, tokenizer, length), dev)
    skipped = [split for split in splits.values() if split.skipped]
    notes = tuple(f"{split.source}: {split.skipped} rows skipped (missing columns or labels)." for split in skipped)
    return Inputs(task, info, train, judged, final, notes)


def load_splits(task: Task, data: Path | None) -> dict[str, Split]:
    """The splits that training needs: train and dev."""
    return load(task, ("train", "dev"), data)


def _check_pairs(settings: Settings, teacher: ModelInfo) -> list[str]:
    try:
        layer_pairs(settings.loss.layers, teacher.layers, settings.student.layers)
    except ValueError as error:
        return [f"loss.layers: {error}."]
    return []


def _check_widths(settings: Settings, teacher: ModelInfo) -> list[str]:
    """Methods that cannot compare the student with the teacher, for it is narrower (wider ones `check_fit` refuses)."""
    student, methods = settings.student, [name for name in settings.methods if name in NEEDS_EQUAL_WIDTHS]
    own = teacher.path if student.start in ("teacher", "random") else teacher.base
    source = student.model or own
    if not methods or source is None:
        return []
    width = student.hidden_size or load_config(source).hidden_size
    if width == teacher.hidden_size or (student.hidden_size or 0) > teacher.hidden_size:
        return []
    found = f"found {width}" if student.hidden_size else f"{source} has {width}"
    return [
        f"student.hidden_size: {found}, but method {methods[0]} compares [CLS] vectors number by number: must be the "
        f"teacher's {teacher.hidden_size}."
    ]


def shared_facts(settings: Settings, spec: MemorySpec, metric: str) -> dict[str, Any]:
    """What two runs' scores must share to be compared, as W&B is told of a run that belongs to no search."""
    return {
        "task": spec.task.id,
        "metric": metric,
        "select_on": settings.search.model_dump(mode="json")["select_on"],
        "judge_by": settings.search.judge_by,
        "dev split": split_digest(spec.dev),
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
