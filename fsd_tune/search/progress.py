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
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.storage.layout import TrialState

# States of ended trials that can be recommended.
_RECOMMENDED = (TrialState.FINISHED, TrialState.STOPPED)


def came_from(origin: str) -> str:
    """Return where a trial's configuration came from, as the end of a line; empty if the search found it itself.

    Args:
        origin: the trial of an earlier search, or empty text.
    """
    return f"  (from {origin})" if origin else ""


@dataclass(frozen=True)
class Rung:
    """A rung of ASHA and the trials that reached it.

    Attributes:
        report: the report at which ASHA judges.
        values: the values of the trials that reached the rung.
        bar: the value that a trial must reach to continue; NaN while too few trials have reached the rung.
        stopped: the number of trials that ASHA stopped here.
        method: the method whose trials are judged here; empty if those of all methods are.
    """

    report: int
    values: Sequence[float]
    bar: float
    stopped: int
    method: str = ""


@dataclass
class Running:
    """A running trial: its configuration, with its origin, and its last report, which is empty before the first."""

    config: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    report: int = 0
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def step_seconds(self) -> float:
        """The seconds of training per step, without evaluations; NaN before the first report."""
        step = self.row.get("step") or 0
        return float(self.row.get("train_seconds", math.nan)) / step if step else math.nan


@dataclass(frozen=True)
class Leader:
    """The trial with the best last value of all trials that have not failed: what the search recommends so far.

    Attributes:
        value: its last value.
        number: its number.
        report: the report that made the value.
        config: its configuration.
        origin: the trial of an earlier search whose configuration it has; else empty.
    """

    value: float
    number: int
    report: int
    config: Mapping[str, Any]
    origin: str = ""

    @property
    def rank(self) -> tuple[float, int]:
        """The key that orders leaders; among equal values the first trial is the best, as in the results."""
        return self.value, -self.number


class SearchProgress:
    """The progress of a search: a line for each trial that ends, and a summary of all trials.

    Attributes:
        trials: the number of trials that the search will have.
        metric: the metric that is reported.
        reports: the number of reports of a whole trial.
        searched: the hyperparameters that vary; only these are shown of a configuration.
        rungs: a function that returns the state of ASHA's rungs; empty without ASHA.
        cost: a function that returns what a configuration's student costs in words; empty with a single shape.
        counts: the number of ended trials by state.
        running: the running trials by number.
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
        cost: Callable[[Mapping[str, Any]], str] = lambda config: "",
    ) -> None:
        self.trials = trials
        self.metric = metric
        self.reports = reports
        self.searched = searched
        self.rungs = rungs
        self.cost = cost
        self.counts: dict[str, int] = {TrialState.FINISHED: 0, TrialState.STOPPED: 0, TrialState.FAILED: 0}
        self.running: dict[int, Running] = {}
        self.view: RenderableType | None = None
        self._display = display
        self._start_time = time.monotonic()
        self._earlier = 0
        self._best_ended: Leader | None = None

    def add_past(self, trials: Mapping[int, TrialRecord]) -> None:
        """Count the trials of an earlier part of the search.

        Args:
            trials: the trials by number; running trials are not counted.
        """
        for number, trial in sorted(trials.items()):
            if trial.state in self.counts:
                self.counts[trial.state] += 1
            if trial.state in _RECOMMENDED and trial.values:
                report = max(trial.values)
                self._consider(Leader(trial.values[report], number, report, trial.params, trial.origin))
        self._earlier = self.ended_trials

    @property
    def leader(self) -> Leader | None:
        """The trial that the search recommends so far; None before the first report."""
        running = [
            Leader(float(trial.row[self.metric]), number, trial.report, trial.config, trial.origin)
            for number, trial in list(self.running.items())
            if self.metric in trial.row
        ]
        leaders = [each for each in (self._best_ended, *running) if each is not None and math.isfinite(each.value)]
        return max(leaders, key=lambda leader: leader.rank, default=None)

    def _consider(self, ended: Leader) -> None:
        """Keep a trial that has ended if it is the best of them. Its value does not change any more."""
        if math.isfinite(ended.value) and (self._best_ended is None or ended.rank > self._best_ended.rank):
            self._best_ended = ended

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

    def started(self, number: int, config: Mapping[str, Any], origin: str = "") -> None:
        """Record that a trial starts.

        Args:
            number: the number of the trial.
            config: the configuration of the trial.
            origin: the trial of an earlier search whose configuration it has; else empty.
        """
        self.running.setdefault(number, Running(config, origin))
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
        trial = self.running.pop(number, Running())
        config = trial.config
        self.counts[state] += 1
        if score is not None:
            self._consider(Leader(score, number, self.reports, config, trial.origin))
        elif state in _RECOMMENDED and self.metric in trial.row:
            self._consider(Leader(float(trial.row[self.metric]), number, trial.report, config, trial.origin))
        outcome = f"{self.metric} {score:.4f}" if score is not None else reason
        if config and (cost := self.cost(config)):
            outcome = f"{outcome}, {cost}"
        configuration = f"{short(config, self.searched)}{came_from(trial.origin)}"
        self._display.line(f"  trial {number:3d} {state:8s} {outcome}  {configuration}".rstrip())
        self._show(force=self.ended_trials == self.trials)

    def unfinished(self, leader: Leader) -> str:
        """Return how far a leader was trained; empty if it has finished.

        Args:
            leader: the trial.
        """
        return "" if leader.report >= self.reports else f", report {leader.report}/{self.reports}"

    def note(self, text: str) -> None:
        """Show a note on the search as a whole.

        Args:
            text: the note, one line.
        """
        self._display.line(f"  {text}")

    def _show(self, force: bool = False) -> None:
        counts = self.counts
        leader = self.leader
        best = "" if leader is None else f" · best {leader.value:.4f} (trial {leader.number}{self.unfinished(leader)})"
        time_left = f" · about {duration(self.seconds_left)} left" if self.seconds_left > 0 else ""
        self._display.live(
            f"  {self.ended_trials}/{self.trials} trials ended ({counts['finished']} finished, {counts['stopped']} "
            f"stopped, {counts['failed']} failed) · {len(self.running)} running{best}{time_left}",
            force,
            self.view,
        )
