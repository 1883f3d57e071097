"""The costs that decide which student is kept; the settings' own checks are in `test_loader.py`."""

import pytest

from fsd_tune.settings.objectives import COSTS, Within, costs_to_pick_by


@pytest.mark.parametrize(
    ("pick", "objectives", "known", "expected"),
    [
        (Within(within=1), ("score", "size_mb", "flops"), COSTS, ("size_mb", "flops")),
        (Within(within=1), ("score",), COSTS, ("latency_ms",)),
        ("best", ("score",), ("parameters", "size_mb"), ("size_mb",)),
        ("knee", ("latency_ms", "score"), COSTS, ("latency_ms",)),
        ("fastest", ("score", "size_mb"), COSTS, ("latency_ms", "size_mb")),
        ("fastest", ("score", "size_mb"), ("size_mb",), ("size_mb",)),
        ("fastest", ("score", "flops"), ("flops", "size_mb"), ("flops",)),
        ("fastest", ("score",), (), ()),
    ],
)
def test_costs_that_decide(pick, objectives, known, expected):
    assert costs_to_pick_by(pick, objectives, known) == expected
