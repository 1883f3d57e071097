"""Export the best finished trial's student to the search's `best/` folder."""

import json
from pathlib import Path

from fsd_tune.models.folder import write_model
from fsd_tune.models.loading import load_finished, load_tokenizer
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
    student = load_finished(checkpoints[-1])
    return write_model(results.folder / "best", student, load_tokenizer(tokenizer), record)
