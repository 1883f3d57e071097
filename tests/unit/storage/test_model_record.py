"""The record in a model's folder is read in one place, whatever a file holds."""

import json

import pytest

from fsd_tune.storage.model_record import ModelRecord


def write(folder, content):
    (folder / "fsd_tune.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return ModelRecord.read(folder)


def test_what_was_written_is_read_back_with_keys_of_other_versions(tmp_path):
    content = {"task": "rte", "score": 0.5, "config": {"method": "kd"}, "of_a_later_version": [1, {"a": None}]}
    record = write(tmp_path, content)
    assert (record.task, record.score, record.base, record.config) == ("rte", 0.5, None, {"method": "kd"})
    assert record.as_json() == content


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "3", '{"task": '])
def test_a_damaged_record_is_an_empty_one(tmp_path, content):
    assert write(tmp_path, content).as_json() == {}


def test_a_value_of_a_wrong_type_counts_as_missing(tmp_path):
    record = write(tmp_path, {"task": 3, "holdout": "0.1", "max_length": True, "base": "bert-base-uncased"})
    assert (record.task, record.holdout, record.max_length, record.base) == (None, None, None, "bert-base-uncased")


def test_a_model_from_elsewhere_has_none(tmp_path):
    assert ModelRecord.read(tmp_path) == ModelRecord.read("some/name") == ModelRecord()
