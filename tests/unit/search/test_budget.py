"""What ended a search, in words."""

from fsd_tune.search import budget
from fsd_tune.search.end_rules import EndRule
from tests.helpers.studies import GRID, KD, METHODS


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
