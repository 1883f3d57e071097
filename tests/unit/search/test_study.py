"""The study of a search: what it records is what happened, whoever asks and however often it was interrupted."""

import copy
import datetime
import math
import random
import statistics
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from fsd_tune.search import budget, cmaes, grid
from fsd_tune.search.beliefs import FinishedTrials, expected_end
from fsd_tune.search.end_rules import EndRule
from fsd_tune.search.samplers import Suggester, start_up_trials
from fsd_tune.search.study import SearchStudy, quiet_optuna
from fsd_tune.search.trial_record import TrialRecord, final_score, frozen_trial
from fsd_tune.settings.configuration import distributions, sample, unconditional

KD = """
method: kd
space:
  alpha: {low: 0, high: 1}
  temperature: {low: 1, high: 10}
  learning_rate: {low: 1e-5, high: 1e-3, log: true}
  batch_size: {choice: [16, 32]}
search: {trials: 8, first: [{alpha: 0.25, batch_size: 16}]}
"""
METHODS = """
method: {choice: [ce, kd, fsd_g]}
space:
  alpha: {low: 0, high: 1}
  temperature: 5
  beta: {low: 0.1, high: 10, log: true}
  gamma_m: 0.5
  batch_size: {choice: [16, 32], when: {method: [ce]}}
search: {trials: 40}
"""
SHAPES = KD + (
    "student: {layers: {choice: [2, 4]}, start: {choice: [random, copy]}, hidden_size: {choice: [null, 192]}}\n"
)
FIXED = "method: kd\nspace: {alpha: 0.5, temperature: 5}\nsearch: {trials: 3}\n"
REPORTS = 4


@pytest.fixture
def load(settings_from_yaml):
    return lambda text=KD, *flags: settings_from_yaml(text, *flags)


@pytest.fixture
def make(tmp_path):
    """Records, each in its own file below `tmp_path`."""

    def record(settings, name="search", past=None, file="study.db"):
        return SearchStudy(settings, tmp_path / file, name, past or {})

    return record


def stored(path, name="search"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{path}").trials


def quality(config):
    """A smooth stand-in for what a trial scores."""
    return 0.8 - (config.get("alpha", 0.5) - 0.4) ** 2 - 0.05 * (config["batch_size"] == 32)


def play(record, trials, stop=lambda number: None, fail=lambda number: False):
    """Asks, reports and tells as a search with one worker does; `stop` gives the report at which a trial is stopped."""
    configs = {}
    for _ in range(trials):
        number, config = record.ask()
        configs[number] = config
        last = stop(number) or REPORTS
        for report in range(1, last + 1):
            record.report(number, report, quality(config) - 0.3 / report)
        record.tell(number, "failed" if fail(number) else "stopped" if last < REPORTS else "finished")
    return configs


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


def test_what_the_sampler_is_told_of_a_stopped_trial():
    finished = [
        TrialRecord({}, "finished", {1: 0.50, 2: 0.60, 3: 0.70, 4: 0.80}),
        TrialRecord({}, "finished", {1: 0.40, 2: 0.70, 3: 0.70, 4: 0.70}),
        TrialRecord({}, "finished", {1: 0.60, 2: 0.65, 3: 0.68, 4: 0.68}),
    ]
    stopped = TrialRecord({}, "stopped", {1: 0.30, 2: 0.40})

    def end(trial, others=finished):
        known = FinishedTrials()
        known.update(dict(enumerate(others)))
        return expected_end(trial, known.median_gains)

    # The last values are 0.20, 0.00 and 0.03 above those of report 2.
    assert end(stopped) == pytest.approx(0.43)
    assert end(stopped, others=[]) == 0.40
    assert end(TrialRecord({}, "stopped", {})) is None


def slow_suggestion(suggester, number, trials, kind):
    """A suggestion from a study that is built for it alone, with Optuna's own sampler and a median for each trial."""
    finished = [trial for trial in trials.values() if trial.state == "finished"]
    study = optuna.create_study(direction="maximize")
    ended = []
    for _, trial in sorted(trials.items()):
        score, state = final_score(trial), trial.state
        if state == "stopped" and trial.values:
            report = max(trial.values)
            gains = [t.series()[-1] - t.values[report] for t in finished]
            gain = statistics.median(gains) if gains else 0.0
            score, state = trial.values[report] + gain, "finished"
        study.add_trial(frozen_trial(trial, score, state, suggester.distributions))
        if state == "finished" and trial.generation is not None and score is not None:
            ended.append(cmaes.EndedTrial(trial.generation, trial.params, score))
    seed = suggester.seed(number)
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, group=True, constant_liar=True)
    generation = None
    if kind == "cmaes":
        always = {name: suggester.distributions[name] for name in unconditional(suggester.settings)}
        drawn, generation = cmaes.draw(cmaes.usable(always), ended, seed)
        study.sampler = optuna.samplers.PartialFixedSampler(drawn, study.sampler)
    if kind == "gp":
        study.sampler = optuna.samplers.GPSampler(seed=seed, independent_sampler=study.sampler, n_startup_trials=4)
    asked = study.ask()
    sample(suggester.settings, asked)
    return asked.params, generation


