"""What a search changes in a process is as before when it returns."""

import logging
import os
import signal
import warnings

import optuna
from transformers.utils import logging as transformers_logging

from fsd_tune.search.process_state import preserved_process_state


def state():
    return (
        dict(os.environ),
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        list(warnings.filters),
        optuna.logging.get_verbosity(),
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
        logging.getLogger("ray.tune.execution.experiment_state").level,
    )


def test_everything_is_restored(monkeypatch):
    monkeypatch.setenv("FSD_TUNE_TEST", "before")
    before = state()
    with preserved_process_state():
        os.environ["FSD_TUNE_TEST"] = "during"
        os.environ["FSD_TUNE_OTHER"] = "during"
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        warnings.simplefilter("ignore")
        logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
        assert not transformers_logging.is_progress_bar_enabled()
        assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert state() == before
