"""Names of the files in a search's folder, and the states of a trial."""

from enum import StrEnum

SUMMARY = "summary.json"
SETTINGS = "settings.yaml"
COMMAND = "command.txt"
VERSIONS = "versions.json"
WARM_START = "warm_start.json"
STUDY = "study.db"
LEADERBOARD = "leaderboard.csv"
REPORT = "report.html"
LOCK = ".lock"
# Folders.
RESULTS = "results"
BEST = "best"
# In `best`: the students of all members of the front.
FRONT = "front"
MEMORY = "memory"
WANDB = "wandb"
CONFIRM = "confirm"
ANALYSIS = "analysis"
# In a trial's folder, `results/trial_...`.
TRIAL_CONFIG = "config.json"
TRIAL_REPORTS = "reports.jsonl"
TRIAL_ENDING = "trial.json"
CHECKPOINTS = "checkpoint_*"


class TrialState(StrEnum):
    """The state of a trial, with the values that files and tables contain."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        """Return whether the trial has ended, so that it will not report again."""
        return self in (TrialState.FINISHED, TrialState.STOPPED, TrialState.FAILED)
