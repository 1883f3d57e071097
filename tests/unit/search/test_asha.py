"""ASHA driven by hand, as Tune's controller drives it; no Ray is started."""

import math
import random
from dataclasses import dataclass

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from fsd_tune.search.asha import ResumableAsha, rungs
from fsd_tune.search.costs import TrialCosts
from fsd_tune.search.trial_record import TrialRecord


@dataclass
class Trial:
    """What a scheduler looks at in Tune's trial."""

    trial_id: str
    tries_left: int = 0
    method: str = "kd"
    costs: tuple[float, float] = (0.0, 0.0)

    @property
    def config(self):
        return {"config": {"method": self.method, "costs": self.costs}}

    def should_recover(self):
        return self.tries_left > 0


def live(scheduler, trial, values, diverged=False):
    """Reports `values` until the scheduler stops the trial, as the controller does; returns the report it ended at."""
    scheduler.on_trial_add(None, trial)
    for report, value in enumerate(values, start=1):
        result = {"report": report, "accuracy": value}
        if report == len(values) and diverged:
            result["diverged"] = "loss is nan"
        # The last report of a trial ends it: the scheduler is not asked.
        last = report == len(values)
        if last or scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            scheduler.on_trial_complete(None, trial, result)
            return report
    raise AssertionError("no values")


def bars(scheduler):
    return [(rung, dict(recorded)) for rung, recorded in scheduler._brackets[0]._rungs]


@pytest.mark.parametrize("reports", [1, 2, 3, 4, 8, 9, 10, 27, 81, 100, 1000])
@pytest.mark.parametrize("factor", [2, 3, 4, 10])
def test_rungs_are_rays_with_a_whole_factor(factor, reports):
    for grace in range(1, min(reports, 6) + 1):
        scheduler = AsyncHyperBandScheduler(max_t=reports, grace_period=grace, reduction_factor=factor)
        # At its last report a trial is over: Ray never judges at a rung there.
        theirs = sorted(int(rung) for rung, _ in scheduler._brackets[0]._rungs if rung < reports)
        assert rungs(grace, factor, reports) == theirs


@pytest.mark.parametrize(
    ("grace", "factor", "reports", "expected"),
    [
        (1, 1.5, 10, [1, 2, 3, 4, 6, 8]),
        (1, 1.3, 8, [1, 2, 3, 4, 5, 7]),
        (2, 1 + 1e-12, 6, [2, 3, 4, 5]),
        (1, 1.01, 6, [1, 2, 3, 4, 5]),
        (10, 1.1, 13, [10, 11]),  # 12.1 is reached at report 13, the last
        (1, 2.5, 7, [1, 3]),
        (1, 2**0.5, 9, [1, 2, 3, 4, 6, 8]),
        (4, 3, 4, []),
        (1, 100, 10, [1]),
    ],
)
def test_rungs_of_other_factors_are_whole_and_distinct(grace, factor, reports, expected):
    assert rungs(grace, factor, reports) == expected


@pytest.mark.parametrize(
    ("grace", "factor", "reports"), [(1, 3, 10), (1, 2, 8), (2, 4, 40), (1, 1.3, 12), (3, 1.5, 20)]
)
def test_trials_are_judged_at_the_rungs_and_nowhere_else(grace, factor, reports):
    """A trial that is good until some report and then the worst of all is stopped at the first rung from there."""
    asha = ResumableAsha("accuracy", reports, grace, factor, {})
    assert live(asha, Trial("best"), [1.0] * reports) == reports
    for drop in range(1, reports + 1):
        values = [1.0] * (drop - 1) + [0.5 - 0.01 * drop] * (reports - drop + 1)
        expected = next((rung for rung in rungs(grace, factor, reports) if rung >= drop), reports)
        assert live(asha, Trial(str(drop)), values) == expected


def curves(trials, reports, seed):
    generator = random.Random(seed)
    return [
        [generator.random() ** 0.5 * report / reports + generator.gauss(0, 0.05) for report in range(1, reports + 1)]
        for _ in range(trials)
    ]


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_decisions_are_rays(factor, seed):
    ours = ResumableAsha("accuracy", 9, 1, factor, {})
    theirs = AsyncHyperBandScheduler(
        time_attr="report", metric="accuracy", mode="max", max_t=9, reduction_factor=factor
    )
    ends = [[live(asha, Trial(str(n)), c) for n, c in enumerate(curves(30, 9, seed))] for asha in (ours, theirs)]
    assert ends[0] == ends[1] and len(set(ends[0])) > 1
    assert ours.stopped == {str(number): end for number, end in enumerate(ends[0]) if end < 9}


