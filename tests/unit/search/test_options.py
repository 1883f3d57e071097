"""Inputs and options of a search by keyword, and settings in the forms that `run_search` takes."""

import pytest

from fsd_tune.search.options import RunOptions, SearchInputs, as_settings, from_keywords
from fsd_tune.settings import loader


def test_keywords_are_fields_of_inputs_and_options():
    inputs, options = from_keywords(None, None, {"task": "rte", "teacher": "t", "output": "R", "device": "cpu"})
    assert inputs == SearchInputs("rte", "t", "R") and options == RunOptions(device="cpu")


def test_keywords_replace_single_fields():
    inputs, options = from_keywords(SearchInputs("rte", "t", "R"), RunOptions(errored=True), {"output": "S"})
    assert inputs == SearchInputs("rte", "t", "S") and options == RunOptions(errored=True)


@pytest.mark.parametrize("keywords", [{"task": "rte"}, {"task": "rte", "teacher": "t", "output": "R", "worker": 1}])
def test_missing_and_unknown_keywords_are_type_errors(keywords):
    with pytest.raises(TypeError):
        from_keywords(None, None, keywords)


def test_settings_come_from_a_file_or_are_taken_as_they_are(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("method: kd\nspace: {alpha: 0.5, temperature: 5}\n", encoding="utf-8")
    settings = loader.load(path)
    assert as_settings(settings) is settings
    assert as_settings(path) == as_settings(str(path)) == settings
