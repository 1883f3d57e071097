"""Export the best finished trial's student to the search's `best/` folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.models.folder import write_model
from fsd_tune.models.loading import load_finished, load_tokenizer
from fsd_tune.report.results import Results
from fsd_tune.storage import json_file, layout


@dataclass(frozen=True)
class BestStudent:
    """The exported student of the best trial.

    Attributes:
        folder: the folder of the exported student.
        model: the loaded classifier, a model of transformers.
    """

    folder: Path
    model: Any


def export_best(results: Results, tokenizer: str) -> BestStudent | None:
    """Copy the best finished trial's student to `best/`.

    Args:
        results: the results of the search.
        tokenizer: folder or hub id whose tokenizer the student uses.

    Returns:
        The student; None when no trial has finished.
    """
    best = results.best
    if best is None:
        return None
    trial = results.folder / layout.RESULTS / str(best["folder"])
    checkpoints = sorted(trial.glob(f"{layout.CHECKPOINTS}/student"))
    assert checkpoints, f"the finished trial in {trial} has no student"
    rows = results.reports[results.reports["trial"] == best["number"]]
    params = json_file.read_mapping(trial / layout.TRIAL_CONFIG)
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
    student = load_finished(checkpoints[-1])
    folder = write_model(results.folder / layout.BEST, student, load_tokenizer(tokenizer), record)
    return BestStudent(folder, student)
