"""The live view of a search: read from what Rich draws of it, at the widths that terminals have."""

import io
import math

import pytest
from rich.console import Console

from fsd_tune.progress import Display
from fsd_tune.search.live import View
from fsd_tune.search.progress import Rung, SearchProgress


def drawn(search, width):
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=True, color_system=None).print(View(search))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def row(report, value, pid=71):
    return {
        "report": report, "accuracy": value, "step": 50 * report, "steps_total": 200, "train_seconds": 5.0 * report,
        "hostname": "gpu-1", "pid": pid,
    }  # fmt: skip


@pytest.fixture
def search(clock):
    rungs = [Rung(1, [0.5, 0.6, 0.4], 0.55, 2), Rung(3, [], math.nan, 0)]
    search = SearchProgress(Display(quiet=True), 8, "accuracy", 4, ["alpha"], lambda: rungs)
    for number, value in ((0, 0.5), (1, 0.625)):
        search.started(number, {"alpha": 0.25, "epochs": 3})
        search.reported(number, row(2, value))
    search.started(2, {"alpha": 0.75})
    clock.now += 40
    search.ended(0, "stopped", "ASHA at report 1", None)
    return search


@pytest.mark.parametrize("width", [80, 160])
def test_everything_is_in_view(search, width):
    lines = drawn(search, width)
    assert all(len(line) <= width for line in lines)
    assert "1/8 ended: 0 finished · 1 stopped · 2 running" in lines[0]
    assert lines[1] == "best    accuracy 0.6250 · trial 1, report 2/4  alpha=0.25"
    text = [" ".join(line.split()) for line in lines]
    assert "ASHA, report reached stopped best must reach" in text
    assert "1/4 3 2 0.6000 0.5500" in text and "3/4 0 0 – –" in text
    assert "trial 1 gpu-1:71 2/4 100/200 0.100 0.6250" in text
    assert "trial 2 – 0/4 – – –" in text


def test_rungs_of_many_methods_do_not_fill_the_screen(search):
    reached = [Rung(report, [0.5, 0.6], 0.6, 1, method) for method in ("kd", "fsd_il", "ce") for report in (1, 2, 3)]
    search.rungs = lambda: [*reached, *(Rung(report, [], math.nan, 0, "pkd") for report in (1, 2, 3))]
    text = [" ".join(line.split()) for line in drawn(search, 80)]
    assert "fsd_il 2/4 2 1 0.6000 0.6000" in text and not any(line.startswith("pkd") for line in text)
    search.rungs = lambda: [*reached, Rung(1, [0.5], 0.5, 0, "pkd")]
    text = [" ".join(line.split()) for line in drawn(search, 80)]
    assert "1 more" in text and not any(line.startswith("pkd") for line in text)


def test_the_end_is_expected_where_the_pace_says(search):
    # One and a half of eight trials in 40 s leave six and a half.
    assert search.seconds_left == pytest.approx(40 / 1.5 * 6.5)
    assert "2 min 53 s left, until " in drawn(search, 160)[0]


def test_the_best_is_named_with_what_was_searched(search):
    search.ended(1, "finished", "", 0.625)
    assert drawn(search, 100)[1] == "best    accuracy 0.6250 · trial 1  alpha=0.25"


def test_the_best_is_named_with_what_it_costs(search):
    search.cost = lambda config: "4.2 ms"
    assert any("trial 1, report 2/4, 4.2 ms  alpha=0.25" in line for line in drawn(search, 120))


def test_many_workers_do_not_fill_the_screen(search):
    for number in range(3, 30):
        search.started(number, {})
    lines = drawn(search, 100)
    assert len(lines) <= 20 and lines[-1].split() == ["21", "more"]
