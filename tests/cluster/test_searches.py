"""Searches on three hosts: nothing dies, a worker dies or is cut off, the memory's host dies, the driver dies."""

import json
import time

import pytest
from transformers import AutoModelForSequenceClassification

from fsd_tune.results import load
from tests.cluster.conftest import TRIALS
from tests.cluster.measure import on
from tests.searching import agree

pytestmark = pytest.mark.slow
# In a host's own process ids, of its own processes.
_ACTOR = "pgrep -f '^ray::_Memory'"
_DRIVER = "pgrep -f '[f]sd-tune search'"


def check(cluster, name):
    """Every trial ended well and once, study and results agree, one teacher pass was paid, the student loads."""
    results = load(cluster.shared / name)
    assert len(results.trials) == TRIALS and set(results.trials["state"]) <= {"finished", "stopped"}
    agree(results)
    passes = (cluster.shared / name / "memory" / "passes.jsonl").read_text().splitlines()
    assert len(passes) == 1
    AutoModelForSequenceClassification.from_pretrained(cluster.shared / name / "best")
    return results


def reports(cluster, name):
    return [path for path in (cluster.shared / name).glob("results/*/reports.jsonl") if path.stat().st_size]


def begun(cluster, name, process, at_least=2, seconds=180):
    """Wait until trials report."""
    deadline = time.monotonic() + seconds
    while len(reports(cluster, name)) < at_least:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)


def ended(process, seconds=400):
    said, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, said[-3000:]
    return said


def test_trials_run_on_both_workers_with_one_memory(cluster):
    ended(cluster.lab.start(1, cluster.command("plain")))
    results = check(cluster, "plain")
    hosts = {json.loads(line)["hostname"] for path in reports(cluster, "plain") for line in path.open()}
    assert hosts == {"lab2", "lab3"}, "the head trains nothing"
    assert results.summary["workers"] == 2


def test_a_worker_dies(cluster):
    # Without ASHA a trial that has just reported goes on for sure.
    process = cluster.lab.start(1, cluster.command("killed", "--asha", "off"))
    deadline = time.monotonic() + 180
    while not on(cluster, "killed", 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    cluster.lab.kill(3)
    took = cluster.wait_for_nodes(2)
    assert "its host 10.91.7.13 has died; it goes on elsewhere" in ended(process)
    check(cluster, "killed")
    cluster.boot(3)
    cluster.join(3)
    assert took < 20, "the cluster's YAML makes Ray see a dead host soon"


def test_a_worker_is_cut_off_and_comes_back(cluster):
    process = cluster.lab.start(1, cluster.command("cut"))
    begun(cluster, "cut", process)
    cluster.lab.cut(2)
    took = cluster.wait_for_nodes(2)
    cluster.lab.heal(2)
    ended(process)
    check(cluster, "cut")
    cluster.join(2)
    assert took < 30, "a host that is cut off says nothing: only its silence tells"


def test_the_memorys_host_dies(cluster):
    process = cluster.lab.start(1, cluster.command("memory"))
    begun(cluster, "memory", process, at_least=1)
    (host,) = [host for host in (1, 2, 3) if cluster.lab.run(host, f"{_ACTOR}", check=False).stdout.strip()]
    if host == 1:
        # Nothing survives the head: there the actor's process has to do.
        cluster.lab.run(1, f"kill -9 $({_ACTOR})")
    else:
        cluster.lab.kill(host)
    ended(process)
    check(cluster, "memory")
    if host != 1:
        cluster.boot(host)
        cluster.join(host)


def test_the_driver_dies_and_the_search_is_resumed(cluster):
    process = cluster.lab.start(1, cluster.command("driver"))
    begun(cluster, "driver", process)
    cluster.lab.run(1, f"kill -9 $({_DRIVER})")
    process.wait(timeout=60)
    finished = {path: path.read_bytes() for path in (cluster.shared / "driver").glob("results/*/trial.json")}
    again = f"cd {cluster.shared}; RAY_AUTH_MODE=token fsd-tune resume driver --address auto"
    ended(cluster.lab.start(1, again))
    check(cluster, "driver")
    assert {path: path.read_bytes() for path in finished} == finished


def test_storage_that_is_not_shared_is_refused_before_the_first_trial(cluster):
    done = cluster.lab.run(1, cluster.command("/srv/alone"), check=False)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    refused = [line for line in lines if "/srv/alone is not shared" in line]
    assert len(refused) == 2 and "10.91.7.12" in refused[0] + refused[1] and "10.91.7.13" in refused[0] + refused[1]
    assert cluster.lab.run(1, "ls /srv/alone", check=False).returncode != 0, "nothing stays behind"
