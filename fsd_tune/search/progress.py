"""Where a search is: told by the driver as trials start, report and end; said in lines, and drawn by `live`."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from fsd_tune.progress import Display, duration, short
from fsd_tune.search.live import View


@dataclass(frozen=True)
class Rung:
    """What ASHA has judged at one report.

    Attributes:
        report: the report at which it judges.
        values: of the trials that came there.
        bar: what a trial must reach to go on; NaN while too few have come.
        stopped: how many were stopped there.
    """

    report: int
    values: Sequence[float]
    bar: float
    stopped: int


@dataclass
class Running:
    """A trial at work: its configuration and its last report, none of it before the first."""

    config: Mapping[str, Any] = field(default_factory=dict)
    report: int = 0
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def step_seconds(self) -> float:
        """Seconds of training a step, evaluations left out; NaN before its first report."""
        step = self.row.get("step") or 0
        return float(self.row.get("train_seconds", math.nan)) / step if step else math.nan


class SearchProgress:
    """The trials of a search: a line for each that ends, and where the search is.

    Attributes:
        trials, reports: of the search, and of a trial.
        metric: what is reported.
        searched: hyperparameters that vary, named with a configuration.
        counts: trials by the state that they ended in.
        running: trials at work, by number.
        best: score, number and configuration of the best finished trial; None before there is one.
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
        self.trials, self.metric, self.reports, self.searched, self.rungs = trials, metric, reports, searched, rungs
        self.counts = {"finished": 0, "stopped": 0, "failed": 0}
        self.running: dict[int, Running] = {}
        self.best: tuple[float, int, Mapping[str, Any]] | None = None
        self._display, self._view = display, View(self)
        self._began = time.monotonic()
        self._earlier = 0

    def past(self, counts: Mapping[str, int], best: "pd.Series[Any] | None") -> None:
        """Trials of an earlier part of the search; `best` is a row of `Results.trials`."""
        self.counts = {state: int(counts.get(state, 0)) for state in self.counts}
        self._earlier = self.ended_trials
        if best is not None:
            config = {str(name): value for name, value in best.items() if name in self.searched and not pd.isna(value)}
            self.best = (float(best["score"]), int(best["number"]), config)

    @property
    def ended_trials(self) -> int:
        """Trials that have ended, in whatever state."""
        return sum(self.counts.values())

    @property
    def seconds(self) -> float:
        """Since this part of the search began."""
        return time.monotonic() - self._began

    @property
    def seconds_left(self) -> float:
        """What is left at the pace so far; NaN before a trial of this part has ended, 0 at the end."""
        if self.ended_trials >= self.trials:
            return 0.0
        if self.ended_trials == self._earlier:
            return math.nan
        parts = sum(trial.report for trial in list(self.running.values())) / self.reports
        here = self.ended_trials - self._earlier + parts
        return self.seconds / here * (self.trials - self._earlier - here)

    def started(self, number: int, config: Mapping[str, Any]) -> None:
        """A trial starts."""
        self.running.setdefault(number, Running(config))
        self._show()

    def reported(self, number: int, row: Mapping[str, Any]) -> None:
        """A trial reported; `row` as it stands in its `reports.jsonl`."""
        trial = self.running[number]
        trial.report, trial.row = row["report"], row
        if self._display.verbose:
            self._display.line(
                f"  trial {number:3d} report {row['report']}/{self.reports}: {self.metric} {row[self.metric]:.4f}"
            )
        self._show()

    def ended(self, number: int, state: str, reason: str, score: float | None) -> None:
        """A trial ended."""
        config = self.running.pop(number, Running()).config
        self.counts[state] += 1
        # Among equals the first trial, as in the results.
        if score is not None and (self.best is None or (score, -number) > (self.best[0], -self.best[1])):
            self.best = (score, number, config)
        outcome = f"{self.metric} {score:.4f}" if score is not None else reason
        self._display.line(f"  trial {number:3d} {state:8s} {outcome}  {short(config, self.searched)}".rstrip())
        self._show(force=self.ended_trials == self.trials)

    def note(self, text: str) -> None:
        """Something that happened to the search as a whole."""
        self._display.line(f"  {text}")

    def _show(self, force: bool = False) -> None:
        counts = self.counts
        best = f" · best {self.best[0]:.4f} (trial {self.best[1]})" if self.best else ""
        left = f" · about {duration(self.seconds_left)} left" if self.seconds_left > 0 else ""
        self._display.live(
            f"  {self.ended_trials}/{self.trials} trials ended ({counts['finished']} finished, {counts['stopped']} "
            f"stopped, {counts['failed']} failed) · {len(self.running)} running{best}{left}",
            force,
            self._view,
        )
