"""What a person sees while something runs: plain lines, and on a terminal something live below them."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
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
    """Prints lines; on a terminal also keeps one live thing below them. Quiet prints nothing, verbose each report."""

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose and not quiet
        # To standard error: standard output is for results (`--json`).
        self.console = Console(file=sys.stderr, highlight=False, emoji=False, soft_wrap=True)
        self._live: Live | None = None
        self._last = 0.0
        self._stage = ""

    def line(self, text: str) -> None:
        """One line that stays."""
        if not self.quiet:
            self.console.print(text, markup=False)

    def live(self, text: str, force: bool = False, view: RenderableType | None = None) -> None:
        """The state of affairs: replaces what was live, or is printed now and then where there is no terminal.

        Args:
            text: the state in one line.
            force: print it even if a line was printed a moment ago.
            view: what a terminal shows instead of the line.
        """
        if self.quiet:
            return
        if self.console.is_terminal:
            shown = Spinner("dots", Text(text)) if view is None else view
            if self._live is None:
                # Transient: an end leaves the lines alone. Twice a second is often enough to see and costs nothing.
                self._live = Live(shown, console=self.console, transient=True, refresh_per_second=2)
                self._live.start(refresh=True)
            self._live.update(shown)
        elif force or time.monotonic() - self._last > _EVERY_SECONDS:
            self._last = time.monotonic()
            self.line(text)

    def close(self) -> None:
        """Remove what is live."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def stage(self, what: str, done: int, total: int) -> None:
        """Progress of a piece of work with known length; a `teacher_outputs.Progress`."""
        new = what != self._stage
        self._stage = what
        share = f"{done}/{total}" if total > 1 else ""
        self.live(f"  {what} {share}".rstrip(), force=new)
