"""What W&B gets of a search over several shapes, with the tracker stood in for; real runs are in tests/integration."""

from types import SimpleNamespace
from typing import Any

import pytest

from fsd_tune.report.results import load
from fsd_tune.search import wandb_logger
from fsd_tune.settings.wandb_section import Wandb
from tests.helpers.result_folders import write_front, write_search

COSTS: dict[tuple[int, int | None], float] = {(2, None): 1.0, (3, None): 2.0}


@pytest.fixture
def tracked(monkeypatch):
    """The figures at the end of each run, and the table and the charts of the search."""
    ends: dict[str, dict[str, Any]] = {}
    drawn: list[Any] = []
    tracker = SimpleNamespace(
        active=True,
        begin=lambda *_: None,
        holds=lambda name: False,
        end=lambda name, figures, *_: ends.update({name: figures}),
        draw=lambda name, table, charts: drawn.extend((table, charts)),
    )
    monkeypatch.setattr(wandb_logger, "Tracker", lambda *_: tracker)

    def conclude(folder):
        results = load(folder)
        display: Any = SimpleNamespace(line=None)
        wandb_logger.WandbSearchLogger(Wandb(), folder, results.summary, display).conclude(results)
        return ends, *drawn

    return conclude


def test_costs_are_figures_of_runs_and_columns_of_the_table(tracked, tmp_path):
    trials = [(2, None, 0.75, "finished"), (3, None, 0.8, "finished"), (3, None, 0.7, "stopped")]
    folder = write_front(tmp_path / "R", trials, COSTS, {"pick": "fastest"})
    ends, table, charts = tracked(folder)
    rows = load(folder).trials.set_index("number")
    for number, name in enumerate(("trial-0000", "trial-0001", "trial-0002")):
        for cost in ("latency_ms", "parameters", "size_mb", "flops"):
            assert ends[name][cost] == rows.loc[number, cost]
    assert ends["search"]["picked_trial"] == 0 and ends["search"]["best_trial"] == 1
    assert ends["search"]["picked_latency_ms"] == 1.0 and ends["search"]["picked_accuracy"] == pytest.approx(0.75)
    place = table["columns"].index("latency_ms")
    assert [row[place] for row in table["data"]] == [2.0, 1.0, 2.0]
    assert "front" in charts


def test_a_search_of_one_shape_has_no_costs(tracked, tmp_path):
    ends, table, charts = tracked(write_search(tmp_path / "R", trials=4))
    assert not {"latency_ms", "shape"} & set(table["columns"]) and "front" not in charts
    assert "picked_trial" not in ends["search"] and all("parameters" not in figures for figures in ends.values())
