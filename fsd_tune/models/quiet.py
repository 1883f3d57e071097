"""Silence transformers' progress bars and load reports, for the length of a call or for a worker process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_depth = 0
_previous_logging: tuple[int, bool] = (0, True)


def quiet_transformers() -> None:
    """Silence transformers for the rest of this process; for worker processes, which run nothing else.

    A missing classification head, which its load report warns of, is expected of a pretrained model.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextmanager
def transformers_quiet() -> Iterator[None]:
    """Silence transformers and restore its log level and progress bars at the end. Also a decorator.

    Calls may nest and may overlap in threads: the last one to end restores.

    Example:
        >>> @transformers_quiet()
        ... def read_vocabulary(folder):
        ...     from transformers import AutoTokenizer
        ...     return AutoTokenizer.from_pretrained(folder).get_vocab()
    """
    global _depth, _previous_logging
    from transformers.utils import logging

    with _lock:
        if _depth == 0:
            _previous_logging = (logging.get_verbosity(), logging.is_progress_bar_enabled())
            quiet_transformers()
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                verbosity, progress_bar = _previous_logging
                logging.set_verbosity(verbosity)
                if progress_bar:
                    logging.enable_progress_bar()
