import math

import pytest

from benchmarks import record, record_table


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
