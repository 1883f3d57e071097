"""What a person sees while something runs: plain lines, or one live line on a terminal."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.text import Text

_EVERY_SECONDS = 10.0


def duration(seconds: float) -> str:
    """`75` as `1 min 15 s`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def short(config: Mapping[str, Any], names: list[str] | None = None) -> str:
    """A configuration in one line: `method=fsd_il alpha=0.5 gamma_i=1.23`."""
    chosen = config if names is None else {name: config[name] for name in names if name in config}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in chosen.items()
    )


class Display:
    """Prints lines; on a terminal also keeps one live line below them. Quiet prints nothing, verbose each report."""

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose and not quiet
        # To standard error: standard output is for results (`--json`).
        self.console = Console(file=sys.stderr, highlight=False, emoji=False, soft_wrap=True)
        self._status: Status | None = None
        self._last = 0.0
        self._stage = ""

    def line(self, text: str) -> None:
        """One line that stays."""
        if not self.quiet:
            self.console.print(text, markup=False)

    def live(self, text: str, force: bool = False) -> None:
        """The state of affairs: replaces the live line, or is printed now and then where there is no terminal."""
        if self.quiet:
            return
        if self.console.is_terminal:
            if self._status is None:
                self._status = self.console.status("")
                self._status.start()
            self._status.update(Text(text))
        elif force or time.monotonic() - self._last > _EVERY_SECONDS:
            self._last = time.monotonic()
            self.line(text)

    def close(self) -> None:
        """Remove the live line."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def stage(self, what: str, done: int, total: int) -> None:
        """Progress of a piece of work with known length; a `teacher_outputs.Progress`."""
        new = what != self._stage
        self._stage = what
        share = f"{done}/{total}" if total > 1 else ""
        self.live(f"  {what} {share}".rstrip(), force=new)


class SearchProgress:
    """The trials of a search: a line for each that ends, and a line that says where the search is."""

    def __init__(self, display: Display, trials: int, metric: str, reports: int, searched: list[str]) -> None:
        self._display, self._trials, self._metric, self._reports = display, trials, metric, reports
        self._searched = searched
        self._running: dict[int, int] = {}
        self._configs: dict[int, Mapping[str, Any]] = {}
        self._counts = {"finished": 0, "stopped": 0, "failed": 0}
        self._best: tuple[float, int] | None = None
        self._began = time.monotonic()
        self._earlier = 0

    def past(self, counts: Mapping[str, int], best: tuple[float, int] | None) -> None:
        """Trials of an earlier part of the search."""
        self._counts = {state: int(counts.get(state, 0)) for state in self._counts}
        self._earlier, self._best = sum(self._counts.values()), best

    def started(self, number: int, config: Mapping[str, Any]) -> None:
        """A trial starts."""
        self._running.setdefault(number, 0)
        self._configs[number] = config
        self._show()

    def reported(self, number: int, report: int, value: float) -> None:
        """A trial reported."""
        self._running[number] = report
        if self._display.verbose:
            self._display.line(f"  trial {number:3d} report {report}/{self._reports}: {self._metric} {value:.4f}")
        self._show()

    def ended(self, number: int, state: str, reason: str, score: float | None) -> None:
        """A trial ended."""
        self._running.pop(number, None)
        self._counts[state] += 1
        # Among equals the first trial, as in the results.
        if score is not None and (self._best is None or (score, -number) > (self._best[0], -self._best[1])):
            self._best = (score, number)
        outcome = f"{self._metric} {score:.4f}" if score is not None else reason
        config = self._configs.get(number, {})
        self._display.line(f"  trial {number:3d} {state:8s} {outcome}  {short(config, self._searched)}".rstrip())
        self._show(force=sum(self._counts.values()) == self._trials)

    def note(self, text: str) -> None:
        """Something that happened to the search as a whole."""
        self._display.line(f"  {text}")

    def _show(self, force: bool = False) -> None:
        ended = sum(self._counts.values())
        best = f" · best {self._best[0]:.4f} (trial {self._best[1]})" if self._best else ""
        self._display.live(
            f"  {ended}/{self._trials} trials ended ({self._counts['finished']} finished, {self._counts['stopped']} "
            f"stopped, {self._counts['failed']} failed) · {len(self._running)} running{best}{self._left(ended)}",
            force,
        )

    def _left(self, ended: int) -> str:
        here = ended - self._earlier + sum(self._running.values()) / self._reports
        if ended >= self._trials or ended == self._earlier:
            return ""
        rate = (time.monotonic() - self._began) / here
        return f" · about {duration(rate * (self._trials - self._earlier - here))} left"