@quiet_optuna()
@pytest.mark.parametrize(
    ("space", "kind", "trials"),
    [(KD, "tpe", 40), (METHODS, "tpe", 40), (SHAPES, "tpe", 40), (KD, "cmaes", 40), (KD, "gp", 12)],
)
def test_what_is_kept_between_suggestions_changes_none(load, space, kind, trials):
    """Trials end in another order than they began in, so that scores, states and CMA-ES generations change later."""
    suggester = Suggester(load(space, f"--sampler={kind}"))
    past: dict[int, TrialRecord] = {}
    running: list[int] = []
    rng = random.Random(1)
    for number in range(trials):
        asked = suggester.suggest(number, past)
        assert asked is not None
        if (number > 12 and number % 4 == 0) or (kind == "gp" and number > 10):
            assert (asked.params, asked.generation) == slow_suggestion(suggester, number, past, kind)
        past[number] = asked
        running.append(number)
        while len(running) > 5:
            ended = past[running.pop(rng.randrange(len(running)))]
            ended.state = rng.choice(["finished", "finished", "stopped", "stopped", "failed"])
            reports = REPORTS if ended.state == "finished" else rng.randrange(REPORTS)
            ended.values = {report: rng.random() + report / 5 for report in range(1, reports + 1)}
    del past[0]  # As after a resume that lost a trial: what was kept of it counts no longer.
    asked = suggester.suggest(trials, past)
    assert asked is not None
    assert (asked.params, asked.generation) == slow_suggestion(suggester, trials, past, kind)


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


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "gp"])
def test_suggestions_are_a_function_of_seed_and_history(load, make, sampler):
    def suggestions(*flags, file):
        record = make(load(KD, f"--sampler={sampler}", *flags), file=file)
        return list(play(record, 7, stop=lambda n: 1 if n % 3 == 2 else None).values())

    first = suggestions(file="a.db")
    assert first == suggestions(file="b.db")
    other = suggestions("--seed=1", file="c.db")
    # The first is the defaults; the second leaves temperature and learning rate to the sampler.
    assert other[0] == first[0]
    assert all(mine != its for mine, its in zip(first[1:], other[1:], strict=True))
    assert other[1]["temperature"] != first[1]["temperature"]


def test_the_sampler_learns(load, make):
    """Past its random start TPE stays near the optimum of `quality`."""
    record = make(load(KD, "--trials=24"))
    configs = play(record, 24)
    late = [configs[number] for number in range(14, 24)]
    assert sum(config["batch_size"] == 16 for config in late) > 7
    assert sum(abs(config["alpha"] - 0.4) for config in late) / len(late) < 0.2


