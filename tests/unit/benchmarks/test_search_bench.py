"""The bench of searches: tables and what a search may see of them, the simulated time, ratios and their intervals."""

import argparse
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.analysis import ExperimentAnalysis

from benchmarks import picture, ratios, recommendations, replay, replays, searches, strategies, tables
from benchmarks.ratios import Searches
from benchmarks.recommendations import Trial


def table_of(count=12, seeds=1, reports=4, name="toy", dimensions=2):
    rng = np.random.default_rng(0)
    points = rng.random((count, dimensions))
    worth = 1 - ((points - 0.3) ** 2).sum(axis=1)
    curves = worth * np.linspace(0.5, 1, reports)[:, None]
    return tables.Table(name, points, np.stack([curves.T] * seeds), worth)


def write(path, table, prefix="", **changed):
    arrays = {"U": table.points, "curves": table.curves, "worth": table.worth} | changed
    np.savez(path, **{f"{prefix}{name}": array for name, array in arrays.items() if array is not None})
    return path


def test_tables_are_read_with_and_without_names(tmp_path):
    table = table_of()
    write(tmp_path / "b.npz", table, "pair/", U=np.c_[table.points, np.full(12, np.nan)])
    write(tmp_path / "a.npz", table)
    found = tables.read([tmp_path])
    assert [each.name for each in found] == ["a", "pair"]
    for each in found:
        assert np.array_equal(each.points, table.points), "a column of NaN says nothing"
        assert each.nearest(table.points[5] + 1e-3) == 5
        order = [each.nearest(table.points[5], taken) for taken in ({5}, set(range(12)))]
        distances = ((table.points - table.points[5]) ** 2).sum(axis=1)
        assert order == [int(distances.argsort()[1]), 5], "a taken one only when all are"


