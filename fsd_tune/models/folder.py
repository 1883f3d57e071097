"""The student that a user takes away: a plain transformers folder with its label words, metrics and hyperparameters."""

import copy
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from fsd_tune.data.batching import reads_types
from fsd_tune.models.loading import load_tokenizer, quiet_transformers
from fsd_tune.models.local_checks import RECORD
from fsd_tune.report.results import Results
from fsd_tune.storage import artifacts as files


def export_best(results: Results, tokenizer: str) -> Path | None:
    """Copy the best finished trial's student to `best/`; None when no trial has finished.

    Args:
        results: of the search.
        tokenizer: folder or hub id whose tokenizer the student uses.
    """
    best = results.best
    if best is None:
        return None
    trial = results.folder / "results" / str(best["folder"])
    checkpoints = sorted(trial.glob("checkpoint_*/student"))
    assert checkpoints, f"the finished trial in {trial} has no student"
    from transformers import AutoModelForSequenceClassification

    rows = results.reports[results.reports["trial"] == best["number"]]
    params = json.loads((trial / "config.json").read_text(encoding="utf-8"))
    record = {
        "task": results.summary.get("task"),
        "metric": results.metric,
        "score": best["score"],
        "last_report": json.loads(rows.iloc[-1].dropna().to_json()),
        "trial": int(best["number"]),
        "config": params["config"],
        "teacher": results.summary.get("teacher"),
        "seed": results.settings["search"]["seed"],
        "examples": results.summary.get("selection_examples"),
        "train_examples": results.summary.get("train_examples"),
        "select_on": results.summary.get("select_on"),
        "judge_by": results.summary.get("judge_by"),
        "student": results.summary.get("student"),
        "trials": len(results.trials),
        "precision": results.summary.get("precision"),
        "max_length": results.settings["data"]["max_length"],
        "versions": results.versions,
    }
    quiet_transformers()
    student = AutoModelForSequenceClassification.from_pretrained(checkpoints[-1])
    return write_model(results.folder / "best", student, load_tokenizer(tokenizer), record)


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
        made = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
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
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        quiet_transformers()
        model.save_pretrained(temporary)
        fitting(tokenizer, model).save_pretrained(temporary)
        files.write_json(temporary / RECORD, record)
        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
