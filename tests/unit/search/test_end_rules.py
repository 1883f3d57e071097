"""Searches end once a better configuration would gain less than a score is known to, and not before."""

import copy
import math

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from fsd_tune.search import end_rules
from fsd_tune.search.costs import TrialCosts
from fsd_tune.search.end_rules import EndRules
from fsd_tune.search.equal_methods import new_suggester
from fsd_tune.search.study import SearchStudy
from fsd_tune.search.trial_record import TrialRecord
from tests.helpers.studies import FIXED

SPACE = """
space: {alpha: {low: 0, high: 1}, temperature: 5, batch_size: 8, epochs: 1, learning_rate: {low: 1e-5, high: 1e-3}}
search: {trials: 40, stop_when: noise}
"""
KD = f"method: kd\n{SPACE}"
# Scores of this many examples are known to 1.3 points at 0.8.
EXAMPLES = ("accuracy", 1000)


def flat(config, noise):
    return 0.8 + 0.003 * noise


def steep(config, noise):
    """Far from the top wherever TPE has been: the best score rises with each better draw."""
    return 0.3 + 0.5 * config["alpha"] ** 8 * (config["learning_rate"] / 1e-3) ** 8


def play(study, score, trials=40):
    """Run trials until the study has no other one; every third is stopped at its first report."""
    for _ in range(trials):
        asked = study.ask()
        if asked is None:
            break
        number, config = asked
        value = score(config, np.random.default_rng(number).normal())
        study.report(number, 1, value)
        study.tell(number, "stopped" if number % 3 == 2 else "finished")
    return study


@pytest.fixture
def make(settings_from_yaml):
    def study(text=KD, *flags, past=None, examples=EXAMPLES):
        return SearchStudy(settings_from_yaml(text, *flags), None, "search", past or {}, examples=examples)

    return study


def test_a_search_whose_trials_differ_by_noise_alone_ends(make):
    study = play(make(), flat)
    assert len(study.trials) == end_rules.FIRST and study.rule.setting == "stop_when"
    assert "would gain at most" in study.rule.text and "1,000 examples show a score to 1.3 points" in study.rule.text


@pytest.mark.parametrize(
    ("score", "flags", "examples"),
    [
        (steep, (), EXAMPLES),
        (flat, (), ("accuracy", 1_000_000)),  # so many examples could show the difference
        (flat, ("--stop-when=null",), EXAMPLES),
        (flat, (), None),
    ],
)
def test_otherwise_it_goes_on(make, score, flags, examples):
    study = play(make(KD, *flags, examples=examples), score, 30)
    assert study.rule is None and len(study.trials) == 30


def test_a_continued_search_has_ended_too(make):
    ended = play(make(), flat)
    again = make(past=copy.deepcopy(ended.trials))
    assert again.rule == ended.rule and again.ask() is None
    assert make(KD, "--stop-when=null", past=ended.trials).ask() is not None


def test_each_compared_method_has_to_be_decided(make, settings_from_yaml):
    text = f"method: {{choice: [kd, rkd_angle]}}\n{SPACE.replace('{alpha', '{beta: 1, alpha')}"

    def one_learns(config, noise):
        return (steep if config["method"] == "kd" else flat)(config, noise)

    assert play(make(text), flat).rule is not None
    assert play(make(text), one_learns).rule is None
    few = new_suggester(settings_from_yaml(text)).believed(dict(list(play(make(text), flat).trials.items())[:8]))
    assert len(few) == 2 and [end_rules.gain_bound(known) for known in few] == [None, None]


def test_the_bound_holds_what_is_left_to_win():
    """On a parabola that was tried on its left side alone, the top may lie on the right."""
    distributions = {"x": FloatDistribution(0, 1)}

    def tried(points):
        return [create_trial(params={"x": x}, distributions=distributions, value=-((x - 0.8) ** 2)) for x in points]

    left, everywhere = (end_rules.gain_bound(tried(np.linspace(0, end, 20))) for end in (0.5, 1.0))
    assert left is not None and everywhere is not None
    assert left > 0.09 > 0.03 > everywhere


def test_nothing_searched_leaves_nothing_to_win():
    trials = [create_trial(value=0.5)] * 20
    assert end_rules.gain_bound(trials) == 0.0


def test_with_costs_a_search_stalls_once_nothing_is_added_to_the_front(settings_from_yaml):
    text = "method: kd\nspace: {alpha: {low: 0, high: 1}, temperature: 5}\nstudent: {layers: {choice: [2, 6]}}\n"
    settings = settings_from_yaml(text, "--objectives=score,latency_ms", "--stop-after-stalled=2", "--trials=20")
    costs = TrialCosts(settings, {(2, None): {"latency_ms": 1.0}, (6, None): {"latency_ms": 3.0}})

    def trial(layers, score):
        return TrialRecord({"layers": layers, "alpha": 0.5}, "finished", {1: score})

    def ends(*trials):
        """The rule that ended the search after these trials; a search continued before the last one ends alike."""
        past = dict(enumerate(trials))
        for number, each in past.items():
            each.ended_at = float(number)
        rules = EndRules(settings, past, new_suggester(settings, costs=costs), None)
        continued = EndRules(
            settings, {n: past[n] for n in range(len(past) - 1)}, new_suggester(settings, costs=costs), None
        )
        continued.ended(trials[-1], past)
        assert (rules.rule is None) == (continued.rule is None)
        return rules.rule

    best = trial(6, 0.9)
    assert ends(best, trial(2, 0.5), trial(2, 0.6), trial(2, 0.7)) is None, "each is the best of the fast ones"
    assert ends(best, trial(2, 0.7), trial(2, 0.6), trial(6, 0.95), trial(2, 0.7)) is None
    assert ends(best, trial(2, 0.7), TrialRecord({"layers": 2}, "stopped", {1: 0.9}), trial(2, 0.75)) is None
    rule = ends(best, trial(2, 0.7), trial(2, 0.7), trial(6, 0.9))
    assert rule is not None and rule.text == "stopped after 2 trials without one that adds to the front"
    assert ends(trial(2, 0.9), trial(6, 0.9), trial(6, 0.8)) is not None, "dominated by a faster one"
    assert ends(trial(2, 0.9), trial(2, math.nan), trial(2, 0.7)) is not None


def test_a_search_ends_after_trials_in_a_row_without_a_better_one(make):
    flags = ("--trials=20", "--stop-after-stalled=3")
    record = make(FIXED, *flags)

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
    again = make(FIXED, *flags, past=past)
    assert again.ask()[0] == late and again.ask() is None, "known to a continued search"
    assert make(FIXED, "--trials=20", "--stop-after-stalled=4", past=past).ask() is not None
    record.report(late, 1, 0.9)
    record.tell(late, "finished")
    assert record.trials[late].state == "finished"
