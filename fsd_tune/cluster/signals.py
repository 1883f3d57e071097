"""The signals that end a verb in an orderly way: Ctrl-C, SIGTERM, and SIGHUP when the terminal is lost."""

import functools
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
def out_of_reach() -> Iterator[None]:
    """Keep signals of this process's group from the processes that `ray.init` starts in the block.

    A lost terminal, `timeout` and schedulers send SIGHUP or SIGTERM to the whole group. An orderly end of a search
    still needs Ray's processes. They start in groups of their own and ignore SIGHUP.
    """
    from ray._private import services, utils

    popen = services.ConsolePopen
    # Elsewhere Ray ends its processes by their group.
    if utils.detect_fate_sharing_support():
        services.ConsolePopen = functools.partial(popen, process_group=0)
    try:
        with _hangup_ignored():
            yield
    finally:
        services.ConsolePopen = popen


@contextmanager
def _hangup_ignored() -> Iterator[None]:
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
