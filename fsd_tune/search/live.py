"""The live view of a search on a terminal: trials by state, the best trial, ASHA's rungs, workers and time left."""

import math
import time
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fsd_tune.progress import duration, short
from fsd_tune.search.progress import Rung, SearchProgress, came_from

# A terminal is often only 24 lines high.
_MOST_WORKERS = 8
_MOST_RUNGS = 9
_MISSING = "–"


class View:
    """A Rich renderable of the state of a search. Each refresh draws it again, so clocks advance between reports.

    Rich draws in its own thread while the driver changes the state, so copy collections before iterating.

    Args:
        search: the progress to draw.
    """

    def __init__(self, search: SearchProgress) -> None:
        self._search = search

    def __rich__(self) -> RenderableType:
        return Group(*self._parts())

    def _parts(self) -> Iterator[RenderableType]:
        search = self._search
        yield self._headline()
        leader = search.leader
        if leader is not None:
            cost = search.cost(leader.config)
            trial = f"trial {leader.number}{search.unfinished(leader)}{cost and f', {cost}'}"
            configuration = f"{short(leader.config, search.searched)}{came_from(leader.origin)}"
            yield _clipped(f"best    {search.metric} {leader.value:.4f} · {trial}  {configuration}", "bold green")
        else:
            yield _clipped("best    no trial has reported yet", "dim")
        rungs = search.rungs()
        if any(rung.values for rung in rungs):
            yield self._rung_table(rungs)
        if search.running:
            yield self._workers()

    def _headline(self) -> RenderableType:
        search = self._search
        reports = sum(trial.report for trial in list(search.running.values())) / search.reports
        counts = " · ".join(f"{count} {state}" for state, count in search.counts.items() if count or state != "failed")
        seconds_left = search.seconds_left
        end = ""
        if seconds_left > 0:
            end_time = time.strftime("%H:%M", time.localtime(time.time() + seconds_left))
            end = f" · {duration(seconds_left)} left, until {end_time}"
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            Text("trials "),
            ProgressBar(total=search.trials, completed=search.ended_trials + reports, width=10),
            _clipped(
                f"{search.ended_trials}/{search.trials} ended: {counts} · {len(search.running)} running · "
                f"{duration(search.seconds)}{end}"
            ),
        )
        return grid

    def _rung_table(self, rungs: Sequence[Rung]) -> RenderableType:
        table = _table("ASHA, report", "reached", "stopped", "best", "must reach")
        if len(rungs) > _MOST_RUNGS:
            rungs = [rung for rung in rungs if rung.values]
        for rung in rungs[:_MOST_RUNGS]:
            best = max(rung.values, default=math.nan)
            table.add_row(
                f"{rung.method} {rung.report}/{self._search.reports}".lstrip(),
                str(len(rung.values)),
                str(rung.stopped),
                _number(best),
                _number(rung.bar),
            )
        hidden_count = len(rungs) - _MOST_RUNGS
        if hidden_count > 0:
            table.add_row(f"{hidden_count} more", *[""] * 4)
        return table

    def _workers(self) -> RenderableType:
        search = self._search
        table = _table("running", "worker", "report", "step", "s/step", search.metric.replace("_", " "))
        running = list(search.running.items())
        for number, trial in running[:_MOST_WORKERS]:
            row = trial.row
            worker = f"{row['hostname']}:{row['pid']}" if "hostname" in row and "pid" in row else _MISSING
            table.add_row(
                f"trial {number}",
                worker,
                f"{trial.report}/{search.reports}",
                f"{row['step']:,}/{row['steps_total']:,}" if "steps_total" in row else _MISSING,
                _number(trial.step_seconds, 3),
                _number(float(row.get(search.metric, math.nan))),
            )
        hidden_count = len(running) - _MOST_WORKERS
        if hidden_count > 0:
            table.add_row(f"{hidden_count} more", *[""] * 5)
        return table


def _table(*names: str) -> Table:
    """Return an empty table without borders, with numbers aligned to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for index, name in enumerate(names):
        table.add_column(Text(name), justify="left" if index == 0 or name == "worker" else "right", no_wrap=True)
    return table


def _clipped(text: str, style: str = "") -> Text:
    """Return text that is cut at the width of the terminal instead of wrapped."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else _MISSING