def test_the_sampler_learns_the_expected_ends(load, make):
    """By its own value the finished trial or the longer stopped one would be the best."""

    def known(alpha, state, *values):
        params = {"alpha": alpha, "temperature": 5.0, "learning_rate": 1e-4, "batch_size": 16}
        return TrialRecord(params, state, dict(enumerate(values, start=1)))

    past = {
        0: known(0.1, "finished", 0.3, 0.5, 0.6, 0.7),  # a gain of 0.4 from report 1, of 0.2 from report 2
        1: known(0.5, "stopped", 0.65),  # extrapolated to 1.05
        2: known(0.9, "stopped", 0.3, 0.7),  # extrapolated to 0.9
        3: known(0.3, "stopped", 0.1),
        4: known(0.7, "stopped", 0.1),
    }
    suggested = [make(load(KD, f"--seed={seed}"), past=past).ask()[1]["alpha"] for seed in range(4)]
    distances = {near: sum(abs(value - near) for value in suggested) for near in (0.1, 0.5, 0.9)}
    assert min(distances, key=distances.__getitem__) == 0.5, suggested


def test_the_first_configurations_come_first(load, make):
    record = make(load())
    (_, defaults), (_, named) = record.ask(), record.ask()
    assert defaults["alpha"] == 0.5 and defaults["temperature"] == 5 and defaults["learning_rate"] == 5e-5
    assert defaults["batch_size"] == 32
    assert named["alpha"] == 0.25 and named["batch_size"] == 16


def test_the_start_is_spread_over_the_space(load, make):
    """After the defaults come points of a scrambled Sobol sequence: of four, one in each quarter of every range."""
    settings = load(KD, "--trials=64")
    record = make(settings)
    asked = [record.ask()[1] for _ in range(6)]  # two of them given
    for name in ("alpha", "temperature", "learning_rate"):
        d = distributions(settings)[name]
        scale = math.log if d.log else float
        places = [(scale(config[name]) - scale(d.low)) / (scale(d.high) - scale(d.low)) for config in asked[2:]]
        assert sorted(int(4 * place) for place in places) == [0, 1, 2, 3]
    again = make(settings, file="again.db")
    assert [again.ask()[1] for _ in range(6)] == asked


def test_start_up_leaves_trials_for_the_model():
    assert [start_up_trials(trials) for trials in (1, 12, 24, 40, 64)] == [4, 4, 6, 10, 10]


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


def test_a_failed_trial_keeps_the_others_suggestions_coming(load, make, tmp_path):
    record = make(load(KD, "--trials=12"))
    play(record, 12, fail=lambda n: n % 4 == 1)
    states = [trial.state for trial in stored(tmp_path / "study.db")]
    assert states.count(TrialState.FAIL) == 3 and states.count(TrialState.COMPLETE) == 9
    scores = [trial.value for trial in stored(tmp_path / "study.db") if trial.state == TrialState.COMPLETE]
    assert scores == [t.series()[-1] for t in record.trials.values() if t.state == "finished"]


def test_an_unwritable_place_is_the_systems_error(load, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="Not a directory"):
        SearchStudy(load(), Path(tmp_path / "file" / "study.db"), "search", {})


NUMBERS = """
method: kd
space:
  alpha: {low: 0, high: 1}
  temperature: {low: 1, high: 10}
  learning_rate: {low: 1e-5, high: 1e-3, log: true}
  weight_decay: {low: 0, high: 0.1}
  batch_size: {low: 8, high: 64, log: true}
search: {trials: 48}
"""


def bowl(config):
    """The height of a quadratic bowl at a configuration of NUMBERS; 0 at its only maximum."""
    return -(
        (config["alpha"] - 0.8) ** 2
        + (config["temperature"] / 9 - 0.3) ** 2
        + (math.log10(config["learning_rate"]) / 2 + 1.7) ** 2
        + (10 * config["weight_decay"] - 0.2) ** 2
        + (math.log2(config["batch_size"]) / 3 - 1.4) ** 2
    )


