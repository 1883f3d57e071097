"""Costs and limits of trials by the shape of their student."""

import itertools

import pytest

from fsd_tune.search.costs import TrialCosts
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.study import quiet_optuna
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.settings.shapes import student_of, students

SPACE = """
method: kd
space: {alpha: {low: 0.1, high: 0.9}, temperature: 5}
student: {layers: {choice: [2, 4, 6]}, start: {choice: [copy, random]}, hidden_size: {choice: [null, 96, 192]}}
"""


def by_shape(settings):
    """More layers and more width cost more; the teacher is 384 wide."""
    shapes = {(student.layers, student.hidden_size) for student in students(settings)}
    return {
        (layers, width): {"latency_ms": layers * (width or 384) / 384, "size_mb": 10.0 + layers * (width or 384) / 96}
        for layers, width in shapes
    }


@pytest.fixture
def make(settings_from_yaml):
    def make(*flags, text=SPACE):
        settings = settings_from_yaml(text, *flags)
        return settings, TrialCosts(settings, by_shape(settings))

    return make


def test_costs_are_those_of_the_shape_in_the_order_of_the_objectives(make):
    _, costs = make("--objectives=size_mb,score,latency_ms")
    assert costs.names == ("size_mb", "latency_ms")
    assert costs.of({"layers": 4, "start": "copy", "alpha": 0.3}) == (26.0, 4.0)
    assert costs.of({"layers": 4, "start": "random", "hidden_size": 96}) == (14.0, 1.0)
    assert costs.of({"method": "kd", "layers": 4, "start": "copy", "hidden_size": None, "alpha": 0.3}) == (26.0, 4.0)
    assert make()[1].of({"layers": 4, "start": "copy"}) == ()
    fixed = "method: kd\nspace: {alpha: {low: 0.1, high: 0.9}, temperature: 5}\nstudent: {layers: 3}\n"
    assert make("--objectives=score,latency_ms", text=fixed)[1].of({"alpha": 0.3}) == (3.0,)


@pytest.mark.parametrize(
    ("limits", "given", "expected"),
    [
        ("latency_ms: 4", {"layers": 4, "start": "copy"}, {"layers": 4, "start": "copy"}),  # at the limit
        ("latency_ms: 3.9", {"layers": 6, "start": "copy"}, {"layers": 2, "start": "copy"}),
        # The depth stays nearer with less width.
        (
            "latency_ms: 3.5",
            {"layers": 6, "start": "random", "hidden_size": None},
            {"layers": 6, "start": "random", "hidden_size": 192},
        ),
        (
            "{latency_ms: 3.5, size_mb: 16.5}",
            {"layers": 6, "start": "random", "hidden_size": None},
            {"layers": 6, "start": "random", "hidden_size": 96},
        ),
        # No student that starts as a copy is small enough.
        ("latency_ms: 1", {"layers": 4, "start": "copy"}, {"layers": 4, "start": "random", "hidden_size": 96}),
        ("latency_ms: 0.6", {"layers": 6, "start": "copy"}, {"layers": 2, "start": "random", "hidden_size": 96}),
    ],
)
def test_a_shape_over_a_limit_becomes_the_nearest_that_is_allowed(make, limits, given, expected):
    _, costs = make(f"--limits={limits}")
    params = {"alpha": 0.3, **given}
    assert costs.allowed(params) == {"alpha": 0.3, **expected}
    assert costs.allows(params) == (given == expected)


def test_every_replacement_is_a_shape_of_the_space_within_the_limits(make):
    settings, costs = make("--limits={latency_ms: 2, size_mb: 20}")
    shapes = by_shape(settings)
    for layers, start, width in itertools.product((2, 4, 6), ("copy", "random"), (None, 96, 192)):
        params = {"layers": layers, "start": start} | ({"hidden_size": width} if start == "random" else {})
        student = student_of(settings, costs.allowed(params))
        assert student in students(settings)
        assert shapes[student.layers, student.hidden_size]["latency_ms"] <= 2


@quiet_optuna()
@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_no_suggestion_is_over_a_limit(make, sampler):
    settings, costs = make(
        "--limits=latency_ms: 2", "--objectives=score,size_mb", f"--sampler={sampler}", "--trials=16"
    )
    suggester = Suggester(settings, costs=costs)
    past: dict[int, TrialRecord] = {}
    for number in range(14):
        record = suggester.suggest(number, past)
        assert record is not None and costs.allows(record.params)
        record.state, record.values = "finished", {1: 0.5 + record.params["layers"] / 100}
        past[number] = record
    assert len({costs.of(trial.params) for trial in past.values()}) > 1
