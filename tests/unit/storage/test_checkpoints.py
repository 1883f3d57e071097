"""When a checkpoint is due, on a clock set by hand, and which one is the newest."""

import pytest

from fsd_tune.storage import checkpoints
from fsd_tune.storage.checkpoints import Pace

GB = 10**9


def save(pace, clock, size, seconds):
    with pace.measured(size):
        clock.now += seconds


def test_a_checkpoint_is_due_when_the_work_costs_more_than_ten_saves(clock):
    pace = Pace()
    clock.now += 49
    assert not pace.due(GB), "200 MB/s are assumed: a save takes 5 s"
    clock.now += 2
    assert pace.due(GB)
    save(pace, clock, GB, 3)
    assert not pace.due(GB), "the save itself is no work"
    clock.now += 29
    assert not pace.due(GB)
    clock.now += 2
    assert pace.due(GB) and not pace.due(2 * GB), "the measured cost is per byte"
    pace.begin()
    assert not pace.due(GB), "another trial begins"


def test_little_work_is_not_saved_however_cheap(clock):
    pace = Pace()
    save(pace, clock, 1000, 0.001)
    clock.now += checkpoints.LEAST_SECONDS - 0.1
    assert not pace.due(1000)
    clock.now += 0.2
    assert pace.due(1000)


@pytest.mark.parametrize("cost", [0.05, 0.5, 4.0])
def test_saves_take_a_tenth_of_the_time_at_most_and_a_kill_loses_ten_saves_at_most(clock, cost):
    pace, started, saving, last, lost = Pace(), clock.now, 0.0, clock.now, 0.0
    save(pace, clock, GB, cost)
    while clock.now - started < 500:
        clock.now += 0.1
        lost = max(lost, clock.now - last)
        if pace.due(GB):
            save(pace, clock, GB, cost)
            saving, last = saving + cost, clock.now
    assert saving <= 500 / 11 + cost
    assert lost <= max(10 * cost, checkpoints.LEAST_SECONDS) + 0.2 + cost


def test_of_two_checkpoints_after_one_report_the_one_with_more_steps_is_newer(tmp_path):
    for name, step in (("checkpoint_000001", 120), ("checkpoint_000000", 150), ("restart", 90)):
        (tmp_path / name).mkdir()
        checkpoints.seal(tmp_path / name, 2, step)
    assert checkpoints.newest(tmp_path) == (tmp_path / "checkpoint_000000", 2)
