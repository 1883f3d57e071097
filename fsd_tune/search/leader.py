"""Finish the best unfinished trial after a time budget. This module does not use Ray."""

import math
from pathlib import Path

from fsd_tune.report.results import load
from fsd_tune.search.resume import ResumeState, prepare_restart, read_reports, restored_record
from fsd_tune.settings.judging import JUDGE_BY
from fsd_tune.settings.loader import Settings
from fsd_tune.storage import checkpoints, layout
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.layout import TrialState


class BestStopped:
    """The stopped trial with the best last value, the only one of the stopped trials that keeps its checkpoint."""

    def __init__(self) -> None:
        self._best: tuple[float, int] | None = None
        self._kept: int | None = None

    def admits(self, number: int, value: float) -> bool:
        """Return whether a trial that is being stopped is better than those before; if so, it takes their place.

        Args:
            number: the number of the trial.
            value: its last value.
        """
        is_better = math.isfinite(value) and (self._best is None or value > self._best[0])
        if is_better:
            self._best = value, number
        return is_better

    def add(self, number: int) -> list[int]:
        """Add a stopped trial.

        Args:
            number: the number of the trial.

        Returns:
            The number of the trial that no longer keeps its checkpoint, which may be this one; empty if there is none.
        """
        if self._best is None or self._best[1] != number:
            return [number]
        dropped = [] if self._kept is None else [self._kept]
        self._kept = number
        return dropped


def reopen_leader(settings: Settings, experiment: ExperimentFolder) -> tuple[int, ResumeState] | None:
    """Prepare the trial with the best last value to continue from its checkpoint, if it has not finished.

    Args:
        settings: the settings of the search.
        experiment: the search's folder, locked by this process; no trial is running.

    Returns:
        The trial's number and all trials, of which it is the only one that is running; None if the best trial has
        finished, or has no whole checkpoint.
    """
    folder = experiment.folder.absolute()
    results = load(folder, judge_by=JUDGE_BY)
    leader = results.recommended
    if leader is None or leader["state"] == TrialState.FINISHED:
        return None
    number = int(leader["number"])
    trial_folder = folder / layout.RESULTS / str(leader["folder"])
    experiment.download_checkpoint(trial_folder.name)
    if not _can_continue(trial_folder):
        return None
    values = results.values()
    past = ResumeState()
    for row in results.trials.to_dict("records"):
        own_folder = folder / layout.RESULTS / str(row["folder"])
        record = restored_record(values.get(int(row["number"]), {}), settings, row, own_folder)
        if record.state == TrialState.RUNNING:
            record.state = TrialState.INTERRUPTED
        past.trials[int(row["number"])] = record
    past.trials[number].state = TrialState.RUNNING
    prepare_restart(trial_folder, number, past.trials[number], past)
    return number, past


def _can_continue(trial_folder: Path) -> bool:
    newest = checkpoints.newest(trial_folder)
    if newest is None or not (newest[0] / checkpoints.STATE).is_file():
        return False
    reports = read_reports(trial_folder / layout.TRIAL_REPORTS)
    return all(report in reports for report in range(1, newest[1] + 1))
