"""Export the best finished trial's student to the search's `best/` folder."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.models.folder import write_model
from fsd_tune.models.loading import load_finished, load_tokenizer
from fsd_tune.report.results import Results
from fsd_tune.settings import loader
from fsd_tune.settings.shapes import described, student_of
from fsd_tune.storage import checkpoints, json_file, layout
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.layout import TrialState


@dataclass(frozen=True)
class BestStudent:
    """The exported student of the best trial.

    Attributes:
        folder: the folder of the exported student.
        model: the loaded classifier, a model of transformers.
    """

    folder: Path
    model: Any


def export_best(
    results: Results, tokenizer: str, experiment: ExperimentFolder, note: Callable[[str], None]
) -> BestStudent | None:
    """Copy the student of the best finished trial whose checkpoint is whole to `best/`.

    Args:
        results: the results of the search.
        tokenizer: folder or hub id whose tokenizer the student uses.
        experiment: the search's folder, which downloads a checkpoint that is needed.
        note: called with a line for each better trial whose checkpoint is damaged or missing. Trials that are not
            among the best have none.

    Returns:
        The student; None if there is no finished trial with a whole checkpoint.
    """
    trials = results.trials[results.trials["state"] == TrialState.FINISHED].dropna(subset="score")
    for place, best in enumerate(trials.to_dict("records")):
        experiment.download_checkpoint(str(best["folder"]))
        newest = checkpoints.newest(results.folder / layout.RESULTS / str(best["folder"]))
        if newest is not None and (newest[0] / "student").is_dir():
            return _export(results, best, newest[0] / "student", tokenizer)
        if place >= checkpoints.STUDENTS:
            continue
        note(
            f"note: trial {best['number']} ({results.metric} {best['score']:.4f}) has lost its student: its checkpoint "
            f"is damaged or missing, so best/ is not from it; fsd-tune resume {experiment.name} runs it again."
        )
    return None


def _export(results: Results, best: Mapping[Any, Any], checkpoint: Path, tokenizer: str) -> BestStudent:
    trial = results.folder / layout.RESULTS / str(best["folder"])
    rows = results.reports[results.reports["trial"] == best["number"]]
    params = json_file.read_mapping(trial / layout.TRIAL_CONFIG)
    settings = loader.load(results.folder / layout.SETTINGS, stored=True)
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
        "student": described(student_of(settings, params["config"])),
        "trials": len(results.trials),
        "precision": results.summary.precision,
        "max_length": results.settings["data"]["max_length"],
        "versions": results.versions,
    }
    student = load_finished(checkpoint)
    folder = write_model(results.folder / layout.BEST, student, load_tokenizer(tokenizer), record)
    return BestStudent(folder, student)
