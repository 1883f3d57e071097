"""transformers is quiet inside a call and as before after it."""

import pytest
from transformers.utils import logging

from fsd_tune.models.quiet import transformers_quiet


@pytest.fixture
def loud():
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    yield
    logging.set_verbosity(before[0])
    if not before[1]:
        logging.disable_progress_bar()


def state():
    return logging.get_verbosity(), logging.is_progress_bar_enabled()


QUIET = (logging.ERROR, False)


def test_the_state_is_restored_after_an_error_and_after_nested_calls(loud):
    loud_state = state()
    assert loud_state == (logging.INFO, True)

    @transformers_quiet()
    def inner():
        assert state() == QUIET
        raise KeyError

    with transformers_quiet():
        with pytest.raises(KeyError):
            inner()
        assert state() == QUIET, "the outer call is still running"
    assert state() == loud_state


def test_a_user_who_turned_progress_bars_off_finds_them_off(loud):
    logging.disable_progress_bar()
    with transformers_quiet():
        pass
    assert state() == (logging.INFO, False)
