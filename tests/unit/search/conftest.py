"""Fixtures for the study of a search, its samplers, grids and budgets."""

import pytest

from fsd_tune.search.study import SearchStudy
from tests.helpers.studies import KD


@pytest.fixture
def load(settings_from_yaml):
    """Settings of a YAML text, by default `KD`, and flags."""
    return lambda text=KD, *flags: settings_from_yaml(text, *flags)


@pytest.fixture
def make(tmp_path):
    """Records, each in its own file below `tmp_path`."""

    def record(settings, name="search", past=None, file="study.db"):
        return SearchStudy(settings, tmp_path / file, name, past or {})

    return record
