"""A verb's inputs checked and loaded before any work starts: task, data, teacher, and what settings ask of them."""

import os
from dataclasses import dataclass
from pathlib import Path

from fsd_tune.data import api as glue
from fsd_tune.data import holdout
from fsd_tune.data.api import Split, Task
from fsd_tune.data.batching import Tokenised, tokenise
from fsd_tune.errors import InputError
from fsd_tune.models.layers import layer_pairs
from fsd_tune.models.loading import TeacherInfo, check_fit, checked_tokenizer, describe, quiet_transformers
from fsd_tune.models.local_checks import RECORD
from fsd_tune.models.student_init import check_source
from fsd_tune.models.tokenizer_match import check_tokens
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import NEEDS_EQUAL_WIDTHS
from fsd_tune.tracking.login import tracking_problems


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
    teacher: TeacherInfo
    train: Tokenised
    dev: Tokenised
    final: Tokenised | None
    notes: tuple[str, ...]


def gather(settings: Settings, task_name: glue.TaskLike, teacher: str, data: Path | None) -> Inputs:
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
        task = glue.get_task(task_name)
    except InputError as error:
        problems += error.problems
    quiet_transformers()
    try:
        info = describe(teacher)
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
    share = holdout.share(settings)
    if share is not None and splits is not None:
        try:
            rest, held = holdout.divide(splits["train"], share)
            problems += [] if info is None else holdout.problems(info, held, share, data)
        except InputError as error:
            problems += error.problems
    if problems or task is None or info is None or splits is None or rest is None or held is None:
        raise InputError(problems, hint)
    length = settings.data.max_length
    # The limit is on what remains, so that it takes nothing out of the holdout.
    train = tokenise(rest, tokenizer, length, settings.data.train_limit)
    dev = tokenise(splits["dev"], tokenizer, length)
    judged, final = (dev, None) if share is None else (tokenise(held, tokenizer, length), dev)
    skipped = [split for split in splits.values() if split.skipped]
    notes = tuple(f"{split.source}: {split.skipped} rows skipped (missing columns or labels)." for split in skipped)
    return Inputs(task, info, train, judged, final, notes)


def check_output(output: Path, overwrite: bool) -> list[str]:
    """Problems of a folder that a model is to be written to."""
    if output.is_dir():
        ours = (output / RECORD).is_file()
        if not any(output.iterdir()) or (overwrite and ours):
            return []
        # Only a model of ours is ever replaced: whatever else is there is not ours to delete.
        held = "a model; give a new folder, or --overwrite" if ours else "other files; give a new folder"
        return [f"--output: {output} holds {held}."]
    return cannot_be_made(output)


def cannot_be_made(output: Path) -> list[str]:
    """Why a folder, where it is not there yet, cannot be made."""
    if output.is_dir():
        return []
    if output.exists():
        return [f"--output: {output} is a file, but must be a folder or new."]
    above = next(path for path in output.absolute().parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        return [f"--output: {output} cannot be made: {above} is no folder that may be written to."]
    return []


def load_splits(task: Task, data: Path | None) -> dict[str, Split]:
    """The splits that training needs: train and dev."""
    return glue.load(task, ("train", "dev"), data)


def _check_pairs(settings: Settings, teacher: TeacherInfo) -> list[str]:
    try:
        layer_pairs(settings.loss.layers, teacher.layers, settings.student.layers)
    except ValueError as error:
        return [f"loss.layers: {error}."]
    return []


def _check_widths(settings: Settings, teacher: TeacherInfo) -> list[str]:
    """Methods that cannot compare the student with the teacher, for it is narrower (wider ones `check_fit` refuses)."""
    student, methods = settings.student, [name for name in settings.methods if name in NEEDS_EQUAL_WIDTHS]
    own = teacher.path if student.start in ("teacher", "random") else teacher.base
    source = student.model or own
    if not methods or source is None:
        return []
    from transformers import AutoConfig

    width = student.hidden_size or AutoConfig.from_pretrained(source).hidden_size
    if width == teacher.hidden_size or (student.hidden_size or 0) > teacher.hidden_size:
        return []
    found = f"found {width}" if student.hidden_size else f"{source} has {width}"
    return [
        f"student.hidden_size: {found}, but method {methods[0]} compares [CLS] vectors number by number: must be the "
        f"teacher's {teacher.hidden_size}."
    ]
