"""Groups of W&B as searches: addresses, refusals, and what runs say; a whole search is in test_tracked_trials."""

from types import SimpleNamespace

import pytest

from fsd_tune.errors import InputError
from fsd_tune.report.compare import compare
from fsd_tune.report.results import load
from fsd_tune.tracking import download

KEY = "0123456789abcdef" * 3


def run(number, rows, state="finished", kind="distill", **told):
    config = {"hp/method": "kd", "hp/alpha": 0.5, "task": "rte", "metric": "accuracy", "judge_by": "last"} | told
    return SimpleNamespace(
        config=config, summary={}, state=state, job_type=kind, created_at=number, scan_history=lambda: iter(rows)
    )


def row(report, value, **more):
    return {"report": float(report), "accuracy": value, "step": 10 * report, "_timestamp": 5.0, "_step": 1, **more}


def test_a_native_sweep_is_a_search_of_its_agents_runs(tmp_path):
    runs = [
        run("2026-01-02", [row(1, 0.5), row(2, 0.75)]),
        run("2026-01-01", [row(1, 0.5), {"leaderboard": {"_type": "table"}}], state="killed"),
        run("2026-01-03", [row(1, "NaN")], state="crashed"),
        run("2026-01-04", [row(1, 0.9)], kind="search-summary"),
    ]
    assert download.write_search(tmp_path / "s", "sweep9", runs) == 3
    found = load(tmp_path / "s")
    states = found.trials.set_index("number")
    assert states["state"].to_dict() == {1: "finished", 0: "stopped", 2: "failed"}
    assert found.best is not None and found.best["score"] == 0.75 and found.problems == ()
    assert states["score"].isna().to_dict() == {1: False, 0: False, 2: True}
    assert found.summary.name == "sweep9" and found.reports["timestamp"].tolist() == [5.0] * 4


@pytest.mark.parametrize("address", ["wandb:", "wandb:entity/project", "wandb:a//c", "wandb:a/b/c/d"])
def test_an_address_has_three_parts(address):
    with pytest.raises(InputError) as caught:
        compare([address, address])
    assert all("must be wandb:entity/project/group" in problem for problem in caught.value.problems)
