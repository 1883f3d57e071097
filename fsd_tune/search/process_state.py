"""Restore signal handlers, environment, warnings and log levels, which Ray, Optuna and transformers change."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from fsd_tune.models.quiet import transformers_quiet
from fsd_tune.search.study import quiet_optuna

_LOGGERS = ("ray", "ray.tune", "ray.tune.execution.experiment_state")


@contextmanager
def preserved_process_state() -> Iterator[None]:
    """Silence the libraries of a search for the duration of the block, and restore the process afterwards."""
    with ExitStack() as stack:
        stack.enter_context(transformers_quiet())
        stack.enter_context(_log_levels())
        stack.enter_context(_environment())
        stack.enter_context(_signal_handlers())
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(quiet_optuna())
        yield


@contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _signal_handlers() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            # `getsignal` returns None for a handler that was not set from Python; it cannot be restored.
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def _log_levels() -> Iterator[None]:
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def interrupt_flag(interrupted: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM set `interrupted`; a second one ends the process at once.

    Python runs signal handlers in the main thread only, so in another thread this does nothing.

    Args:
        interrupted: the event to set.
    """

    def set_flag(number: int, frame: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, set_flag) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
