"""Searches that start from earlier ones: what is read of them, what is said, and what is suggested."""

import copy
import json
import shutil

import pytest

from fsd_tune.errors import InputError
from fsd_tune.report.results import load as load_results
from fsd_tune.search import warm_start
from fsd_tune.search.equal_methods import new_suggester
from fsd_tune.search.samplers import start_up_trials
from fsd_tune.search.study import SearchStudy
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.search.warm_start import WarmStart, WarmTrial
from tests.helpers import result_folders
from tests.helpers.worlds import World

SPACE = """
method: fsd_ilg
space:
  alpha: {low: 0.0, high: 1.0}
  temperature: {low: 1.0, high: 10.0}
  beta: 1
  gamma_i: {low: 0.01, high: 10.0, log: true}
  gamma_l: 1
  gamma_g: {low: 0.01, high: 10.0, log: true}
  gamma_m: 0.5
  learning_rate: {low: 1e-5, high: 1e-3, log: true}
  batch_size: {choice: [16, 32]}
search: {trials: 40}
"""
METHODS = """
method: {choice: [fsd_ilg, kd]}
space:
  alpha: {low: 0.1, high: 0.9}
  temperature: {low: 1.0, high: 8.0}
  beta: 1
  gamma_i: {low: 0.01, high: 10.0, log: true}
  gamma_l: 1
  gamma_g: 1
  gamma_m: 0.5
  learning_rate: {low: 1e-5, high: 1e-3, log: true}
  batch_size: {choice: [16, 32], when: {method: [kd]}}
search: {trials: 40}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished search of 24 trials; must not be written to."""
    return result_folders.write_search(tmp_path_factory.mktemp("earlier") / "cola", study=False, name="cola")


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the finished search, with a changed summary."""

    def make(**changes):
        copy_of_it = shutil.copytree(folder, tmp_path / "copy")
        (copy_of_it / "summary.json").write_text(json.dumps(result_folders.summary(name="cola", **changes)))
        return copy_of_it

    return make


@pytest.fixture
def collect(settings_from_yaml):
    def read(*folders, space=SPACE, flags=(), metric="accuracy"):
        return warm_start.collect(settings_from_yaml(space, *flags), metric, [str(each) for each in folders])

    return read


def earlier(method, count=12):
    """Trials of another task on which a learning rate of 3e-4 is good; the last is the best."""
    rates = [1e-5 * 30 ** (number / (count - 1)) for number in range(count)]
    names = {"kd": ("alpha", "temperature"), "fsd_ilg": ("alpha", "temperature", "gamma_i")}[method]
    return [
        WarmTrial(
            origin=f"{method}-task trial {number}",
            score=rate,
            config={"method": method, "learning_rate": rate, "batch_size": 16, "epochs": 3, "warmup_ratio": 0.1}
            | {"beta": 1.0, "gamma_i": 2.0, "gamma_l": 1.0, "gamma_g": 1.0, "gamma_m": 0.5}
            | {name: 0.5 if name == "alpha" else 2.0 for name in names},
        )
        for number, rate in enumerate(rates)
    ]


def test_the_best_trial_comes_first_and_its_search_is_named(folder, collect):
    found = collect(folder)
    best = load_results(folder, judge_by="last").best
    assert best is not None
    first = found.warm_start.trials[0]
    assert first.origin == f"cola trial {best['number']}" and first.score == best["score"]
    assert first.config["learning_rate"] == best["learning_rate"] and first.config["method"] == "fsd_ilg"
    assert found.problems == []
    assert found.notes == ["warm start: after the defaults come configurations that were good in cola (22 trials)."]


def test_the_file_says_all_that_a_resumed_search_needs(folder, collect, tmp_path):
    found = collect(folder).warm_start
    assert warm_start.read(tmp_path) == WarmStart()
    found.write(tmp_path)
    assert warm_start.read(tmp_path) == found
    (tmp_path / "warm_start.json").write_text('{"trials": [{"origin": 3}]}')
    with pytest.raises(InputError, match=r"warm_start\.json: cannot be read .*bring it back"):
        warm_start.read(tmp_path)


def test_what_is_outside_of_the_space_is_left_out_and_counted(folder, collect, settings_from_yaml):
    flags = ("--alpha={low: 0.2, high: 0.8}", "--temperature=4", "--batch-size=32")
    found = collect(folder, flags=flags)
    rows = load_results(folder).trials
    ended = rows[rows["state"] != "failed"]
    inside = ended[ended["alpha"].between(0.2, 0.8)]
    assert 0 < len(inside) < len(ended)
    left = len(ended) - len(inside)
    assert found.notes[1:] == [
        f"search.warm_from: {left} of the {len(ended)} trials of {folder} are outside of this space: alpha of {left}."
    ]
    settings = settings_from_yaml(SPACE, *flags)
    study = SearchStudy(settings, None, "search", {}, new_suggester(settings, found.warm_start.trials))
    study.ask()
    asked = study.ask()
    assert asked is not None
    config = asked[1]
    assert config["learning_rate"] == found.warm_start.trials[0].config["learning_rate"]
    assert (config["temperature"], config["batch_size"]) == (4, 32), "what is fixed here stays"


def test_what_an_earlier_search_fixed_of_the_shape_is_taken_from_its_summary(copied, collect, settings_from_yaml):
    there = copied(student={"layers": 3, "start": "copy"})
    flags = ("--student-layers={choice: [2, 3]}", "--student-start={choice: [copy, random]}")
    settings = settings_from_yaml(SPACE, *flags, "--student-hidden-size={choice: [null, 192]}")
    trials = warm_start.collect(settings, "accuracy", [str(there)]).warm_start.trials
    assert {(trial.config["layers"], trial.config["start"]) for trial in trials} == {(3, "copy")}
    study = SearchStudy(settings, None, "search", {}, new_suggester(settings, trials))
    asked = [config for _, config in filter(None, (study.ask() for _ in range(2)))]
    assert [(config["layers"], config["start"], config["hidden_size"]) for config in asked] == [(3, "copy", None)] * 2
    assert asked[1]["learning_rate"] == trials[0].config["learning_rate"]
    (said,) = collect(there, flags=("--student-layers={choice: [2, 4]}",)).problems
    assert said.endswith("is in this space: layers of 22.")
    # Its settings name no depth, so they mean the default.
    name = there.parent / "rte"
    assert warm_start.offer(settings_from_yaml(SPACE, "--student-layers={choice: [2, 6]}"), name).endswith(str(there))
    assert warm_start.offer(settings_from_yaml(SPACE, "--student-layers={choice: [2, 4]}"), name) == ""


UNUSABLE = [
    ("no search", lambda copied, tmp_path: tmp_path, SPACE, "{f}: holds no search"),
    ("no folder", lambda copied, tmp_path: tmp_path / "none", SPACE, "{f}: no such folder"),
    ("another direction", lambda copied, _: copied(mode="min", metric="loss"), SPACE, "{f} looks for the lowest loss"),
    ("another method", lambda copied, _: copied(), SPACE.replace("fsd_ilg", "kd"), "none of the 22 trials of {f} is"),
    (
        "another range", lambda copied, _: copied(), SPACE.replace("low: 1e-5, high: 1e-3", "low: 0.1, high: 0.2"),
        "none of the 22 trials of {f} is in this space: learning_rate of 22.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "space", "said"), [case[1:] for case in UNUSABLE], ids=[case[0] for case in UNUSABLE]
)
def test_what_cannot_be_used_is_one_line(copied, collect, tmp_path, where, space, said):
    if "fsd_ilg" not in space:
        space = "".join(line + "\n" for line in space.splitlines() if not line.strip().startswith(("beta", "gamma")))
    path = where(copied, tmp_path)
    found = collect(path, space=space)
    assert found.warm_start.trials == [] and len(found.problems) == 1
    assert found.problems[0].startswith("search.warm_from: " + said.format(f=path)), found.problems


def test_a_search_without_an_ended_trial(copied, collect):
    path = copied()
    shutil.rmtree(path / "results")
    assert collect(path).problems == [f"search.warm_from: {path} has no trial that ended with a score."]


def test_what_is_unfinished_damaged_or_of_another_metric_is_used_and_said(copied, collect):
    path = copied(state="interrupted", metric="accuracy")
    damaged = next(path.glob("results/*0003/config.json"))
    damaged.write_text("{")
    found = collect(path, metric="matthews_correlation")
    assert found.problems == [] and len(found.warm_start.trials) == 10
    _, broken, unfinished, metric = found.notes
    assert broken.startswith(f"search.warm_from: {path} is damaged (results/trial_0003/config.json: is not JSON")
    assert unfinished == f"search.warm_from: {path} has not run to its end; its 21 trials that have ended are used."
    assert "judged by accuracy, this search by matthews_correlation; only the order" in metric


def test_other_searches_are_used_if_one_cannot_be(folder, collect, tmp_path):
    found = collect(folder, tmp_path)
    assert len(found.problems) == 1 and found.warm_start.trials


@pytest.fixture
def study(settings_from_yaml):
    """A study of a search that knows good trials of an earlier one, best first."""

    def make(*flags, warm=True):
        settings = settings_from_yaml(SPACE, *flags)
        known = earlier("fsd_ilg")[::-1] if warm else []
        return SearchStudy(settings, None, "search", {}, new_suggester(settings, known))

    return make


def ask(study, value=None):
    """The origin and the learning rate of the next trial, which reports once and is stopped if a value is given."""
    asked = study.ask()
    assert asked is not None
    number, config = asked
    if value is not None:
        study.report(number, 1, value)
        study.tell(number, "stopped")
    return study.trials[number].origin, config["learning_rate"]


def test_defaults_then_one_earlier_trial_until_it_can_be_compared(study):
    running = study("--first=[{alpha: 0.25}]")
    asked = [ask(running) for _ in range(6)]
    best = earlier("fsd_ilg")[-1]
    assert [origin for origin, _ in asked] == ["", "", best.origin, "", "", ""]
    assert asked[2][1] == best.config["learning_rate"]
    running.report(1, 1, 0.5)
    assert not ask(running)[0]
    running.report(2, 1, 0.5)
    assert ask(running)[0] == earlier("fsd_ilg")[-2].origin


def test_earlier_trials_go_on_as_long_as_they_do_well(study):
    """Use earlier trials while the best of them reaches the median of the others."""
    better = study()
    asked = [ask(better, 0.5 if number == 0 else 0.6) for number in range(start_up_trials(40))]
    assert [bool(origin) for origin, _ in asked] == [False] + [True] * (start_up_trials(40) - 1)
    assert not ask(better, 0.6)[0], "the start-up is over"
    worse = study()
    assert [bool(ask(worse, value)[0]) for value in (0.5, 0.4, 0.45, 0.6)] == [False, True, False, False]
    # The others have 0.5, 0.45, 0.6, then 0.3 twice and 0.2: their median is 0.5, 0.475, 0.45 and 0.375.
    assert [bool(ask(worse, value)[0]) for value in (0.3, 0.3, 0.2, 0.2)] == [False, False, False, True]


def test_kinds_are_compared_at_the_last_report_of_both(study):
    running = study()
    for values in ((0.5, 0.55, 0.9), (0.45, 0.6)):
        asked = running.ask()
        assert asked is not None
        number = asked[0]
        for report, value in enumerate(values, start=1):
            running.report(number, report, value)
    assert ask(running)[0], "0.6 against 0.55 at report 2"
    assert ask(study("--trials=1"))[0] == "", "the defaults first, however few the trials"


def test_the_places_of_the_start_are_taken_in_order(study):
    """What comes from an earlier search takes no point of the Sobol sequence."""
    warm, plain = study(), study(warm=False)
    mixed = [ask(warm, value) for value in (0.5, 0.4, 0.45, 0.45)]
    assert [bool(origin) for origin, _ in mixed] == [False, True, False, False]
    assert [rate for origin, rate in mixed if not origin] == [ask(plain, 0.3)[1] for _ in range(3)]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
@pytest.mark.parametrize("space", [SPACE, METHODS], ids=["one method", "methods"])
def test_a_continued_search_goes_on_as_an_uninterrupted_one(settings_from_yaml, sampler, space):
    settings = settings_from_yaml(space, f"--sampler={sampler}")
    trials_there = [*earlier("fsd_ilg")[::-1], *earlier("kd")[::-1]]

    def played(trials, past=None):
        return World(settings, past=past, earlier=trials_there).play(trials)

    def history(trials):
        return [(n, trial.params, trial.state, trial.values, trial.origin) for n, trial in sorted(trials.items())]

    whole = played(16)
    assert any(trial.origin for trial in whole.values())
    part = copy.deepcopy({number: trial for number, trial in whole.items() if number < 4})
    part[3] = TrialRecord(part[3].params, origin=part[3].origin)  # interrupted
    assert history(played(13, part)) == history(whole)


def test_each_method_is_warmed_by_its_own_trials(settings_from_yaml):
    """The defaults of both come first, budgets stay equal, and a conditional parameter is there where it holds."""
    settings = settings_from_yaml(METHODS)
    trials_there = list(warm_start.portfolios(settings, [earlier("kd"), earlier("fsd_ilg")]))
    trials = World(settings, earlier=trials_there).play(40)
    assert [trials[number].origin for number in range(2)] == ["", ""]
    for method in ("kd", "fsd_ilg"):
        own = [trial for _, trial in sorted(trials.items()) if trial.params["method"] == method]
        assert {trial.origin.partition(" ")[0] for trial in own if trial.origin} == {f"{method}-task"}
        assert own[1].origin == f"{method}-task trial 11" and own[1].params["learning_rate"] == pytest.approx(3e-4)
        assert all(("batch_size" in trial.params) == (method == "kd") for trial in own)
    reports = {method: sum(len(t.values) for t in trials.values() if t.params["method"] == method) for method in
               ("kd", "fsd_ilg")}  # fmt: skip
    assert max(reports.values()) < 1.2 * min(reports.values())


def test_a_grid_begins_with_the_points_of_earlier_searches(settings_from_yaml):
    grid = SPACE
    for name, values in (("alpha", "0.25, 0.5"), ("temperature", "2, 5"), ("gamma_i", "1, 2"), ("gamma_g", "1, 2"),
                         ("learning_rate", "1e-5, 3e-4")):  # fmt: skip
        grid = "\n".join(f"  {name}: {{choice: [{values}]}}" if line.strip().startswith(name) else line
                         for line in grid.splitlines())  # fmt: skip
    settings = settings_from_yaml(grid, "--sampler=grid")
    there = [
        trial.model_copy(update={"config": trial.config | {"learning_rate": 3e-4}}) for trial in earlier("fsd_ilg")
    ]
    study = SearchStudy(settings, None, "search", {}, new_suggester(settings, there))
    study.ask()
    asked = study.ask()
    assert asked is not None and asked[1]["learning_rate"] == 3e-4 and study.trials[1].origin
    assert asked[1]["gamma_i"] == 2


def test_finished_searches_beside_the_output_are_offered(folder, settings_from_yaml):
    settings = settings_from_yaml(SPACE)
    output = folder.parent / "rte"
    assert warm_start.offer(settings, output).endswith(f"--warm-from {folder}")
    for other in (
        settings_from_yaml(SPACE, "--warm-from=off"),
        settings_from_yaml(SPACE, "--learning-rate={low: 0.01, high: 0.1}"),
        settings_from_yaml("method: kd\nspace: {alpha: {low: 0, high: 1}, temperature: 5}\n"),
    ):
        assert warm_start.offer(other, output) == ""
    assert warm_start.offer(settings, folder) == "", "not the search itself"
    assert warm_start.offer(settings, "s3://bucket/rte") == ""


def test_a_search_over_other_methods_too_is_offered(copied, settings_from_yaml):
    """Of what its first method has no default for, too."""
    path = copied()
    (path / "settings.yaml").write_text(METHODS.replace("[fsd_ilg, kd]", "[ce, kd, fsd_ilg]"))
    assert warm_start.offer(settings_from_yaml(SPACE), path.parent / "rte").endswith(str(path))


def test_unfinished_and_damaged_searches_are_not_offered(copied, settings_from_yaml, tmp_path):
    path = copied(state="interrupted")
    settings = settings_from_yaml(SPACE)
    assert warm_start.offer(settings, tmp_path / "rte") == ""
    (path / "summary.json").write_text("{")
    assert warm_start.offer(settings, tmp_path / "rte") == ""
