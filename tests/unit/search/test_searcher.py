"""The searcher driven by hand, as Tune's controller drives it; no Ray is started."""

import copy
import math
import pickle

import optuna
import pytest

from fsd_tune.search.asha import ResumableAsha
from fsd_tune.search.searcher import StudySearcher, state_at_end
from fsd_tune.search.study import SearchStudy
from fsd_tune.settings import loader

SPACE = "method: kd\nspace: {alpha: {low: 0, high: 1}, temperature: 5}\nsearch: {trials: 8}\n"


@pytest.mark.parametrize(
    ("result", "error", "expected"),
    [
        ({"report": 4, "accuracy": 0.5}, False, "finished"),
        ({"report": 3, "accuracy": 0.5}, False, "stopped"),
        ({"report": 4, "accuracy": math.nan, "diverged": "accuracy is nan"}, False, "failed"),
        ({"report": 2, "accuracy": 0.5}, True, "failed"),
        ({}, False, "failed"),
        (None, False, "failed"),
        ({"trial_id": "x"}, False, "failed"),
    ],
)
def test_how_a_trial_ended(result, error, expected):
    assert state_at_end(result, error, 4) == expected


@pytest.fixture
def searcher(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE, encoding="utf-8")
    record = SearchStudy(loader.load(path), tmp_path / "study.db", "search", {})
    return StudySearcher(record, "accuracy", 3, workers=5)


def test_the_searcher_tells_the_record_the_truth(searcher, tmp_path):
    """As Tune calls it: the report that ends a trial arrives with its completion alone."""
    outcomes = {
        "finished": ([0.5, 0.6, 0.7], {}, False),
        "stopped": ([0.4, 0.3], {}, False),
        "diverged": ([0.5, math.nan], {"diverged": "accuracy is nan"}, False),
        "crashed": ([0.5], {}, True),
        "silent": ([], {}, False),
    }
    suggested = {name: searcher.suggest(name) for name in outcomes}
    assert [suggestion["trial"] for suggestion in suggested.values()] == [0, 1, 2, 3, 4]
    assert suggested["finished"]["config"]["method"] == "kd"
    for name, (values, extra, error) in outcomes.items():
        results = [{"report": report, "accuracy": value} for report, value in enumerate(values, start=1)]
        for result in results if error else results[:-1]:
            searcher.on_trial_result(name, result)
        last = results[-1] | extra if results else {}
        searcher.on_trial_complete(name, **({"error": True} if error else {"result": last}))
    trials = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 'study.db'}").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL"]
    assert [trial.intermediate_values for trial in trials] == [
        {1: 0.5, 2: 0.6, 3: 0.7}, {1: 0.4, 2: 0.3}, {1: 0.5}, {1: 0.5}, {},
    ]  # fmt: skip
    assert trials[0].value == pytest.approx(0.7)
    assert {n: trial.params["alpha"] for n, trial in enumerate(trials)} == {
        suggestion["trial"]: suggestion["config"]["alpha"] for suggestion in suggested.values()
    }


def test_metric_and_mode_may_be_said_again(searcher):
    assert searcher.set_search_properties("accuracy", "max", {}) is True
    assert searcher.metric == "accuracy" and searcher.mode == "max"


def test_copies_are_the_same_object_and_snapshots_are_empty(searcher, tmp_path):
    asha = ResumableAsha("accuracy", 9, 1, 3, {})
    for thing in (searcher, asha):
        assert copy.deepcopy(thing) is thing
        assert copy.deepcopy({"a": [thing]})["a"][0] is thing
        assert vars(pickle.loads(pickle.dumps(thing))) == {}
    searcher.save(str(tmp_path / "searcher"))
    searcher.restore(str(tmp_path / "searcher"))
    assert not (tmp_path / "searcher").exists()
    assert searcher.suggest("a")["trial"] == 0


def test_fewer_trials_at_a_time_after_a_gpu_ran_out_of_memory(searcher):
    for name in "abc":
        assert searcher.suggest(name) is not None
    assert searcher.back_off() == 2, "three were running"
    assert searcher.suggest("d") is None
    for name in "ab":
        searcher.on_trial_complete(name, {"report": 3, "accuracy": 0.5})
    assert searcher.suggest("d") is not None
    assert searcher.suggest("e") is None
    assert searcher.back_off() == 1 and searcher.back_off() is None
