"""The typed summary of a search: what is written is what was read, and what is wrong is named."""

import json
from pathlib import Path

import pytest

from fsd_tune.errors import InputError
from fsd_tune.storage.search_summary import SearchSummary
from tests.helpers.result_folders import summary

OLD_SEARCH = Path(__file__).parents[2] / "data" / "search_of_0_1"


def test_a_summary_of_an_earlier_version_is_written_as_it_was_read(tmp_path: Path) -> None:
    SearchSummary.read(OLD_SEARCH).write(tmp_path)
    before, after = (json.loads((folder / "summary.json").read_text()) for folder in (OLD_SEARCH, tmp_path))
    assert after == before and "a_key_of_later" in after


def test_fields_are_read_as_what_they_are() -> None:
    read, problems = SearchSummary.from_json(
        summary(teacher=None, select_on={"holdout": 0.25}, wall_seconds=3), "summary.json"
    )
    assert problems == []
    assert (read.teacher.score, read.held_out, read.wall_seconds) == (None, 0.25, 3.0)
    assert not read.teacher and read.memory.passes == 1 and read.memory


def test_a_young_summary_has_empty_parts() -> None:
    young = SearchSummary()
    assert not young.memory and young.ended_by.text is None and young.as_json() is None
    with pytest.raises(InputError, match="reports: missing"):
        _ = young.planned_reports


def test_each_value_of_a_wrong_type_is_named_and_the_others_kept() -> None:
    wrong = {"trials": "x", "select_on": {"holdout": "a"}, "teacher": {"name": "t", "score": "b"}, "notes": [1]}
    read, problems = SearchSummary.from_json(summary(**wrong), "summary.json")
    places = [problem.split(": ")[1] for problem in problems]
    assert sorted(places) == ["notes", "select_on", "teacher.score", "trials"]
    assert problems[0] == "summary.json: trials: found `x`, but must be a valid integer."
    assert read.trials is None and read.teacher.name == "t" and read.metric == "accuracy"


@pytest.mark.parametrize("value", [None, "d41d8cd9"])
def test_an_identity_that_an_earlier_version_wrote_as_a_digest_is_unknown(value: object) -> None:
    read, problems = SearchSummary.from_json(summary(identity=value), "summary.json")
    assert read.identity == {} and problems == []


def test_update_and_forget() -> None:
    changed = SearchSummary.from_json(summary(dev={"score": 0.5}), "summary.json")[0]
    changed.update(memory={"passes": 2}, state="failed")
    changed.forget("dev", "notes")
    assert changed.memory.passes == 2 and changed.values("state", "notes") == {"state": "failed", "notes": None}
    assert "dev" not in (changed.as_json() or {}) and not changed.dev


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ValueError):
        SearchSummary.read(tmp_path)
