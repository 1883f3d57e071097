"""The progress of a search: its running and ended trials, the best trial, and the time that is left.

The driver updates it as trials start, report and end. It appears as lines, and on a terminal as `live.View`.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import RenderableType

from fsd_tune.progress import Display, duration, short
from fsd_tune.search.trial_record import TrialRecord, final_score
from fsd_tune.storage.layout import TrialState


@dataclass(frozen=True)
class Rung:
    """A rung of ASHA and the trials that reached it.

    Attributes:
        report: the report at which ASHA judges.
        values: the values of the trials that reached the rung.
        bar: the value that a trial must reach to continue; NaN while too few trials have reached the rung.
        stopped: the number of trials that ASHA stopped here.
    """

    report: int
    values: Sequence[float]
    bar: float
    stopped: int


@dataclass
class Running:
    """A running trial: its configuration and its last report, which is empty before the first."""

    config: Mapping[str, Any] = field(default_factory=dict)
    report: int = 0
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def step_seconds(self) -> float:
        """The seconds of training per step, without evaluations; NaN before the first report."""
        step = self.row.get("step") or 0
        return float(self.row.get("train_seconds", math.nan)) / step if step else math.nan


class SearchProgress:
    """The progress of a search: a line for each trial that ends, and a summary of all trials.

    Attributes:
        trials: the number of trials that the search will have.
        metric: the metric that is reported.
        reports: the number of reports of a whole trial.
        searched: the hyperparameters that vary; only these are shown of a configuration.
        rungs: a function that returns the state of ASHA's rungs; empty without ASHA.
        counts: the number of ended trials by state.
        running: the running trials by number.
        best: score, number and configuration of the best finished trial; None before there is one.
        view: a renderable that a terminal shows instead of the summary line; None for the line.
    """

    def __init__(
        self,
        display: Display,
        trials: int,
        metric: str,
        reports: int,
        searched: list[str],
        rungs: Callable[[], Sequence[Rung]] = tuple,
    ) -> None:
        self.trials = trials
        self.metric = metric
        self.reports = reports
        self.searched = searched
        self.rungs = rungs
        self.counts: dict[str, int] = {TrialState.FINISHED: 0, TrialState.STOPPED: 0, TrialState.FAILED: 0}
        self.running: dict[int, Running] = {}
        self.best: tuple[float, int, Mapping[str, Any]] | None = None
        self.view: RenderableType | None = None
        self._display = display
        self._start_time = time.monotonic()
        self._earlier = 0

    def add_past(self, trials: Mapping[int, TrialRecord], judge_by: str) -> None:
        """Count the trials of an earlier part of the search.

        Args:
            trials: the trials by number; running trials are not counted.
            judge_by: `search.judge_by` of the settings.
        """
        for number, trial in sorted(trials.items()):
            if trial.state in self.counts:
                self.counts[trial.state] += 1
            score = final_score(trial, judge_by)
            if score is not None and (self.best is None or score > self.best[0]):
                self.best = (score, number, trial.params)
        self._earlier = self.ended_trials

    @property
    def ended_trials(self) -> int:
        """The number of trials that have ended, in any state."""
        return sum(self.counts.values())

    @property
    def seconds(self) -> float:
        """The seconds since this part of the search began."""
        return time.monotonic() - self._start_time

    @property
    def seconds_left(self) -> float:
        """The seconds that are left at the pace so far; NaN before a trial of this part has ended, 0 at the end."""
        if self.ended_trials >= self.trials:
            return 0.0
        if self.ended_trials == self._earlier:
            return math.nan
        running_parts = sum(trial.report for trial in list(self.running.values())) / self.reports
        completed = self.ended_trials - self._earlier + running_parts
        return self.seconds / completed * (self.trials - self._earlier - completed)

    def started(self, number: int, config: Mapping[str, Any]) -> None:
        """Record that a trial starts.

        Args:
            number: the number of the trial.
            config: the configuration of the trial.
        """
        self.running.setdefault(number, Running(config))
        self._show()

    def reported(self, number: int, row: Mapping[str, Any]) -> None:
        """Record a report of a trial.

        Args:
            number: the number of the trial.
            row: the report, as in the trial's `reports.jsonl`.
        """
        trial = self.running[number]
        trial.report = row["report"]
        trial.row = row
        if self._display.verbose:
            self._display.line(
                f"  trial {number:3d} report {row['report']}/{self.reports}: {self.metric} {row[self.metric]:.4f}"
            )
        self._show()

    def ended(self, number: int, state: str, reason: str, score: float | None) -> None:
        """Record that a trial ended.

        Args:
            number: the number of the trial.
            state: finished, stopped or failed.
            reason: the reason why it stopped or failed.
            score: the score of a finished trial; None for other states.
        """
        config = self.running.pop(number, Running()).config
        self.counts[state] += 1
        # Among trials with equal scores the first is the best, as in the results.
        if score is not None and (self.best is None or (score, -number) > (self.best[0], -self.best[1])):
            self.best = (score, number, config)
        outcome = f"{self.metric} {score:.4f}" if score is not None else reason
        self._display.line(f"  trial {number:3d} {state:8s} {outcome}  {short(config, self.searched)}".rstrip())
        self._show(force=self.ended_trials == self.trials)

    def note(self, text: str) -> None:
        """Show a note on the search as a whole.

        Args:
            text: the note, one line.
        """
        self._display.line(f"  {text}")

    def _show(self, force: bool = False) -> None:
        counts = self.counts
        best = f" · best {self.best[0]:.4f} (trial {self.best[1]})" if self.best else ""
        time_left = f" · about {duration(self.seconds_left)} left" if self.seconds_left > 0 else ""
        self._display.live(
            f"  {self.ended_trials}/{self.trials} trials ended ({counts['finished']} finished, {counts['stopped']} "
            f"stopped, {counts['failed']} failed) · {len(self.running)} running{best}{time_left}",
            force,
            self.view,
        )
