"""Show progress to the user: plain lines, and on a terminal a live display below them.

Lines also go to the logger `fsd_tune`, to which a program or notebook can add a handler.
"""

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

_EVERY_SECONDS = 10.0
_logger = logging.getLogger("fsd_tune")


def duration(seconds: float) -> str:
    """Return a duration in words, such as `1 min 15 s`.

    Args:
        seconds: the duration in seconds, rounded to whole seconds.
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def short(config: Mapping[str, Any], names: list[str] | None = None) -> str:
    """Return a configuration in one line, such as `method=fsd_il alpha=0.5 gamma_i=1.23`.

    Args:
        config: values by hyperparameter.
        names: the hyperparameters to show, in this order; None shows all.
    """
    chosen = config if names is None else {name: config[name] for name in names if name in config}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in chosen.items()
    )


class Display:
    """A display that prints lines to standard error and, on a terminal, one live display below them.

    Args:
        quiet: print nothing; lines still go to the logger `fsd_tune` at level INFO.
        verbose: also print each report.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose and not quiet
        # Standard output is for results (`--json`).
        self.console = Console(file=sys.stderr, highlight=False, emoji=False, soft_wrap=True)
        self._live: Live | None = None
        self._last = 0.0
        self._stage = ""

    def line(self, text: str) -> None:
        """Print a line that stays, and log it.

        Args:
            text: the line. Markup in it is not interpreted.
        """
        _logger.info("%s", text)
        if not self.quiet:
            self.console.print(text, markup=False)

    def live(self, text: str, force: bool = False, view: RenderableType | None = None) -> None:
        """Show the current state; without a terminal, print it as a line at most every ten seconds.

        Args:
            text: the state in one line.
            force: print the line even if the last one is less than ten seconds old.
            view: shown on a terminal instead of the line.
        """
        if self.quiet:
            return
        if self.console.is_terminal:
            renderable = Spinner("dots", Text(text)) if view is None else view
            if self._live is None:
                # Transient, so that only the lines remain at the end.
                self._live = Live(renderable, console=self.console, transient=True, refresh_per_second=2)
                self._live.start(refresh=True)
            self._live.update(renderable)
        elif force or time.monotonic() - self._last > _EVERY_SECONDS:
            self._last = time.monotonic()
            self.line(text)

    def close(self) -> None:
        """Remove the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def stage(self, what: str, done: int, total: int) -> None:
        """Show the progress of a piece of work; a `teacher_outputs.Progress`.

        Args:
            what: the name of the work.
            done: the number of finished steps.
            total: the number of all steps; 1 shows no count.
        """
        is_new = what != self._stage
        self._stage = what
        count = f"{done}/{total}" if total > 1 else ""
        self.live(f"  {what} {count}".rstrip(), force=is_new)
