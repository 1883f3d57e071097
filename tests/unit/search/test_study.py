"""The study of a search: what it records is what happened, whoever asks and however often it was interrupted."""

import copy
import datetime
import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from fsd_tune.search.study import SearchStudy
from fsd_tune.search.trial_record import TrialRecord, final_score, frozen_trial
from fsd_tune.search.trial_shapes import TrialShapes
from fsd_tune.settings.configuration import distributions
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.shape_costs import ShapesSummary
from tests.helpers.result_folders import shapes
from tests.helpers.studies import FIXED, KD, METHODS, SHAPES, play, quality, stored


def test_the_record_says_what_happened(load, make, tmp_path):
    record = make(load())
    for values, state in (
        ([0.5, 0.6, 0.7, 0.9], "finished"),
        ([0.5, 0.4], "stopped"),
        ([0.5, math.nan], "failed"),
        ([], "failed"),
    ):
        number, _ = record.ask()
        for report, value in enumerate(values, start=1):
            record.report(number, report, value)
        record.tell(number, state)
    trials = stored(tmp_path / "study.db")
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL,
    ]  # fmt: skip
    assert trials[0].value == 0.9
    assert trials[1].value == 0.4
    assert [trial.intermediate_values for trial in trials] == [
        {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.9},
        {1: 0.5, 2: 0.4},
        {1: 0.5},
        {},
    ]
    assert all(set(trial.params) == set(distributions(load())) for trial in trials)


def test_the_costs_of_a_trial_are_its_user_attributes(tmp_path):
    """Of trials that this part of the search runs, and of those of an earlier one."""
    space = {"method": "kd", "student": {"layers": {"choice": [2, 3]}}, "space": {"alpha": {"low": 0, "high": 1}}}
    settings = Settings.from_dict(space)
    summary = ShapesSummary.model_validate(shapes({(2, None): 1.0, (3, None): 2.0}))
    past = {0: TrialRecord({"layers": 3, "alpha": 0.5}, "finished", {1: 0.5})}
    study = SearchStudy(settings, tmp_path / "s.db", "s", past, shapes=TrialShapes(settings, summary))
    number, config = study.ask() or (None, {})
    trials = stored(tmp_path / "s.db", "s")
    for trial, layers in ((trials[0], 3), (trials[1], config["layers"])):
        cost = summary.of(layers, None)
        assert cost is not None and trial.user_attrs == cost.costs
    assert number == 1
    study.close()


def test_reports_arrive_while_a_trial_runs_and_may_be_repeated(load, make, tmp_path):
    record = make(load())
    number, _ = record.ask()
    record.report(number, 1, 0.5)
    record.report(number, 2, 0.6)
    running = stored(tmp_path / "study.db")[0]
    assert running.state == TrialState.RUNNING and running.intermediate_values == {1: 0.5, 2: 0.6}
    for report in (2, 3, 4):  # its worker died after report 2: it begins again at its checkpoint
        record.report(number, report, 0.6)
    record.tell(number, "finished")
    assert stored(tmp_path / "study.db")[0].intermediate_values == {1: 0.5, 2: 0.6, 3: 0.6, 4: 0.6}


def test_nothing_is_left_running_when_a_search_stops(load, make, tmp_path):
    record = make(load())
    first, second = record.ask()[0], record.ask()[0]
    record.report(first, 1, 0.5)
    record.tell(first, "finished")
    record.report(second, 1, 0.4)
    record.close()
    ended, broken_off = stored(tmp_path / "study.db")
    assert ended.state == TrialState.COMPLETE and ended.user_attrs == {}
    assert broken_off.state == TrialState.FAIL and broken_off.user_attrs == {"interrupted": True}
    assert broken_off.intermediate_values == {1: 0.4}
    assert make(load(), past=record.trials, file="again.db").ask()[0] == second, "a resumed search goes on with it"


def test_many_past_trials_are_stored_as_optuna_stores_one_by_one(load, make, tmp_path):
    past = {
        0: TrialRecord({"alpha": 0.5, "temperature": 2.0, "learning_rate": 1e-4, "batch_size": 32}, "finished"),
        1: TrialRecord({"alpha": 0.25, "temperature": 3.0, "learning_rate": 1e-5, "batch_size": 16}, "stopped"),
        2: TrialRecord({"alpha": 1.0, "temperature": 1.0, "learning_rate": 1e-3, "batch_size": 16}, "failed"),
        4: TrialRecord({}, "running"),
    }
    past[0].values = {1: 0.5, 2: 0.25, 3: 1.0, 4: 0.1}
    past[1].values = {1: 0.5}
    past[2].values = {1: 0.5, 2: math.nan, 3: math.inf}
    bulk = make(load(), past=past)
    one_by_one = optuna.create_study(study_name="slow", storage=f"sqlite:///{tmp_path}/slow.db", direction="maximize")
    for number in range(5):
        if number in (3, 4):
            one_by_one.enqueue_trial({})
        else:
            score = final_score(past[number])
            one_by_one.add_trial(frozen_trial(past[number], score, past[number].state, distributions(load())))
    expected, found = one_by_one.trials, stored(tmp_path / "study.db")
    for trial in (*expected, *found):
        times = (trial.datetime_start, trial.datetime_complete)
        assert all(time is None or abs(datetime.datetime.now() - time) < datetime.timedelta(hours=1) for time in times)
        trial.datetime_start = trial.datetime_complete = None
    assert found == expected
    assert bulk.ask()[0] == 3, "waiting trials first"


