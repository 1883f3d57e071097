"""Restore signal handlers, environment, warnings and log levels, which Ray, Optuna and transformers change."""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from fsd_tune.cluster import signals
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
        stack.enter_context(signals.handled())
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
def _log_levels() -> Iterator[None]:
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def interrupt_flag(interrupted: threading.Event) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and the loss of the terminal set `interrupted`; a second one ends the process at once.

    An ignored SIGHUP (`nohup`) stays ignored.

    Args:
        interrupted: the event to set.
    """

    def set_flag(number: int, frame: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    with signals.handled(set_flag):
        yield
