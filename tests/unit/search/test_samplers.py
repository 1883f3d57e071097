"""Suggestions for the score alone: what the samplers learn, the start of a search, and that nothing else decides them.

Suggestions for several objectives are tested in `test_samplers_of_fronts.py`.
"""

import copy
import math
import random
import statistics

import optuna
import pytest
from optuna.trial import TrialState

from fsd_tune.search import cmaes
from fsd_tune.search.beliefs import FinishedTrials, expected_end
from fsd_tune.search.costs import Shape, TrialCosts
from fsd_tune.search.samplers import Suggester, start_up_trials
from fsd_tune.search.study import SearchStudy, quiet_optuna
from fsd_tune.search.trial_record import TrialRecord, final_score, frozen_trial
from fsd_tune.settings.configuration import distributions, sample, unconditional
from tests.helpers.studies import KD, METHODS, REPORTS, SHAPES, play, stored


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


SIX = """
method: fsd_il
space:
  alpha: {low: 0, high: 1}
  temperature: {low: 1, high: 10}
  gamma_i: {low: 0.1, high: 10}
  gamma_l: {low: 0.1, high: 10}
  beta: {low: 0.1, high: 10}
  weight_decay: {low: 0, high: 0.1}
search: {trials: 200}
"""
SEVEN = SIX.replace("space:\n", "space:\n  warmup_ratio: {low: 0, high: 0.3}\n")
SIZES: dict[Shape, dict[str, float]] = {(layers, None): {"parameters": 1e6 * layers} for layers in (2, 3)}
FRONT = SEVEN.replace("trials:", "objectives: [score, parameters], trials:") + "student: {layers: {choice: [2, 3]}}\n"


@pytest.mark.parametrize(
    ("text", "kind", "first", "share"),
    [
        (SEVEN, "tpe", 12, 2 / 3),
        (SEVEN, "tpe", 140, 0),
        (SEVEN, "gp", 12, 0),
        (SIX, "tpe", 12, 0),
        (FRONT, "tpe", 12, 0),
    ],
)
def test_with_many_hyperparameters_two_of_three_early_suggestions_are_random(load, text, kind, first, share):
    settings = load(text, f"--sampler={kind}")
    suggester = Suggester(settings, costs=TrialCosts(settings, SIZES) if text is FRONT else None)
    past = {
        number: TrialRecord(suggester.start_point(number), "finished", {1: 0.5 + 0.01 * number}) for number in range(12)
    }
    numbers = range(first, first + (58 if share else 6))
    drawn = 0
    for number in numbers:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=suggester.seed(number)))
        sample(suggester.settings, (trial := study.ask()))
        asked = suggester.suggest(number, past)
        drawn += asked is not None and asked.params == trial.params
    assert drawn / len(numbers) == pytest.approx(share, abs=0.15)


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
def test_what_is_kept_between_suggestions_changes_none(load, monkeypatch, space, kind, trials):
    """Trials end in another order than they began in, so that scores, states and CMA-ES generations change later."""
    monkeypatch.setattr(Suggester, "random_share", 0.0)
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


def test_a_failed_trial_keeps_the_others_suggestions_coming(load, make, tmp_path):
    record = make(load(KD, "--trials=12"))
    play(record, 12, fail=lambda n: n % 4 == 1)
    states = [trial.state for trial in stored(tmp_path / "study.db")]
    assert states.count(TrialState.FAIL) == 3 and states.count(TrialState.COMPLETE) == 9
    scores = [trial.value for trial in stored(tmp_path / "study.db") if trial.state == TrialState.COMPLETE]
    assert scores == [t.series()[-1] for t in record.trials.values() if t.state == "finished"]


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
def test_the_sampler_beats_random_on_a_bowl(load, sampler, trials, seeds, flags):
    def best(name, seed):
        settings = load(NUMBERS, f"--trials={trials}", f"--sampler={name}", f"--seed={seed}", *flags)
        return best_of(SearchStudy(settings, None, "bowl", {}), trials)

    found = {name: statistics.median(best(name, seed) for seed in range(seeds)) for name in (sampler, "random")}
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
