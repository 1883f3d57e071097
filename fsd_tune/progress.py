"""Show progress to the user: plain lines, and on a terminal a live display below them.

Lines also go to the logger `fsd_tune`, to which a program or notebook can add a handler.
"""

import io
import logging
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import IO, Any, TextIO, cast

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
        names: the hyperparameters to show, in this order; None shows all. A value of None is never shown.
    """
    chosen = config if names is None else {name: config[name] for name in names if name in config}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in chosen.items()
        if value is not None
    )


class PatientStream(io.TextIOBase):
    """A text stream that falls silent when it cannot be written any more, because its reader or terminal has gone.

    Args:
        stream: the stream; None if it is closed.
        accepted: the numbers of the errors after which it falls silent; None for all of them.
    """

    def __init__(self, stream: TextIO | None, accepted: Collection[int] | None = None) -> None:
        self._stream = stream
        self._accepted = accepted
        self._lost = stream is None

    @classmethod
    def around(cls, stream: Any, accepted: Collection[int] | None = None) -> IO[str]:
        """Return the stream if it is a `PatientStream` already, else a new one around it."""
        return cast(IO[str], stream if isinstance(stream, cls) else cls(stream, accepted))

    def _try(self, work: Callable[[TextIO], object]) -> None:
        if self._lost or self._stream is None:
            return
        try:
            work(self._stream)
        except OSError as error:
            # Python flushes once more at its end, and must not fail a second time.
            self._lost = True
            if self._accepted is not None and error.errno not in self._accepted:
                raise
        except ValueError:
            if not self._stream.closed:
                raise
            self._lost = True

    def write(self, text: str, /) -> int:
        """Write text; do nothing after a failure."""
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream; do nothing after a failure."""
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Return whether the stream is a terminal that has not gone."""
        return not self._lost and self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the number of the file behind the stream."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What the stream does with characters that its encoding lacks."""
        return getattr(self._stream, "errors", None) or "strict"

    @property
    def buffer(self) -> Any:
        """The binary stream behind this one."""
        return getattr(self._stream, "buffer", None)


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
        self.console = Console(file=PatientStream.around(sys.stderr), highlight=False, emoji=False, soft_wrap=True)
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