def best_of(record, trials):
    found = []
    for _ in range(trials):
        number, config = record.ask()
        found.append(bowl(config))
        record.report(number, 1, found[-1])
        record.tell(number, "finished")
    return max(found)


# A Gaussian process takes a second or more for a suggestion: it has two dimensions and few trials.
PLANE = ("--learning-rate=4e-4", "--weight-decay=0.02", "--batch-size=16")


@pytest.mark.slow  # a minute of suggestions, for a statement about many seeds
@pytest.mark.parametrize(("sampler", "trials", "seeds", "flags"), [("cmaes", 48, 5, ()), ("gp", 12, 3, PLANE)])
def test_the_sampler_beats_random_on_a_bowl(load, make, sampler, trials, seeds, flags):
    found = {
        name: statistics.median(
            best_of(make(load(NUMBERS, f"--trials={trials}", f"--sampler={name}", f"--seed={seed}", *flags)), trials)
            for seed in range(seeds)
        )
        for name in (sampler, "random")
    }
    # Not by chance: at most half of what random draws leave below the top.
    assert found[sampler] > found["random"] / 2, found


@pytest.mark.parametrize("sampler", ["cmaes", "gp"])
def test_every_sampler_learns_the_expected_ends(load, make, monkeypatch, sampler):
    """What is made of the stopped trials decides what is suggested next."""
    suggested = set()
    for expected in (expected_end, lambda trial, gains: None, lambda trial, gains: trial.series()[-1]):
        monkeypatch.setattr("fsd_tune.search.samplers.expected_end", expected)
        record = make(load(NUMBERS, f"--sampler={sampler}", "--trials=16", *PLANE))
        play(record, 10, stop=lambda n: 1 + n % 3 if n % 2 else None)
        suggested.add(record.ask()[1]["alpha"])
    assert len(suggested) == 3, suggested


@pytest.mark.parametrize("sampler", ["cmaes", "gp"])
def test_conditional_spaces_have_their_parameters(load, make, tmp_path, sampler):
    record = make(load(METHODS, f"--sampler={sampler}"))
    configs = play(record, 16)
    wanted = {"ce": {"method", "batch_size"}, "kd": {"method", "alpha"}, "fsd_g": {"method", "alpha", "beta"}}
    for trial in stored(tmp_path / "study.db"):
        assert set(trial.params) == wanted[configs[trial.number]["method"]]


@pytest.mark.parametrize(("sampler", "trials"), [("cmaes", 14), ("gp", 6)])
def test_only_random_students_have_a_width(load, make, tmp_path, sampler, trials):
    configs = play(make(load(SHAPES, f"--sampler={sampler}", f"--trials={trials}")), trials)
    widths = set()
    for trial in stored(tmp_path / "study.db"):
        config = configs[trial.number]
        assert ("hidden_size" in trial.params) == (config["start"] == "random")
        assert {name: config[name] for name in trial.params} == trial.params
        widths.add((config["start"], config["hidden_size"]))
    assert {("copy", None), ("random", 192)} <= widths <= {("copy", None), ("random", None), ("random", 192)}
    assert [configs[0][name] for name in ("layers", "start")] == [4, "copy"], "nearest to the defaults"


def test_cmaes_goes_on_generation_by_generation_with_several_workers(load, make):
    record = make(load(NUMBERS, "--sampler=cmaes"))
    running = [record.ask() for _ in range(4)]
    for _ in range(36):
        number, config = running.pop(0)
        record.report(number, 1, bowl(config))
        record.tell(number, "failed" if number % 9 == 8 else "stopped")
        running.append(record.ask())
    generations = [record.trials[number].generation for number in sorted(record.trials)]
    assert generations[0] is None, "the defaults are nobody's draw"
    assert generations[1:] == sorted(generations[1:]) and max(generations[1:]) >= 3


