"""The student that a user takes away: a plain transformers folder with its label words, metrics and hyperparameters."""

import copy
import json
import os
from pathlib import Path
from typing import Any

from fsd_tune.data.batching import reads_types
from fsd_tune.models.loading import quiet_transformers
from fsd_tune.storage import artifacts
from fsd_tune.storage.artifacts import MODEL_RECORD, write_json


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


def check_output(output: Path, overwrite: bool) -> list[str]:
    """Problems of a folder that a model is to be written to."""
    if output.is_dir():
        ours = (output / MODEL_RECORD).is_file()
        if not any(output.iterdir()) or (overwrite and ours):
            return []
        # Only a model of ours is ever replaced: whatever else is there is not ours to delete.
        held = "a model; give a new folder, or --overwrite" if ours else "other files; give a new folder"
        return [f"--output: {output} holds {held}."]
    return cannot_be_made(output)


def fitting(tokenizer: Any, model: Any) -> Any:
    """A tokenizer that makes what a model takes: no token types for one that a teacher of another family has taught."""
    if reads_types(model) or "token_type_ids" not in tokenizer.model_input_names:
        return tokenizer
    fitted = copy.deepcopy(tokenizer)
    # Loading gives it back, for it is saved with the arguments that made the tokenizer.
    fitted.init_kwargs["model_input_names"] = fitted.model_input_names = [
        name for name in tokenizer.model_input_names if name != "token_type_ids"
    ]
    return fitted


def record_of(folder: Path | str) -> dict[str, Any]:
    """What `fsd_tune.json` in a model's folder says of its making; empty for models from elsewhere."""
    try:
        made = json.loads((Path(folder) / artifacts.MODEL_RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) else {}


def made_in_search(student: Path) -> Path | None:
    """The folder of the search that a student lies in (`R/best`, `R/confirm/best`); None when it lies elsewhere."""
    for folder in list(student.absolute().parents)[:2] if student.is_dir() else []:
        try:
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(summary, dict) and "identity" in summary:
            return folder
    return None


def write_model(folder: Path, model: Any, tokenizer: Any, record: dict[str, Any]) -> Path:
    """Write a teacher's or student's folder beside and rename it.

    Args:
        folder: where it goes; replaced when it is there.
        model, tokenizer: of transformers.
        record: what `fsd_tune.json` in it says of its making.
    """
    with artifacts.atomic_folder(folder) as temporary:
        quiet_transformers()
        model.save_pretrained(temporary)
        fitting(tokenizer, model).save_pretrained(temporary)
        write_json(temporary / artifacts.MODEL_RECORD, record)
    return folder
