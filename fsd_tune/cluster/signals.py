"""The signals that end a verb in an orderly way: Ctrl-C, SIGTERM, and SIGHUP when the terminal is lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def ending_signals() -> list[signal.Signals]:
    """Return the signals that end a verb. SIGHUP is not one of them where it is ignored, as under `nohup`."""
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None] | None = None) -> Iterator[None]:
    """Handle the ending signals during the block, and restore their handlers afterwards.

    Python changes handlers in the main thread only, so in another thread this does nothing.

    Args:
        handler: called with an ending signal; None leaves the handlers to the block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ending_signals()}
    if handler is not None:
        for number in before:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            # None is a handler that was not installed from Python; it cannot be installed again.
            if previous is not None and signal.getsignal(number) is not previous:
                signal.signal(number, previous)


@contextmanager
def hangup_ignored() -> Iterator[None]:
    """Ignore SIGHUP during the block, so that the processes that it starts ignore it for ever.

    A lost terminal sends SIGHUP to Ray's processes, too, which the orderly end of a search still needs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL if before is None else before)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt: the handler of every ending signal."""
    raise KeyboardInterrupt