def test_every_problem_is_named_with_its_file(tmp_path):
    table = table_of()
    write(tmp_path / "no_worth.npz", table, worth=None)
    write(tmp_path / "other_counts.npz", table, worth=table.worth[:-1])
    write(tmp_path / "outside.npz", table, U=table.points * 7)
    write(tmp_path / "nothing.npz", table, U=None, curves=None, worth=None, other=np.ones(3))
    (tmp_path / "text.npz").write_text("x")
    with pytest.raises(tables.TableError) as caught:
        tables.read([tmp_path, tmp_path / "missing"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    for line, said in zip(
        sorted(lines),
        (
            "missing: no such file",
            "no_worth: lacks worth",
            "found other, but",
            "12, 12 and 11 configurations",
            "outside of 0..1",
            "cannot be read",
        ),
        strict=True,
    ):
        assert said in line, line


def test_several_seeds_judge_by_those_that_the_search_did_not_see():
    table = table_of(seeds=3)
    table.curves[1] += 0.125
    table.curves[2, 4, -1] = np.nan
    for search, seed in ((0, 0), (1, 1), (5, 2)):
        seen = table.seen(search)
        assert seen.seed == seed and np.array_equal(seen.curves, table.curves[seed], equal_nan=True)
    assert table.seen(2).worth == pytest.approx((table.curves[0, :, -1] + table.curves[1, :, -1]) / 2)
    diverged = table.seen(0).worth[4]
    assert diverged == pytest.approx((table.curves[1, 4, -1] + np.nanmin(table.curves)) / 2)


def test_one_seed_is_seen_with_noise_and_judged_without():
    table = table_of(count=4000, reports=4)
    first, again, other = table.seen(0), table.seen(0), table.seen(1)
    assert np.array_equal(first.curves, again.curves) and not np.array_equal(first.curves, other.curves)
    assert np.array_equal(first.worth, table.worth)
    noise = first.curves - table.curves[0]
    assert 0.97 * table.unit < noise[:, -1].std() < 1.53 * table.unit
    # The common part correlates two reports by 0.64 sqrt(0.5) / sqrt((0.32 + 0.36) (0.64 + 0.36)).
    assert np.corrcoef(noise[:, 1], noise[:, -1])[0, 1] == pytest.approx(0.5489, abs=0.05)
    assert table.durations.mean() == pytest.approx(1) and table.durations.std() > 0.2


class Scripted:
    """Suggests rows in turn, and stops those of `stops` after a report."""

    def __init__(self, table, stops):
        self.table, self.stops, self.count, self.heard = table, stops, 0, []

    def ask(self):
        self.count += 1
        return self.count - 1, self.table.points[(self.count - 1) % len(self.table.points)]

    def report(self, key, report, value, last):
        self.heard.append((key, report, last))
        return self.stops.get(key) == report


def test_time_passes_as_long_as_trials_take(monkeypatch):
    table = table_of(seeds=2, reports=4)
    durations = np.r_[1.0, 2.0, np.ones(10)]
    monkeypatch.setattr(tables.Table, "durations", durations)
    monkeypatch.setattr(replay, "WORKERS", 2)
    monkeypatch.setattr(replay, "BUDGET", 4.0)
    monkeypatch.setattr(replay, "POINTS", 4)
    strategy = Scripted(table, {0: 2})
    found = replay.replay(table, strategy, 0, {"last": recommendations.SCOPES["last"]})["last"]
    # Trial 0 stops at 0.5, trial 2 takes its worker until 1.5, and trial 3 starts then. Trial 1 ends at 2.
    assert [heard for heard in strategy.heard if heard[0] == 2] == [(2, r, r == 4) for r in (1, 2, 3, 4)]
    assert [heard[1] for heard in strategy.heard if heard[0] == 3] == [1, 2]
    assert [heard[1] for heard in strategy.heard if heard[0] == 1] == [1, 2, 3, 4]
    worth = table.worth
    last = {0: 2, 1: 1, 2: 0}  # reports at a time of 0.5; then 2, 2, 2 at 1.0, and so on
    reached = [last, {0: 2, 1: 2, 2: 2}, {0: 2, 1: 3, 2: 4}, {0: 2, 1: 4, 2: 4, 3: 2}]
    for regret, reports in zip(found, reached, strict=True):
        values = {row: table.curves[0, row, count - 1] for row, count in reports.items() if count}
        pick = max(values, key=values.__getitem__)
        assert regret == pytest.approx((worth.max() - worth[pick]) / table.unit)


def test_no_training_repeats_another(monkeypatch):
    """Suggest one point again and again: its configuration is trained first, then the neighbours."""
    table = table_of(reports=4)
    monkeypatch.setattr(replay, "BUDGET", 6.0)
    strategy = Scripted(table, {})
    keys = itertools.count()
    monkeypatch.setattr(strategy, "ask", lambda: (next(keys), table.points[5]))
    rows: list[int] = []

    def rule(trials):
        rows[:] = [trial.row for trial in trials]
        return None

    replay.replay(table, strategy, 0, {"": rule})
    distances = ((table.points - table.points[5]) ** 2).sum(axis=1)
    assert len(rows) > 5 and rows == list(distances.argsort(kind="stable")[: len(rows)])


def test_scopes_are_those_of_ray():
    rng = np.random.default_rng(3)
    trials = [Trial(row, list(rng.random(int(rng.integers(1, 13))))) for row in range(40)]
    analysed = []
    for trial in trials:
        metrics = {"last": trial.values[-1], "avg": np.mean(trial.values), "max": max(trial.values)}
        metrics |= {f"last-{n}-avg": np.mean(trial.values[-n:]) for n in (5, 10)}
        analysed.append(SimpleNamespace(row=trial.row, metric_analysis={"score": metrics}))
    ray = SimpleNamespace(trials=analysed, _validate_metric=lambda m: m, _validate_mode=lambda m: m)
    for scope, rule in recommendations.SCOPES.items():
        best = ExperimentAnalysis.get_best_trial(ray, "score", "max", scope)
        assert rule(trials) == best.row, scope


def test_a_recommendation_needs_a_finite_value():
    trials = [Trial(0, [0.5, float("nan")]), Trial(1), Trial(2, [0.1])]
    assert recommendations.OWN["all"](trials) == 2
    assert recommendations.OWN["finished, last"](trials) == 2, "none has finished, so of all"
    assert recommendations.OWN["finished, last"]([Trial(3, [0.05], True), *trials]) == 3
    assert recommendations.OWN["all"](trials[:2]) is None


def test_ratios_are_of_means_and_their_intervals_of_clusters():
    rng = np.random.default_rng(1)
    other = [rng.random((24, 1)) + 1 for _ in range(4)]
    exact = [2 * regret + ratios.FLOOR for regret in other]
    seeds = np.zeros(24, dtype=int)
    found = [Searches({"a": a, "b": b}, seeds) for a, b in zip(exact, other, strict=True)]
    ratio = ratios.ratio(found, "a", "b", 0)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2, 2, 2)), "paired searches cancel"
    same = ratios.ratio(found, "b", "b", 0)
    assert (same.value, same.low, same.high) == (1, 1, 1)
    # All that differs lies between two recorded seeds: searches of one seed are no independent evidence.
    by_seed = np.where(np.arange(24) % 2, 3.0, 1.0)[:, None]
    clustered = [Searches({"a": by_seed, "b": np.full((24, 1), 2.0)}, np.arange(24) % 2)]
    blind = [Searches(clustered[0].regrets, seeds)]
    wide, narrow = ratios.ratio(clustered, "a", "b", 0), ratios.ratio(blind, "a", "b", 0)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_our_space_has_its_defaults_where_it_is_told():
    for dimensions in range(1, tables.MOST_DIMENSIONS + 1):
        places = np.linspace(0.1, 0.9, dimensions)
        ours = strategies.Ours(table_of(dimensions=dimensions), 3)
        assert len(strategies.space_of(places)) == dimensions
        point = ours.ask()[1]
        expected = np.random.default_rng([3, 1]).random(dimensions)
        # A default at the edge of what is accepted stays there.
        assert point[:8] == pytest.approx(expected[:8], abs=1e-4) and not point[8:].any()


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    table = table_of(count=30)
    monkeypatch.setattr(replay, "BUDGET", 1.0)
    monkeypatch.setattr(searches, "BUDGET", 1.0)
    path = tmp_path / "results.jsonl"
    names = [replays.OURS, "random + ASHA"]
    replays.run([table], names, 2, path, processes=1)
    path.write_text(path.read_text() + '{"key": ["half')
    capsys.readouterr()
    found = {"toy": replays.run([table], names, 3, path, processes=1)["toy"]}
    assert capsys.readouterr().err.count("\n") == 2, "one part of each kind was missing"
    again = replays.run([table], names, 3, path, processes=1)["toy"]
    assert not capsys.readouterr().err
    for name, regrets in found["toy"].regrets.items():
        assert regrets.shape == (3, replay.POINTS) and np.array_equal(regrets, again.regrets[name])
    report = searches.document(found, argparse.Namespace(searches=3, choosing=False, warm=False), 1.0, "")
    assert set(report["ratios"]) == {"25", "50", "100"} and report["reported_on"] == ["toy"] and report["held_out"]
    assert set(json.loads(json.dumps(report))["ratios"]["25"]) == {"value", "low", "high"}
    picture.draw(found, report, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_wrong_input_ends_before_any_search(tmp_path, monkeypatch, capsys):
    write(tmp_path / "toy.npz", table_of())
    for words, said in ((["--tables", "no/where"], "no/where: no such"), (["--only", "joy"], "--only: found joy, but")):
        monkeypatch.setattr("sys.argv", ["bench", "--tables", str(tmp_path), *words])
        with pytest.raises(SystemExit) as ended:
            searches.main()
        assert ended.value.code == 2 and capsys.readouterr().err.startswith(f"error: {said}")