def test_a_record_rebuilt_from_the_past_is_the_record(load, make, tmp_path):
    settings = load(KD)
    record = make(settings)
    play(record, 8, stop=lambda n: {2: 1, 5: 2}.get(n), fail=lambda n: n == 3)
    make(settings, past=copy.deepcopy(record.trials), file="again.db")
    for live, rebuilt in zip(stored(tmp_path / "study.db"), stored(tmp_path / "again.db"), strict=True):
        for name in ("number", "state", "value", "params", "distributions", "intermediate_values"):
            assert getattr(live, name) == getattr(rebuilt, name), name
    assert [trial.state for trial in stored(tmp_path / "again.db")].count(TrialState.PRUNED) == 2


@pytest.mark.parametrize("space", [KD, SHAPES], ids=["one shape", "shapes"])
def test_a_continued_search_suggests_what_an_uninterrupted_one_does(load, make, tmp_path, space):
    settings = load(space)
    whole = make(settings)
    configs = play(whole, 8)
    first = make(settings, file="first.db")
    play(first, 4)
    again = make(settings, past=first.trials, file="again.db")
    assert play(again, 4) == {number: configs[number] for number in range(4, 8)}
    assert [t.value for t in stored(tmp_path / "again.db")] == [t.value for t in stored(tmp_path / "study.db")]


def test_interrupted_trials_and_gaps_are_asked_again_under_their_numbers(load, make, tmp_path):
    settings = load()
    record = make(settings)
    configs = play(record, 5)
    past = copy.deepcopy(record.trials)
    past[1] = TrialRecord(past[1].params)  # interrupted
    del past[3]  # never written
    past[4] = TrialRecord(past[4].params)
    record = make(settings, past=past, file="again.db")
    waiting = stored(tmp_path / "again.db")
    assert [t.number for t in waiting if t.state == TrialState.WAITING] == [1, 3, 4]
    asked = play(record, 4)
    assert list(asked) == [1, 3, 4, 5]
    assert asked[1] == configs[1] and asked[4] == configs[4]
    trials = stored(tmp_path / "again.db")
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert trials[1].params == record.trials[1].params == past[1].params
    assert trials[1].intermediate_values == record.trials[1].values


def test_several_trials_run_at_once(load, make, tmp_path):
    record = make(load())
    asked = [record.ask() for _ in range(3)]
    assert [number for number, _ in asked] == [0, 1, 2]
    assert len({config["learning_rate"] for _, config in asked}) == 3
    for number, config in reversed(asked):
        record.report(number, 1, quality(config))
        record.tell(number, "stopped")
    assert [trial.state for trial in stored(tmp_path / "study.db")] == [TrialState.PRUNED] * 3


def test_studies_have_their_names_and_never_merge(load, make, tmp_path):
    settings = load()
    play(make(settings, "rte-kd", file="a.db"), 2)
    play(make(settings, "sst2 é?", file="b.db"), 1)
    assert len(stored(tmp_path / "a.db", "rte-kd")) == 2
    assert len(stored(tmp_path / "b.db", "sst2 é?")) == 1
    # A record is written anew from the truth on disk: what an old file holds is not added to it.
    play(make(settings, "rte-kd", file="a.db"), 1)
    assert len(stored(tmp_path / "a.db", "rte-kd")) == 1
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path / 'a.db'}") == ["rte-kd"]


@pytest.mark.parametrize("folder", ["with space", "é", "a?b=c", "a%20b#c"])
def test_any_folder_name_will_do(load, tmp_path, folder):
    (tmp_path / folder).mkdir()
    play(SearchStudy(load(), tmp_path / folder / "study.db", "search", {}), 1)
    assert [path.name for path in (tmp_path / folder).iterdir()] == ["study.db"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder, "space.yaml"])


def test_a_searched_method_has_only_its_own_parameters(load, make, tmp_path):
    record = make(load(METHODS))
    configs = play(record, 15)
    wanted = {"ce": {"method", "batch_size"}, "kd": {"method", "alpha"}, "fsd_g": {"method", "alpha", "beta"}}
    trials = stored(tmp_path / "study.db")
    assert {config["method"] for config in configs.values()} == set(wanted)
    for number, config in configs.items():
        assert set(trials[number].params) == wanted[config["method"]]
        assert all(config[name] == value for name, value in trials[number].params.items())
    past = copy.deepcopy(record.trials)
    past[7] = TrialRecord(past[7].params)
    again = make(load(METHODS), past=past, file="again.db")
    assert again.ask() == (7, configs[7])
    for live, rebuilt in zip(trials, stored(tmp_path / "again.db"), strict=True):
        assert live.params == rebuilt.params and live.distributions == rebuilt.distributions


def test_a_space_without_anything_to_search(load, make, tmp_path):
    settings = load(FIXED)
    record = make(settings)
    configs = play(record, 3)
    assert configs[0] == configs[1] == configs[2] and configs[0]["alpha"] == 0.5
    trials = stored(tmp_path / "study.db")
    assert [trial.params for trial in trials] == [{}] * 3
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    again = make(settings, past={0: record.trials[0], 1: TrialRecord({})}, file="again.db")
    assert play(again, 2) == {1: configs[0], 2: configs[0]}


def test_an_unwritable_place_is_the_systems_error(load, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="Not a directory"):
        SearchStudy(load(), Path(tmp_path / "file" / "study.db"), "search", {})
