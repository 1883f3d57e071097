"""Methods that are compared in one search get equal shares of it, whatever their names and their order."""

import copy
import itertools

import pytest

from fsd_tune.search import budget
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.study import SearchStudy, quiet_optuna
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.settings.methods import default
from tests.helpers.worlds import SPACE, World, reports_by_method, winner

METHODS = ("kd", "fsd_il", "fsd_ilg")


@pytest.fixture
def compared(settings_from_yaml):
    """Settings of a search over methods."""

    def load(*flags, methods=METHODS, space=SPACE):
        return settings_from_yaml(f"method: {{choice: [{', '.join(methods)}]}}\n{space}", *flags)

    return load


def history(trials):
    return [(number, trial.params, trial.state, trial.values) for number, trial in sorted(trials.items())]


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("seed", range(2))
def test_methods_that_are_equally_good_get_equal_shares(compared, workers, seed):
    trials = World(compared(f"--seed={seed}"), workers=workers).play(64)
    spent = reports_by_method(trials)
    equal = sum(spent.values()) / len(METHODS)
    assert spent.keys() == set(METHODS) and all(abs(reports / equal - 1) < 0.2 for reports in spent.values()), spent
    finished = {trial.params["method"] for trial in trials.values() if trial.state == "finished"}
    assert finished == set(METHODS)


def test_best_overall_spends_as_the_sampler_likes(compared):
    spent = reports_by_method(World(compared("--compare-methods=best_overall")).play(64))
    equal = sum(spent.values()) / len(METHODS)
    assert max(spent.values()) > 1.5 * equal, spent


@pytest.mark.parametrize("better", METHODS)
def test_the_order_of_the_names_has_no_effect(compared, better):
    """All trials are the same, so a method wins as often first in the list as last."""
    played = [
        World(compared("--trials=30", methods=methods), {better: 1.0}, workers=2).play(30)
        for methods in itertools.permutations(METHODS)
    ]
    assert all(history(trials) == history(played[0]) for trials in played[1:])


def test_a_better_method_wins_whatever_its_name(compared):
    wins = [
        winner(World(compared(f"--seed={seed}"), {better: 2.0}, workers=2).play(64)) == better
        for better in METHODS
        for seed in range(2)
    ]
    assert sum(wins) >= 5, wins


@pytest.mark.parametrize("workers", [1, 3])
def test_every_method_begins_with_its_defaults(compared, workers):
    first = "--first=[{alpha: 0.2, gamma_g: 3}, {method: kd, temperature: 2}, {method: fsd_il}]"
    trials = World(compared("--learning-rate={low: 1e-5, high: 1e-4}", first), workers=workers).play(30)
    begun = [trials[number].params for number in range(len(METHODS))]
    assert {params["method"] for params in begun} == set(METHODS)
    for params in begun:
        assert all(value == default(params["method"], name) for name, value in params.items() if name != "method")
    own = {method: [t.params for t in trials.values() if t.params["method"] == method] for method in METHODS}
    # What names no method is tried by each of them, with the hyperparameters that it has.
    assert [own[method][1]["alpha"] for method in METHODS] == [0.2] * 3 and own["fsd_ilg"][1]["gamma_g"] == 3
    assert own["kd"][2]["temperature"] == 2 and all(params["temperature"] != 2 for params in own["fsd_ilg"])


@quiet_optuna()
@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "gp"])
def test_a_method_is_searched_as_if_it_were_alone(compared, settings_from_yaml, sampler):
    """The trials of the others change nothing of what is suggested: parameters, generation and when are its own."""
    trials = 18 if sampler == "gp" else 60
    world = World(compared(f"--sampler={sampler}", f"--trials={trials}"))
    own = [trial for _, trial in sorted(world.play(trials).items()) if trial.params["method"] == "kd"]
    space = "\n".join(line for line in SPACE.splitlines() if "beta" not in line and "gamma" not in line)
    alone = Suggester(settings_from_yaml(f"method: kd\n{space}", f"--sampler={sampler}", f"--trials={trials // 3}"))
    known: dict[int, TrialRecord] = {}
    assert len(own) > 4
    for number, trial in enumerate(own):
        suggested = alone.suggest(number, known)
        assert suggested is not None
        assert ({"method": "kd"} | suggested.params, suggested.generation) == (trial.params, trial.generation)
        params = {name: value for name, value in trial.params.items() if name != "method"}
        known[number] = TrialRecord(params, trial.state, trial.values, trial.generation)


def test_conditions_hold_and_the_study_is_told_the_truth(compared):
    space = SPACE + "  batch_size: {choice: [16, 32], when: {method: [kd]}}\n"
    world = World(compared("--trials=20", space=space))
    trials = world.play(20)
    for frozen in world.study.study.trials:
        trial = trials[frozen.number]
        assert frozen.params == trial.params and frozen.intermediate_values == trial.values
        assert frozen.state.name == {"finished": "COMPLETE", "stopped": "PRUNED"}[trial.state]
        assert ("batch_size" in frozen.params) == (frozen.params["method"] == "kd")
        assert frozen.distributions["method"].choices == METHODS


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_continued_search_goes_on_as_an_uninterrupted_one(compared, sampler):
    settings = compared("--trials=30", f"--sampler={sampler}")
    whole = World(settings).play(30)
    part = copy.deepcopy(World(settings).play(13))
    last = part[12]
    values = {report: value for report, value in last.values.items() if report < len(last.values)}
    part[12] = TrialRecord(last.params, values=values, generation=last.generation)  # interrupted
    assert history(World(settings, past=part).play(18)) == history(whole)


def test_a_method_that_always_crashes_does_not_take_the_trials(compared):
    trials = World(compared("--trials=30"), crashes="fsd_il", workers=2).play(30)
    crashed = sum(trial.state == "failed" for trial in trials.values())
    assert 5 <= crashed <= 13


def test_a_method_of_which_nothing_is_searched_has_one_trial(compared):
    space = "space: {alpha: {low: 0, high: 1}, temperature: 5}\n"
    settings = compared(methods=("ce", "kd"), space=space)
    assert budget.notes(settings) == ["ce: has one trial, because nothing of it is searched."]
    study = SearchStudy(settings, None, "search", {})
    methods = []
    for _ in range(8):
        asked = study.ask()
        assert asked is not None
        number, config = asked
        methods.append(config["method"])
        study.report(number, 1, 0.5)
        study.tell(number, "stopped")
    assert methods.count("ce") == 1 and "ce" in methods[:2]
