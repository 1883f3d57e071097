"""Searches that start from earlier ones: they gain on related tasks, and lose little where nothing is in common."""

import numpy as np
import pytest

from benchmarks import replay, searches, strategies, warm
from benchmarks.recommendations import OWN
from benchmarks.tables import Table

SEARCHES = 6
# A quarter, half and all of the budget, where `make bench-search` judges.
PARTS = (4, 9, 19)


def task(name, centre, count=300, reports=6):
    """A task whose best configuration is at `centre`; tasks of the same count have the same configurations."""
    points = np.random.default_rng(0).random((count, 4))
    worth = 1 - ((points - centre) ** 2 * [3, 2, 1, 0.5]).sum(axis=1)
    curves = worth[:, None] * (1 - np.exp(-np.arange(1, reports + 1)))
    return Table(name, points, curves[None], worth)


@pytest.fixture(scope="module")
def regrets():
    """Mean regrets at `PARTS` of searches without earlier ones, with a related one and with a reversed one.

    Of what a search would hand out, and of the truly best configuration that it has tried.
    """
    new, other = task("new", [0.2, 0.7, 0.4, 0.6]), task("other", [0.25, 0.8, 0.5, 0.5])
    rules = {
        "said": OWN["all"],
        "tried": lambda trials: max((t.row for t in trials if t.values), key=new.worth.__getitem__, default=None),
    }
    searches_by = {
        "alone": lambda search: strategies.Ours(new, new.search_seed(search)),
        "related": lambda search: warm.warm(new, search, [other], warm.searched),
        "reversed": lambda search: warm.warm(new, search, [other], warm.searched_reversed),
    }
    found = {}
    for kind, make in searches_by.items():
        played = [replay.replay(new, make(search), search, rules) for search in range(SEARCHES)]
        found[kind] = {
            rule: float(np.mean([[each[rule][part] for part in PARTS] for each in played])) for rule in rules
        }
    return found


def test_a_related_task_helps(regrets):
    assert regrets["related"]["tried"] < 0.7 * regrets["alone"]["tried"], regrets


def test_a_reversed_task_hurts_little(regrets):
    """The earlier search was on a task where the best configurations here were the worst."""
    assert regrets["reversed"]["said"] <= 1.1 * regrets["alone"]["said"], regrets


def test_related_are_the_tables_of_the_same_configurations():
    tables = [task(name, 0.5) for name in "abcde"]
    other = task("a2", 0.5, count=299)
    assert [t.name for t in warm.related(tables[3], [other, *tables])] == ["e", "a", "b"]
    assert warm.related(other, [other, *tables]) == []


def test_the_trials_of_earlier_searches_come_after_the_first_one():
    new, other = task("new", 0.5), task("other", 0.3)
    ours = warm.warm(new, 0, [other], warm.known)
    points = [ours.ask()[1] for _ in range(2)]
    assert points[1] == pytest.approx(other.points[other.worth.argmax()], abs=1e-6)
    assert [bool(ours.trials[number].origin) for number in range(2)] == [False, True]


def test_without_related_tables_there_is_nothing_to_measure(tmp_path, monkeypatch, capsys):
    table = task("alone", 0.5)
    np.savez(tmp_path / "alone.npz", U=table.points, curves=table.curves, worth=table.worth)
    monkeypatch.setattr("sys.argv", ["bench", "--warm", "--tables", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        searches.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: --warm: found no tables of the same")
