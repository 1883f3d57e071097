"""Write and read model folders: plain transformers folders with a record of how the model was made."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsd_tune.errors import InputError
from fsd_tune.models.inputs import reads_types
from fsd_tune.models.loading import transformers_quiet
from fsd_tune.storage import artifacts, files, json_file, layout
from fsd_tune.storage.artifacts import MODEL_RECORD, write_json
from fsd_tune.storage.outputs import output_problems
from fsd_tune.storage.uri import is_uri


def check_output(output: Path, overwrite: bool, inputs: Mapping[str, str | Path | None]) -> list[str]:
    """Return the problems of a folder that a model will be written to.

    Args:
        output: new, empty, or with `overwrite` a model that this package wrote.
        overwrite: whether such a model may be replaced.
        inputs: by flag, the folders and files that the model is made from; hub ids are not looked at. The output
            replaces its folder, so none of them may lie in it.

    Returns:
        One line for an `InputError`, or nothing if the model may be written.
    """
    problems = output_problems(output)
    folder = files.real_path(output)
    if problems:
        return problems
    for flag, place in inputs.items():
        if place is not None and not is_uri(place) and folder in (path := files.real_path(place), *path.parents):
            within = "is also" if path == folder else "contains"
            return [f"--output: {output} {within} {flag} {place}, which it would replace; give a new folder."]
    if not folder.is_dir():
        return []
    is_model = (folder / MODEL_RECORD).is_file()
    # Other files may be the user's only copy, so they are never replaced.
    if not files.contents(folder) or (overwrite and is_model):
        return []
    content = "a model; give a new folder, or --overwrite" if is_model else "other files; give a new folder"
    return [f"--output: {output} holds {content}."]


@contextmanager
def hold_output(output: Path, overwrite: bool) -> Iterator[None]:
    """Lock the folder of a model while the model is trained and written.

    Args:
        output: the folder. The lock is a file beside it.
        overwrite: whether a model may be replaced.

    Raises:
        InputError: another process writes it, or has written it meanwhile.
    """
    from filelock import FileLock, Timeout

    folder = files.real_path(output)
    files.make_folder(folder.parent)
    path = folder.parent / f".{folder.name}.lock"
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"--output: another command is writing {output}; wait for its end, or stop it.") from None
    try:
        if problems := check_output(output, overwrite, {}):
            raise InputError(problems)
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def fitting(tokenizer: Any, model: Any) -> Any:
    """Return a tokenizer that makes only inputs that a model accepts.

    A student of another family than its teacher, such as DistilBERT, may accept no `token_type_ids`.

    Args:
        tokenizer: a transformers tokenizer.
        model: a transformers model.

    Returns:
        `tokenizer` itself, or a copy that makes no `token_type_ids`.
    """
    if reads_types(model) or "token_type_ids" not in tokenizer.model_input_names:
        return tokenizer
    fitted = copy.deepcopy(tokenizer)
    # `init_kwargs` is saved with the tokenizer, so that loading restores the choice.
    fitted.init_kwargs["model_input_names"] = fitted.model_input_names = [
        name for name in tokenizer.model_input_names if name != "token_type_ids"
    ]
    return fitted


def made_in_search(student: Path) -> Path | None:
    """Return the folder of the search that a student is part of (`R/best`, `R/confirm/best`), or None.

    Args:
        student: a folder or hub id, given as a path.
    """
    for folder in list(student.absolute().parents)[:3] if student.is_dir() else []:
        try:
            summary = json_file.read_mapping(folder / layout.SUMMARY)
        except (OSError, ValueError):
            continue
        if "identity" in summary:
            return folder
    return None


@transformers_quiet()
def write_model(folder: Path, model: Any, tokenizer: Any, record: dict[str, Any]) -> Path:
    """Write the folder of a teacher or student, whole or not at all.

    Args:
        folder: its path; an existing folder is replaced.
        model: a transformers model.
        tokenizer: a transformers tokenizer.
        record: how the model was made; becomes its `fsd_tune.json`.

    Returns:
        The folder.
    """
    with artifacts.atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        fitting(tokenizer, model).save_pretrained(temporary)
        write_json(temporary / artifacts.MODEL_RECORD, record)
    return folder
