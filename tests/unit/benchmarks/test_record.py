import json
import math
import statistics

import pytest

from benchmarks import record, record_table
from fsd_tune.errors import InputError


@pytest.mark.parametrize("method", record.METHODS)
def test_configurations_are_in_their_ranges_and_begin_with_the_defaults(method):
    ranges, found = record.searched_ranges(method), record.configurations(method, 8)
    assert len(found) == len({tuple(row.items()) for row in found}) == 8
    assert found[0]["learning_rate"] == record.DEFAULT_RATE
    for row in found:
        assert row.keys() == ranges.keys()
        assert all(ranges[name].low <= value <= ranges[name].high for name, value in row.items())


def test_methods_are_tuned_at_the_same_learning_rates_alphas_and_temperatures():
    shared = ("learning_rate", "alpha", "temperature")
    found = {
        method: [[row[name] for name in shared] for row in record.configurations(method, 8)]
        for method in record.METHODS
        if method != "ce"
    }
    assert all(rows == found["kd"] for rows in found.values())


def row(method, *curves, start="copy"):
    return {
        "task": "rte", "metric": "accuracy", "method": method, "start": start, "teacher": 60.0, "holdout": 55.0,
        "config": {"learning_rate": 1e-4}, "dev": list(curves),
    }  # fmt: skip


def test_a_diverged_run_counts_with_its_last_score():
    assert record_table.final_scores(row("kd", [50.0, math.nan], [math.nan, math.nan], [51.0, 52.0])) == [50, 0, 52]
    assert record.last_score([0.5, math.nan]) == -math.inf


def test_the_table_compares_with_kd_from_the_same_start():
    rows = [row("kd", [50.0], [52.0]), row("kd", [40.0], [42.0], start="teacher"), row("gram", [51.0], [53.0])]
    lines = record_table.markdown(rows).splitlines()
    assert lines[-1].endswith("| 52.0 (1.4) | +1.0 (+1.0 to +1.0) |")
    assert lines[-2].endswith("| 41.0 (1.4) |  |")


def show_recorded(monkeypatch, folder, *arguments):
    monkeypatch.setattr("sys.argv", ["record", "--recorded", "--folder", str(folder), *arguments])
    record.main()
    (file,) = folder.glob("glue/*/record.json")
    return json.loads(file.read_text())


def test_the_recorded_runs_are_shown_without_training(monkeypatch, tmp_path, capsys):
    rows = show_recorded(monkeypatch, tmp_path, "--tasks", "stsb", "--methods", "kd,fsd_il")["rows"]
    assert [(row["method"], row["start"]) for row in rows] == [
        ("kd", "copy"), ("kd", "teacher"), ("fsd_il", "copy"), ("fsd_il", "teacher"),
    ]  # fmt: skip
    runs = [json.loads(line) for line in record.RECORDED.read_text().splitlines()]
    last = {}
    for run in runs:
        job = run["job"]
        if job["kind"] == "dev" and (job["task"], job["start"]) == ("stsb", "copy"):
            last[job["method"], job["seed"]] = 100 * run["result"][-1]
    seeds = range(1, 1 + len(rows[0]["dev"]))
    assert len(seeds) >= 3
    difference = statistics.mean(last["fsd_il", seed] - last["kd", seed] for seed in seeds)
    (line,) = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("| pretrained layers | `fsd_il`")
    ]
    assert f"| {difference:+.1f} (" in line


def test_systems_that_were_not_recorded_are_refused(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="not recorded on two seeds"):
        show_recorded(monkeypatch, tmp_path, "--tasks", "rte", "--methods", "kd")
