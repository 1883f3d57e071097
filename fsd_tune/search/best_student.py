"""Export the best finished trial's student to the search's `best/` folder."""

import json
from pathlib import Path

from fsd_tune.models.folder import write_model
from fsd_tune.models.loading import load_tokenizer, quiet_transformers
from fsd_tune.report.results import Results


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
        "task": results.summary.task,
        "metric": results.metric,
        "score": best["score"],
        "last_report": json.loads(rows.iloc[-1].dropna().to_json()),
        "trial": int(best["number"]),
        "config": params["config"],
        "teacher": results.summary.teacher.as_json(),
        "seed": results.settings["search"]["seed"],
        "examples": results.summary.selection_examples,
        "train_examples": results.summary.train_examples,
        "select_on": results.summary.select_on,
        "judge_by": results.summary.judge_by,
        "student": results.summary.student.as_json(),
        "trials": len(results.trials),
        "precision": results.summary.precision,
        "max_length": results.settings["data"]["max_length"],
        "versions": results.versions,
    }
    quiet_transformers()
    student = AutoModelForSequenceClassification.from_pretrained(checkpoints[-1])
    return write_model(results.folder / "best", student, load_tokenizer(tokenizer), record)
