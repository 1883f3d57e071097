"""Export the student that a search keeps to its `best/` folder, and those of the front to `best/front/`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.models.folder import write_model
from fsd_tune.models.loading import load_finished, load_tokenizer
from fsd_tune.report.members import chosen_trial, front_of
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
    """Copy the student that `search.pick` chooses to `best/`, or the best one whose checkpoint is whole.

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
    rows = trials.to_dict("records")
    chosen = chosen_trial(results)
    if chosen is not None:
        rows.sort(key=lambda row: row["number"] != chosen["number"])
    for place, best in enumerate(rows):
        checkpoint = _checkpoint(results, best, experiment)
        if checkpoint is not None:
            return _export(results, best, checkpoint, tokenizer, results.folder / layout.BEST)
        if place >= checkpoints.STUDENTS:
            continue
        note(
            f"note: trial {best['number']} ({results.metric} {best['score']:.4f}) has lost its student: its checkpoint "
            f"is damaged or missing, so best/ is not from it; fsd-tune resume {experiment.name} runs it again."
        )
    return None


def export_front(
    results: Results, tokenizer: str, experiment: ExperimentFolder, note: Callable[[str], None]
) -> list[Path]:
    """Copy the students of the front to folders in `best/front/`, for a search with several shapes.

    They are copies and not links to the trials' folders, because downloads and object stores do not keep links, and a
    trial's checkpoint has neither tokenizer nor record.

    Args:
        results: the results of the search.
        tokenizer: folder or hub id whose tokenizer the students use.
        experiment: the search's folder, which downloads the checkpoints.
        note: called with a line if checkpoints are damaged or missing.

    Returns:
        The folders, from the cheapest student on.
    """
    front = front_of(results)
    folders, lost = [], []
    if front is not None:
        experiment.delete(results.folder / layout.BEST / layout.FRONT)
    for member in () if front is None else front.members:
        row = results.trials[results.trials["number"] == member.number].iloc[0].to_dict()
        checkpoint = _checkpoint(results, row, experiment)
        if checkpoint is None:
            lost.append(str(member.number))
            continue
        folder = results.folder / layout.BEST / layout.FRONT / member.folder
        folders.append(_export(results, row, checkpoint, tokenizer, folder).folder)
    if lost:
        note(
            f"note: {layout.BEST}/{layout.FRONT}/ lacks the students of trials {', '.join(lost)}: their checkpoints "
            f"are damaged or missing, or the front has more than {checkpoints.FRONT_STUDENTS} members."
        )
    return folders


def _checkpoint(results: Results, trial: Mapping[Any, Any], experiment: ExperimentFolder) -> Path | None:
    """Return the folder of a finished trial's student; None if its checkpoint is damaged or missing."""
    experiment.download_checkpoint(str(trial["folder"]))
    newest = checkpoints.newest(results.folder / layout.RESULTS / str(trial["folder"]))
    return newest[0] / "student" if newest is not None and (newest[0] / "student").is_dir() else None


def _export(results: Results, best: Mapping[Any, Any], checkpoint: Path, tokenizer: str, into: Path) -> BestStudent:
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
    folder = write_model(into, student, load_tokenizer(tokenizer), record)
    return BestStudent(folder, student)
