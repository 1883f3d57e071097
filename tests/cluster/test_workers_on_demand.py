"""Machines on demand: a search that begins on a head alone gets workers for its trials, and lets them go."""

import time

import pytest

from tests.cluster.test_searches import check, ended, hosts_of

pytestmark = pytest.mark.slow


def test_workers_come_for_the_trials_and_go_after_them(on_demand):
    assert on_demand.alive() == 1
    # So long that the second worker starts its trial before the first has ended its own, and would take that one, too.
    more = ("--trials", "2", "--asha", "off", "--epochs", "400")
    process = on_demand.lab.start(1, on_demand.command("scaled", *more))
    most, deadline = 1, time.monotonic() + 400
    while process.poll() is None:
        most = max(most, on_demand.alive())
        assert time.monotonic() < deadline
        time.sleep(0.5)
    ended(process)
    results = check(on_demand, "scaled", trials=2)
    assert set(results.trials["state"]) == {"finished"}
    assert most == 3 and hosts_of(on_demand, "scaled") == {"lab2", "lab3"}
    assert results.summary.workers == 2
    on_demand.wait_for_nodes(1)