def test_cmaes_learns_nothing_from_what_it_is_not_told(load, make):
    record = make(load(NUMBERS, "--sampler=cmaes"))
    play(record, 20, fail=lambda number: True)
    assert {trial.generation for trial in record.trials.values()} == {None, 0}


@pytest.mark.parametrize(("sampler", "flags"), [("cmaes", ()), ("gp", PLANE)])
def test_a_continued_search_of_any_sampler_suggests_what_an_uninterrupted_one_does(load, make, sampler, flags):
    settings = load(NUMBERS, f"--sampler={sampler}", "--trials=12", *flags)
    configs = play(make(settings), 12, stop=lambda n: 1 if n % 4 == 2 else None)
    first = make(settings, file="first.db")
    play(first, 11, stop=lambda n: 1 if n % 4 == 2 else None)
    past = copy.deepcopy(first.trials)
    past[10] = TrialRecord(past[10].params, generation=past[10].generation)  # interrupted
    again = make(settings, past=past, file="again.db")
    played = play(again, 2, stop=lambda n: 1 if n % 4 == 2 else None)
    assert played == {number: configs[number] for number in (10, 11)}


GRID = """
method: {choice: [ce, kd, fsd_g]}
space:
  alpha: {low: 0.1, high: 0.35, step: 0.1}
  temperature: 5
  beta: {choice: [1, 30]}
  gamma_m: 0.5
  epochs: {low: 1, high: 2}
  batch_size: {choice: [16, 64], when: {method: [ce]}}
search: {sampler: grid, trials: 64, first: [{beta: 30, alpha: 0.3}, {method: ce, batch_size: 64, epochs: 2}]}
"""


def test_a_grid_has_every_combination_once(load):
    points = list(grid.points(load(GRID)))
    assert len(points) == grid.size(load(GRID)) == 2 * 2 + 3 * 2 + 3 * 2 * 2
    assert len({grid.point_key(point) for point in points}) == len(points)
    assert points == list(grid.points(load(GRID)))
    assert {tuple(point) for point in points} == {
        ("method", "epochs", "batch_size"), ("method", "alpha", "epochs"), ("method", "alpha", "beta", "epochs"),
    }  # fmt: skip
    assert {point["alpha"] for point in points if "alpha" in point} == {0.1, 0.2, 0.3}
    assert [(point["epochs"], point["batch_size"]) for point in points[:4]] == [(1, 16), (1, 64), (2, 16), (2, 64)]


def test_a_grid_has_the_widths_of_random_students_only(load):
    space = "method: kd\nspace: {alpha: {choice: [0.5, 1]}, temperature: 5}\nsearch: {sampler: grid}\n"
    points = list(grid.points(load(space + SHAPES.splitlines()[-1])))
    assert len({grid.point_key(point) for point in points}) == len(points) == 2 * (2 + 1) * 2
    assert grid.Remaining(load(space + SHAPES.splitlines()[-1])).next(set(), {"hidden_size": 192}) == {
        "layers": 2, "start": "random", "hidden_size": 192, "alpha": 0.5
    }  # fmt: skip


def test_a_grid_is_never_counted_to_its_end(load):
    wide = "method: kd\nspace: {alpha: {low: 0, high: 1, step: 1e-4}, temperature: {low: 1, high: 9, step: 1e-3}}\n"
    assert grid.size(load(wide + "search: {sampler: grid}\n")) == grid.MOST + 1


def test_a_grid_is_run_to_its_end_the_first_configurations_first(load, make, tmp_path):
    record = make(load(GRID))
    play(record, 22, stop=lambda n: 1 if n % 3 == 1 else None, fail=lambda n: n == 7)
    assert record.ask() is None
    params = [trial.params for trial in stored(tmp_path / "study.db")]
    assert len({grid.point_key(point) for point in params}) == 22
    # The first: the defaults of the first method, moved into the space; then the named ones, those that they leave
    # open as the grid has them first.
    assert params[0] == {"method": "ce", "epochs": 2, "batch_size": 16}
    assert params[1] == {"method": "fsd_g", "alpha": 0.3, "beta": 30.0, "epochs": 1}
    assert params[2] == {"method": "ce", "epochs": 2, "batch_size": 64}
    assert params[3:] == [point for point in grid.points(load(GRID)) if point not in params[:3]]


