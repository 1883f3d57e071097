"""Searches that pause trials at rungs, and the replay that lets a paused trial continue."""

import numpy as np
import pytest

from benchmarks import promotion, recommendations, replay, tables


@pytest.fixture
def table():
    points = np.random.default_rng(0).random((30, 2))
    worth = 1 - ((points - 0.3) ** 2).sum(axis=1)
    curves = worth[:, None] * np.linspace(0.5, 1, 10)
    return tables.Table("toy", points, curves[None], worth)


def test_the_best_third_at_a_rung_continues(table):
    search = promotion.Paused(table, 0)
    numbers = [search.ask()[0] for _ in range(3)]
    assert numbers == [0, 1, 2]
    assert all(search.report(number, 1, value, False) for number, value in zip(numbers, (0.1, 0.5, 0.3), strict=True))
    assert search.ask()[0] == 1, "the best of three"
    assert not search.report(1, 2, 0.2, False), "no rung"
    assert search.ask()[0] == 3, "the best has continued, so a new trial"
    assert search.report(1, 3, 0.2, False)
    assert search.report(3, 1, float("nan"), False)
    assert search.ask()[0] == 4, "a diverged trial neither counts nor continues"


def test_pasha_opens_a_rung_when_orders_differ(table):
    def searched(at_three):
        search = promotion.Progressive(table, 0)
        for number in [search.ask()[0] for _ in range(9)]:
            search.report(number, 1, number / 10, False)
        for number, value in zip((8, 7, 6), at_three, strict=True):
            assert search.ask()[0] == number
            search.report(number, 2, value, False)
            search.report(number, 3, value, False)
        return search.ask()[0]

    assert searched((0.9, 0.8, 0.7)) == 9, "one order: nothing continues beyond report 3"
    assert searched((0.7, 0.8, 0.9)) == 6, "another order: the best at report 3 continues"


def test_a_trial_that_was_stopped_can_continue(table, monkeypatch):
    class Pausing:
        """Pauses its only trial at each report."""

        def __init__(self):
            self.reports = []

        def ask(self):
            return "one", table.points[4]

        def report(self, key, report, value, last):
            self.reports.append((report, last))
            return not last

    monkeypatch.setattr(replay, "WORKERS", 1)
    monkeypatch.setattr(replay, "BUDGET", 0.999 * table.durations[4])
    strategy = Pausing()
    replay.replay(table, strategy, 0, {"last": recommendations.SCOPES["last"]})
    assert strategy.reports == [(report, report == 10) for report in range(1, 10)]