@pytest.mark.parametrize("factor", [3, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_a_continued_search_judges_like_an_uninterrupted_one(factor, seed):
    played = curves(30, 9, seed)
    whole, past = ResumableAsha("accuracy", 9, 1, factor, {}), {}
    for number, values in enumerate(played[:15]):
        diverged = number % 5 == 3
        at = live(whole, Trial(f"past-{number}"), values[:4] if diverged else values, diverged)
        state = "failed" if diverged and at == 4 else "finished" if at == 9 else "stopped"
        past[number] = TrialRecord({}, state, dict(enumerate(values[:at], start=1)))
    again = ResumableAsha("accuracy", 9, 1, factor, past)
    assert bars(again) == bars(whole)
    for number, values in enumerate(played[15:], start=15):
        assert live(again, Trial(str(number)), values) == live(whole, Trial(str(number)), values)
    assert {trial for trial in whole.stopped if not trial.startswith("past")} == set(again.stopped)


def test_methods_have_bars_of_their_own():
    """Each method's trials end as if the others were not there, in a continued search, too."""
    played = {method: curves(16, 9, seed) for seed, method in enumerate(("kd", "ce"))}
    played["ce"] = [[value - 0.5 for value in values] for values in played["ce"]]
    together = ResumableAsha("accuracy", 9, 1, 3, {}, ("kd", "ce"))
    alone = {method: ResumableAsha("accuracy", 9, 1, 3, {}) for method in played}
    past: dict[int, TrialRecord] = {}
    ends: dict[str, list[int]] = {method: [] for method in played}
    for number in range(16):
        if number == 8:
            together = ResumableAsha("accuracy", 9, 1, 3, past, ("kd", "ce"))
        for method, values in played.items():
            end = live(together, Trial(f"{method}{number}", method=method), values[number])
            assert end == live(alone[method], Trial(str(number)), values[number])
            state = "finished" if end == 9 else "stopped"
            past[len(past)] = TrialRecord({"method": method}, state, dict(enumerate(values[number][:end], start=1)))
            ends[method].append(end)
    assert len(set(ends["ce"])) > 1
    table = together.table()
    assert [(rung.method, rung.report) for rung in table] == [(m, report) for m in ("kd", "ce") for report in (1, 3)]
    assert [rung.stopped for rung in table] == [ends[rung.method].count(rung.report) for rung in table]
    for rung in table:
        same = next(its for its in alone[rung.method].table() if its.report == rung.report)
        assert (rung.values, rung.bar) == (same.values, same.bar)


def test_an_interrupted_trial_sets_the_bars_that_it_had_passed_at_its_checkpoint():
    past = {
        0: TrialRecord({}, "running", {1: 0.9}),
        1: TrialRecord({}, "finished", {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.8}),
        2: TrialRecord({}, "running", {}),
    }
    asha = ResumableAsha("accuracy", 4, 1, 3, past)
    assert bars(asha) == [(3, {"past-1": 0.7}), (1, {"past-0": 0.9, "past-1": 0.5})]


def test_a_diverged_trial_sets_no_bar():
    asha = ResumableAsha("accuracy", 9, 1, 3, {})
    assert live(asha, Trial("diverging"), [0.9, 0.9, 0.9, math.nan], diverged=True) == 4
    assert live(asha, Trial("at once"), [0.9], diverged=True) == 1
    assert all(not recorded for _, recorded in bars(asha))
    assert live(asha, Trial("modest"), [0.5] * 9) == 9
    assert live(asha, Trial("worse"), [0.4] * 9) == 1


def test_a_crashed_trial_sets_no_bar_unless_it_is_tried_again():
    asha = ResumableAsha("accuracy", 9, 1, 3, {})
    trial = Trial("crashing", tries_left=1)
    asha.on_trial_add(None, trial)
    asha.on_trial_result(None, trial, {"report": 1, "accuracy": 0.9})
    asha.on_trial_error(None, trial)
    assert bars(asha)[-1] == (1, {"crashing": 0.9})
    # It repeats a report from its checkpoint, and is not judged twice.
    assert asha.on_trial_result(None, trial, {"report": 1, "accuracy": 0.1}) == TrialScheduler.CONTINUE
    trial.tries_left = 0
    asha.on_trial_error(None, trial)
    assert bars(asha)[-1] == (1, {})


class Costs(TrialCosts):
    """Costs that the trials name themselves."""

    def __init__(self):
        self.names = ("latency_ms", "size_mb")

    def of(self, params):
        return params["costs"]


def order_of_nsga2(points):
    """The points from first to last, by non-dominated rank and then crowding distance; without ties."""
    left, order = list(range(len(points))), []
    while left:
        front = [i for i in left if not any(all(points[j] >= points[i]) and any(points[j] > points[i]) for j in left)]
        distances = dict.fromkeys(front, 0.0)
        for column in range(points.shape[1]):
            values = sorted(points[i, column] for i in front)
            for i in front:
                place = values.index(points[i, column])
                is_end = place in (0, len(values) - 1)
                width = values[-1] - values[0]
                distances[i] += math.inf if is_end else (values[place + 1] - values[place - 1]) / width
        order += sorted(front, key=lambda i: -distances[i])
        left = [i for i in left if i not in front]
    return order


def by_costs(trials, seed):
    """Trials whose last value grows with their costs, and their curves."""
    generator = random.Random(seed)
    for number, values in enumerate(curves(trials, 9, seed)):
        costs = (generator.uniform(1, 4), generator.uniform(10, 50))
        yield Trial(str(number), costs=costs), [value + costs[0] / 8 for value in values]


@pytest.mark.parametrize("factor", [2, 3])
def test_with_costs_a_trial_goes_on_if_it_is_among_the_first_in_the_order_of_nsga2(factor):
    asha, known = ResumableAsha("accuracy", 9, 1, factor, {}, costs=Costs()), []
    stopped = []
    for trial, values in by_costs(40, seed=1):
        point = [values[0], *(-cost for cost in trial.costs)]
        known.append(point)
        place = order_of_nsga2(np.asarray(known)).index(len(known) - 1)
        goes_on = live(asha, trial, values) > 1
        # Ends of a front have an infinite distance, so several trials can share a place.
        if goes_on != (place < len(known) / factor):
            assert goes_on and place < len(known) / factor + 2 * len(point)
        stopped.append(not goes_on)
    # The first ones go on more often, because many of them are ends of a front.
    assert 0.35 < sum(stopped) / len(stopped) < 1 - 1 / factor + 0.1
    (first, *_) = asha.table()
    assert (first.report, len(first.values), first.stopped) == (1, 40, sum(stopped)) and math.isnan(first.bar)


def test_with_costs_a_trial_is_judged_against_those_that_cost_no_more():
    asha = ResumableAsha("accuracy", 9, 1, 4, {}, costs=Costs())
    for number in range(6):
        live(asha, Trial(f"large {number}", costs=(4.0, 40.0 + number)), [0.9 - number / 100] * 9)
    assert live(asha, Trial("small", costs=(1.0, 10.0)), [0.6] * 9) == 9, "worse than all, but cheaper"
    assert live(asha, Trial("another", costs=(1.0, 10.0)), [0.5] * 9) == 1, "dominated by a trial of its cost"
    assert live(asha, Trial("worst", costs=(4.0, 50.0)), [0.5] * 9) == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_continued_search_with_costs_judges_like_an_uninterrupted_one(seed):
    played = list(by_costs(30, seed))
    methods = ("kd", "ce")
    for number, (trial, _) in enumerate(played):
        trial.method = methods[number % 2]
    whole, past = ResumableAsha("accuracy", 9, 1, 3, {}, methods, Costs()), {}
    for number, (trial, values) in enumerate(played[:15]):
        at = live(whole, trial, values)
        state = "finished" if at == 9 else "stopped"
        params = {"method": trial.method, "costs": trial.costs}
        past[number] = TrialRecord(params, state, dict(enumerate(values[:at], start=1)))
    again = ResumableAsha("accuracy", 9, 1, 3, past, methods, Costs())
    for trial, values in played[15:]:
        assert live(again, trial, values) == live(whole, trial, values)
    assert {trial for trial in whole.stopped if int(trial) >= 15} == set(again.stopped)
    found, expected = again.table(), whole.table()
    assert [(rung.method, rung.report, rung.stopped) for rung in found] == [
        (rung.method, rung.report, rung.stopped) for rung in expected
    ]


def test_without_costs_among_the_objectives_decisions_are_those_of_the_score():
    class OnlyLimits(Costs):
        def __init__(self):
            self.names = ()

    with_limits, plain = (ResumableAsha("accuracy", 9, 1, 3, {}, costs=costs) for costs in (OnlyLimits(), None))
    for trial, values in by_costs(30, seed=2):
        assert live(with_limits, trial, values) == live(plain, trial, values)


def test_a_value_that_is_no_number_judges_no_other_trial():
    asha = ResumableAsha("accuracy", 9, 1, 3, {}, costs=Costs())
    assert live(asha, Trial("odd", costs=(1.0, 1.0)), [math.nan] * 9) == 9
    assert live(asha, Trial("first", costs=(2.0, 2.0)), [0.5] * 9) == 9
    assert live(asha, Trial("dominated", costs=(3.0, 3.0)), [0.4] * 9) == 1