def test_a_continued_grid_runs_what_remains(load, make, tmp_path):
    record = make(load(GRID))
    configs = play(record, 22)
    first = make(load(GRID), file="first.db")
    play(first, 9)
    past = copy.deepcopy(first.trials)
    past[4] = TrialRecord(past[4].params)  # interrupted
    del past[6]  # never written
    again = make(load(GRID), past=past, file="again.db")
    played = play(again, 15)
    assert again.ask() is None
    assert list(played) == [4, 6, *range(9, 22)] and played[4] == configs[4] and played[6] == configs[6]
    assert len({grid.point_key(trial.params) for trial in stored(tmp_path / "again.db")}) == 22


def test_a_grid_of_one_point_is_one_trial(load, make):
    record = make(load(FIXED, "--sampler=grid"))
    assert len(play(record, 1)) == 1 and record.ask() is None


def test_a_search_ends_after_trials_in_a_row_without_a_better_one(load, make):
    settings = load(FIXED, "--trials=20", "--stop-after-stalled=3")
    record = make(settings)

    def ends(state, value):
        number, _ = record.ask()
        record.report(number, 1, value)
        record.tell(number, state)

    for state, value in (("finished", 0.5), ("stopped", 0.9), ("failed", 0.9), ("finished", 0.6), ("finished", 0.6)):
        ends(state, value)
    late = record.ask()[0]
    ends("stopped", 0.7)
    assert not record.rule
    ends("finished", 0.5)
    assert record.rule and record.ask() is None
    # One that was running goes on to its end; what it finds does not open the search again.
    past = copy.deepcopy(record.trials)
    for number, trial in past.items():
        trial.ended_at = float(number)
    again = make(settings, past=past, file="again.db")
    assert again.ask()[0] == late and again.ask() is None, "known to a continued search"
    assert make(load(FIXED, "--trials=20", "--stop-after-stalled=4"), past=past, file="more.db").ask() is not None
    record.report(late, 1, 0.9)
    record.tell(late, "finished")
    assert record.trials[late].state == "finished"


def test_what_ended_a_search_is_said(load):
    def said(text, *flags, begun=0, rule=None, broken_off=0):
        found = budget.ended_by(load(text, *flags), begun, broken_off, rule)
        return found["budget"], found["not_run"], found["text"]

    rule = EndRule("stop_after_stalled", "stopped after 20 trials without a better one")
    assert said(KD, begun=8) == ("trials", 0, "all 8 trials were run")
    assert said(KD, "--trials=64", "--stop-after-stalled=20", begun=52, rule=rule) == (
        "stop_after_stalled", 12, "stopped after 20 trials without a better one: 12 of 64 not run",
    )  # fmt: skip
    assert said(KD, "--time-budget=2h", begun=5, broken_off=2) == (
        "time_budget", 3, "stopped after the time budget of 2h: 3 of 8 not run, 2 interrupted",
    )  # fmt: skip
    assert said(KD, "--time-budget=2h", begun=8, broken_off=1)[2].endswith("2h: 1 interrupted")
    assert said(GRID, begun=22)[2] == "the whole grid of 22 points was run; 64 trials were asked for"
    assert budget.notes(load(GRID)) == ["search.trials: 64, but the grid has 22 points, so the search runs 22 trials."]
    assert budget.notes(load(GRID, "--trials=9")) == ["search.trials: 9 of the grid's 22 points are run."]
    assert budget.notes(load()) == []
    assert budget.notes(load(METHODS)) == []
    assert budget.notes(load(METHODS, "--trials=2")) == ["search.trials: 2 for 3 methods, so some get none."]
