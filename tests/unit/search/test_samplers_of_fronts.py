"""Suggestions for several objectives: those of Optuna's own samplers on a study of scores and exact costs.

Suggestions for the score alone are tested in `test_samplers.py`.
"""

import itertools
import random
import statistics

import numpy as np
import optuna
import pytest

from fsd_tune.report.front import hypervolume
from fsd_tune.search.costs import Shape, TrialCosts
from fsd_tune.search.equal_methods import EqualMethods
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.study import quiet_optuna
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.settings.comparing import settings_of_method
from fsd_tune.settings.configuration import sample

SPACE = """
space:
  alpha: {low: 0.1, high: 0.9}
  temperature: {low: 1, high: 8}
  learning_rate: {low: 1e-5, high: 1e-3, log: true}
  batch_size: {choice: [16, 32], when: {method: [kd]}}
student: {layers: {choice: [2, 4, 6]}}
search: {objectives: [score, latency_ms, size_mb], trials: 40}
"""
KD = f"method: kd\n{SPACE}"
METHODS = f"method: {{choice: [kd, ce]}}\n{SPACE}  compare_methods: best_overall\n".replace(
    "trials: 40}\n  compare_methods: best_overall", "trials: 40, compare_methods: best_overall}"
)
# The smaller student is faster and larger on disk, so that all of them are on the front.
COSTS: dict[Shape, dict[str, float]] = {
    (2, None): {"latency_ms": 1.0, "size_mb": 60.0},
    (4, None): {"latency_ms": 2.0, "size_mb": 40.0},
    (6, None): {"latency_ms": 3.0, "size_mb": 20.0},
}
REPORTS = 4


@pytest.fixture
def make(settings_from_yaml):
    def make(text, *flags):
        settings = settings_from_yaml(text, *flags)
        return settings, TrialCosts(settings, COSTS)

    return make


def end(trial, rng):
    """Ends a trial in some state with some values."""
    trial.state = rng.choice(["finished", "finished", "stopped", "stopped", "failed"])
    reports = REPORTS if trial.state == "finished" else rng.randrange(REPORTS)
    trial.values = {report: rng.random() + report / 5 for report in range(1, reports + 1)}


def slow_suggestion(suggester, number, trials, kind):
    """A suggestion from a study of several objectives that is built for it alone, with Optuna's own sampler."""
    finished = [trial for trial in trials.values() if trial.state == "finished"]
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    states = {"finished": "COMPLETE", "stopped": "COMPLETE", "failed": "FAIL", "running": "RUNNING"}
    for _, trial in sorted(trials.items()):
        values = None
        if trial.state in ("finished", "stopped") and trial.values:
            report = max(trial.values)
            gains = [other.values[REPORTS] - other.values[report] for other in finished]
            score = trial.values[report] + (statistics.median(gains) if gains else 0.0)
            costs = COSTS[trial.params["layers"], None]
            values = [score, costs["latency_ms"], costs["size_mb"]]
        state = states[trial.state] if values or trial.state == "running" else "FAIL"
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[state],
                values=values,
                params=trial.params,
                distributions={name: suggester.distributions[name] for name in trial.params},
            )
        )
    seed = suggester.seed(number)
    study.sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=0, multivariate=True, group=True, constant_liar=True
    )
    if kind == "gp":
        study.sampler = optuna.samplers.GPSampler(seed=seed, independent_sampler=study.sampler, n_startup_trials=4)
    asked = study.ask()
    sample(suggester.settings, asked)
    return asked.params


@quiet_optuna()
@pytest.mark.parametrize(("space", "kind", "trials"), [(KD, "tpe", 30), (METHODS, "tpe", 30), (KD, "gp", 12)])
def test_several_objectives_are_learned_as_optuna_learns_them(make, space, kind, trials):
    settings, costs = make(space, f"--sampler={kind}")
    suggester = Suggester(settings, costs=costs)
    past: dict[int, TrialRecord] = {}
    running: list[int] = []
    rng = random.Random(1)
    compared = 0
    for number in range(trials):
        asked = suggester.suggest(number, past)
        assert asked is not None
        if (number > 10 and number % 3 == 0) or (kind == "gp" and number > 10):
            slow = slow_suggestion(suggester, number, past, kind)
            is_new = all(trial.params != slow for trial in past.values())
            assert (asked.params == slow) == is_new
            compared += is_new
        past[number] = asked
        running.append(number)
        while len(running) > 4:
            end(past[running.pop(rng.randrange(len(running)))], rng)
    assert compared >= min(5, trials - 11) and {trial.state for trial in past.values()} == {
        "finished",
        "stopped",
        "failed",
        "running",
    }


@quiet_optuna()
def test_no_configuration_is_tried_twice_while_there_are_others(make):
    space = KD.replace("{low: 0.1, high: 0.9}", "{choice: [0.2, 0.5]}").replace("{low: 1, high: 8}", "{choice: [1, 4]}")
    space = space.replace("{low: 1e-5, high: 1e-3, log: true}", "1e-4")
    settings, costs = make(space)
    suggester = Suggester(settings, costs=costs)
    past: dict[int, TrialRecord] = {}
    for number in range(18):  # of 24 combinations
        asked = suggester.suggest(number, past)
        assert asked is not None
        asked.state, asked.values = "finished", {REPORTS: asked.params["alpha"]}
        past[number] = asked
    drawn = [tuple(sorted(trial.params.items())) for number, trial in past.items() if number >= 10]
    started = {tuple(sorted(past[number].params.items())) for number in range(10)}
    assert len(set(drawn)) == len(drawn) and not started & set(drawn)


@quiet_optuna()
def test_each_method_is_searched_for_its_own_front(make):
    settings, costs = make(METHODS, "--compare-methods=equal", "--trials=30")
    together = EqualMethods(settings, costs=costs)
    alone = Suggester(settings_of_method(settings, "ce"), costs=costs)
    past: dict[int, TrialRecord] = {}
    rng = random.Random(2)
    for number in range(30):
        asked = together.suggest(number, past)
        assert asked is not None
        if asked.params["method"] == "ce":
            own = [trial for trial in past.values() if trial.params["method"] == "ce"]
            suggested = alone.suggest(len(own), dict(enumerate(own)))
            assert suggested is not None and suggested.params == asked.params
        past[number] = asked
        end(asked, rng)
    assert {trial.params["method"] for trial in past.values()} == {"kd", "ce"}


def test_the_front_is_found(make):
    """Deeper students are better, and each depth has its own best alpha."""
    best = {2: 0.25, 4: 0.5, 6: 0.75}
    volumes = {"tpe": 0.0, "random": 0.0}
    for sampler, seed in itertools.product(volumes, range(2)):
        settings, costs = make(KD, f"--sampler={sampler}", f"--seed={seed}", "--objectives=score,latency_ms")
        suggester = Suggester(settings, costs=costs)
        past: dict[int, TrialRecord] = {}
        with quiet_optuna():
            for number in range(40):
                asked = suggester.suggest(number, past)
                assert asked is not None
                layers, alpha, temperature = (asked.params[name] for name in ("layers", "alpha", "temperature"))
                score = 0.8 + layers / 40 - abs(alpha - best[layers]) - (temperature - 1) / 10
                asked.state, asked.values = "finished", {REPORTS: score}
                past[number] = asked
        points = [[trial.values[REPORTS], -costs.of(trial.params)[0]] for trial in past.values()]
        volumes[sampler] += hypervolume(np.asarray(points), np.asarray([0.6, -4.0]))
    assert volumes["tpe"] > 1.2 * volumes["random"]
