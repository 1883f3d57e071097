"""Restore the trials of an interrupted search from its folder, and prepare the unfinished ones to continue."""

import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsd_tune.report.results import load
from fsd_tune.search.kept_students import KeptStudents
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.settings.configuration import picked
from fsd_tune.settings.judging import JUDGE_BY
from fsd_tune.settings.loader import Settings
from fsd_tune.storage import artifacts, checkpoints, json_file, layout
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.records import TrialDescription, TrialEnding


@dataclass
class ResumeState:
    """The earlier part of a search.

    Attributes:
        trials: the trials by number. A trial that will run again is `running`, with the values up to its checkpoint.
        restarts: by trial number, the checkpoint in the trial's folder from which an unfinished trial continues.
        notes: notes for the user on lost files, one line each.
    """

    trials: dict[int, TrialRecord] = field(default_factory=dict)
    restarts: dict[int, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """The number of trials that will not run again."""
        return sum(trial.state != TrialState.RUNNING for trial in self.trials.values())


def restore_trials(
    folder: Path, settings: Settings, errored: bool, experiment: ExperimentFolder | None = None
) -> ResumeState:
    """Return the trials in a search's folder, and prepare unfinished trials to continue.

    An unfinished trial continues from its newest complete checkpoint, with the same number and folder; without one it
    starts again. Its reports after the checkpoint are dropped, because it will make them again. A trial that has made
    all its reports has finished if its student is there or is not among the best. Ended trials do not change, except
    that the best one runs again if its student is lost. An interrupted restore can be repeated.

    Args:
        folder: the search's folder, locked by this process.
        settings: the settings of the search.
        errored: run failed trials again, too.
        experiment: downloads the checkpoint of the best trial to check it; None if `folder` is on a disk.
    """
    experiment = experiment or ExperimentFolder(folder)
    results = load(folder, judge_by=JUDGE_BY)
    reports = results.summary.planned_reports
    values = results.values()
    best = None if results.best is None else int(results.best["number"])
    finished = results.trials[results.trials["state"] == TrialState.FINISHED].dropna(subset="score")
    students = KeptStudents(dict(zip(finished["number"], finished["score"], strict=True)))
    past = ResumeState(notes=[f"{problem}: this trial's part is lost." for problem in results.problems])
    if results.summary.judge_by not in (None, JUDGE_BY):
        past.notes.append("scores were means of the last three evaluations; from now on they are last evaluations.")
    for row in results.trials.to_dict("records"):
        number = int(row["number"])
        trial_folder = folder / layout.RESULTS / str(row["folder"])
        record = restored_record(values.get(number, {}), settings, row, trial_folder)
        past.trials[number] = record
        ended = record.state in (TrialState.FINISHED, TrialState.STOPPED, TrialState.FAILED)
        complete = _is_complete(record.values, reports)
        if record.state == TrialState.FINISHED and not complete:
            past.notes.append(f"trial {number}: {len(record.values)} of its {reports} reports are left; it runs again.")
        elif not ended and complete and not _needs_student(trial_folder, number, row["score"], reports, students):
            _finish(record, trial_folder)
            students.add(number, row["score"])
            continue
        elif number == best and _is_lost(trial_folder, experiment):
            past.notes.append(
                f"trial {number}, the best, has lost its student: its checkpoint is damaged or missing; it runs again."
            )
            experiment.delete(trial_folder)
            record.state = TrialState.RUNNING
            record.values = {}
            continue
        elif ended and not (errored and record.state == TrialState.FAILED):
            continue
        record.state = TrialState.RUNNING
        prepare_restart(trial_folder, number, record, past)
    return past


def restored_record(
    values: dict[int, float], settings: Settings, row: Mapping[Any, Any], trial_folder: Path
) -> TrialRecord:
    """Return a trial of an earlier part of the search.

    Args:
        values: its values by report.
        settings: the settings of the search.
        row: its row of `Results.trials`.
        trial_folder: its folder.
    """
    described = TrialDescription.from_json(json_file.read_mapping(trial_folder / layout.TRIAL_CONFIG), "")[0]
    return TrialRecord(
        params=picked(settings, described.config or {}),
        state=str(row["state"]),
        values=values,
        generation=described.generation,
        origin=described.origin or "",
        ended_at=_ended_at(trial_folder / layout.TRIAL_ENDING),
    )


def _finish(record: TrialRecord, trial_folder: Path) -> None:
    """Record the end of a trial whose driver was killed after the last report, before it wrote the end."""
    record.state = TrialState.FINISHED
    record.ended_at = time.time()
    ending = {"state": str(record.state), "reason": "", "time": record.ended_at}
    artifacts.write_json(trial_folder / layout.TRIAL_ENDING, ending)


def _needs_student(trial_folder: Path, number: int, score: float, reports: int, students: KeptStudents) -> bool:
    """Return whether a trial that has made all its reports is among the best and has lost its student."""
    is_saved = (checkpoints.newest(trial_folder) or (None, 0))[1] == reports
    return not is_saved and students.admits(number, score)


def _is_lost(trial_folder: Path, experiment: ExperimentFolder) -> bool:
    """Return whether a finished trial has no whole checkpoint, from which its student could be exported."""
    experiment.download_checkpoint(trial_folder.name)
    return checkpoints.newest(trial_folder) is None


def _ended_at(path: Path) -> float:
    """Return the time when a trial ended, in seconds since the epoch; 0 if it is unknown."""
    try:
        return TrialEnding.from_json(json_file.read_mapping(path), path.name)[0].time or 0.0
    except (OSError, ValueError):
        return 0.0


def _is_complete(values: Mapping[int, float], reports: int) -> bool:
    return sorted(values) == list(range(1, reports + 1)) and all(map(math.isfinite, values.values()))


def prepare_restart(trial_folder: Path, number: int, record: TrialRecord, past: ResumeState) -> None:
    """Restore a trial's folder to the state at its newest checkpoint, or remove the folder if there is none.

    Args:
        trial_folder: the folder.
        number: the number of the trial.
        record: the trial, whose values after the checkpoint are dropped.
        past: receives the checkpoint from which the trial continues, or a note on a damaged one.
    """
    newest = checkpoints.newest(trial_folder)
    had_checkpoint = checkpoints.any_in(trial_folder)
    rows = read_reports(trial_folder / layout.TRIAL_REPORTS)
    if newest is not None:
        checkpoint, report = newest
        rows_to_keep = [rows[index] for index in range(1, report + 1) if index in rows]
        if len(rows_to_keep) == report and (checkpoint / checkpoints.STATE).is_file():
            restart = trial_folder / checkpoints.RESTART
            if checkpoint != restart:
                shutil.rmtree(restart, ignore_errors=True)
                checkpoint.rename(restart)
            for other in trial_folder.glob(layout.CHECKPOINTS):
                shutil.rmtree(other)
            lines = "".join(json.dumps(row) + "\n" for row in rows_to_keep)
            artifacts.write_text(trial_folder / layout.TRIAL_REPORTS, lines)
            (trial_folder / layout.TRIAL_ENDING).unlink(missing_ok=True)
            record.values = {index: value for index, value in record.values.items() if index <= report}
            past.restarts[number] = restart
            return
    if had_checkpoint:
        past.notes.append(f"trial {number}: its checkpoint is damaged; it starts again.")
    shutil.rmtree(trial_folder)
    record.values = {}


def read_reports(path: Path) -> dict[int, dict[str, Any]]:
    """Return the reports in a trial's `reports.jsonl` by index, without damaged lines.

    Args:
        path: the file. If it does not exist, there are no reports.

    Returns:
        Rows by index. If an index is repeated, the last row counts.
    """
    try:
        rows = [row for _, row in json_file.read_rows(path) if row is not None]
    except OSError:
        return {}
    return {row["report"]: row for row in rows if type(row.get("report")) is int}
