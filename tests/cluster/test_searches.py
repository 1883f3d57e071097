"""Searches on three hosts: nothing dies, a worker dies or is cut off, the memory's host or the head dies."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

from fsd_tune.report.results import load
from tests import ROOT
from tests.cluster.conftest import TRIALS
from tests.cluster.measure import host_of_memory, on
from tests.helpers.searching import agree

pytestmark = pytest.mark.slow


def check(cluster, name, trials=TRIALS):
    """Every trial ended well and once, study and results agree, one teacher pass was paid, the student loads."""
    results = load(cluster.shared / name)
    assert len(results.trials) == trials and set(results.trials["state"]) <= {"finished", "stopped"}
    agree(results)
    passes = (cluster.shared / name / "memory" / "passes.jsonl").read_text().splitlines()
    assert len(passes) == 1
    AutoModelForSequenceClassification.from_pretrained(cluster.shared / name / "best")
    return results


def reports(cluster, name):
    return [path for path in (cluster.shared / name).glob("results/*/reports.jsonl") if path.stat().st_size]


def hosts_of(cluster, name):
    """The hosts that reports came from."""
    return {json.loads(line)["hostname"] for path in reports(cluster, name) for line in path.open()}


def begun(cluster, name, process, at_least=2, seconds=300):
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
    # Two trials would fit on each.
    spread = ("--resources-placement", "spread", "--cpus-per-trial", "0.5", "--max-concurrent", "2")
    ended(cluster.lab.start(1, cluster.command("plain", *spread)))
    results = check(cluster, "plain")
    assert hosts_of(cluster, "plain") == {"lab2", "lab3"}, "the head trains nothing"
    assert results.summary.workers == 2


_SERVE = """
import sys
from pathlib import Path
import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from fsd_tune.cluster import connection
from fsd_tune.memory import actor as memory_actor
from fsd_tune.memory.build import BuiltMemory, MemoryFacts
from fsd_tune.search.options import RunOptions, SearchInputs
from fsd_tune.search.plan import plan_search
from fsd_tune.settings import loader
folder = Path(sys.argv[1]).absolute()
with connection.connect("auto"):
    space = loader.load(Path("space.yaml"))
    plan = plan_search(space, SearchInputs("sst2", "teacher", output="none", data="glue"), RunOptions())
    actor = memory_actor.start(plan.spec, "test")
    prepared = BuiltMemory(None, None, folder, 0, 0, {}, MemoryFacts("", 0, True, 0.0))

    @ray.remote(num_cpus=0.3)
    def total():
        return float(memory_actor.fetch_arrays(actor, prepared).start.sum())

    workers = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = [
        total.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in workers for _ in range(3)
    ]
    assert ray.get(asked) == [float(np.load(folder / "start.npy").sum())] * 6
    memory_actor.leave(actor, "test")
"""


def test_the_memory_crosses_to_a_node_once(cluster):
    """Counted on the hosts' network interfaces: three trials on each of two hosts, and 20 MB to serve."""
    folder = cluster.shared / "served"
    folder.mkdir()
    served = np.random.default_rng(0).random((500, 10_000), dtype=np.float32)
    np.save(folder / "start.npy", served)
    (cluster.shared / "serve.py").write_text(_SERVE)
    before = [cluster.received(host) for host in (2, 3)]
    done = cluster.lab.run(
        1, f"cd {cluster.shared}; RAY_AUTH_MODE=token python serve.py served", check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    received = [cluster.received(host) - was for host, was in zip((2, 3), before, strict=True)]
    assert served.nbytes == 20_000_000  # what an object store of 100 MB is given
    # To the host on which the memory's actor lives there is none.
    times = [bytes_ / served.nbytes for bytes_ in received]
    assert all(each < 0.1 or 1 <= each < 1.25 for each in times) and max(times) >= 1, times


def test_a_worker_dies(cluster):
    # Without ASHA a trial that has just reported goes on for sure.
    process = cluster.lab.start(1, cluster.command("killed", "--asha", "off"))
    deadline = time.monotonic() + 180
    while not on(cluster, "killed", 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    cluster.lab.kill(3)
    took = cluster.wait_for_nodes(2)
    assert "its host 10.91.7.13 has died; it continues elsewhere" in ended(process)
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
    host = host_of_memory(cluster)
    assert host != 1, "the head runs no trials: it is spared the memory"
    cluster.lab.kill(host)
    ended(process)
    check(cluster, "memory")
    cluster.boot(host)
    cluster.join(host)


def test_storage_that_is_not_shared_is_refused_before_the_first_trial(cluster):
    done = cluster.lab.run(1, cluster.command("/srv/alone"), check=False)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    refused = [line for line in lines if "/srv/alone is not shared" in line]
    assert len(refused) == 2 and "10.91.7.12" in refused[0] + refused[1] and "10.91.7.13" in refused[0] + refused[1]
    assert cluster.lab.run(1, "ls /srv/alone", check=False).returncode != 0, "nothing stays behind"


def test_what_a_node_lacks_is_said_before_the_first_trial(cluster):
    """Host 3 has the package no more and sees a folder that it cannot write; nobody has GPUs."""
    half, site = cluster.shared / "half", next(Path(sys.prefix).glob("lib/*/site-packages"))
    half.mkdir()
    # What says that the package is there, beside the environment's packages or the checkout, looks empty to the host.
    described = [*site.glob("fsd_tune-*.dist-info"), *ROOT.glob("fsd_tune.egg-info")]
    assert described
    empty = "; ".join(f"mount -t tmpfs tmpfs {path}" for path in described)
    cluster.lab.run(3, f"mount --bind {half} {half}; mount -o remount,ro,bind {half}; {empty}")
    try:
        done = cluster.lab.run(1, cluster.command("half"), check=False)
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 2 and len(lines) == 2, done.stderr
        assert "node 10.91.7.13: has fsd_tune not installed, but the driver has" in lines[0]
        assert "this node cannot use it (Read-only file system)" in lines[1] and str(half) in lines[1]
        assert not half.exists(), "nothing stays behind"
    finally:
        cluster.lab.run(3, "; ".join(f"umount {path}" for path in described))
    done = cluster.lab.run(1, cluster.command("gpus", "--gpus-per-trial", "0.5"), check=False)
    assert done.returncode == 2
    assert "resources.gpus_per_trial: found 0.5, but no node of this cluster has a GPU." in done.stderr


def test_packed_trials_share_a_worker_and_wait_for_storage_that_goes_away(cluster):
    """From the driver's host and the workers' at once: all wait, and nothing that was done is lost."""
    folder = str(cluster.shared / "away")
    packed = ("--trials", "4", "--cpus-per-trial", "0.5", "--max-concurrent", "2", "--asha", "off")
    process = cluster.lab.start(1, cluster.command(folder, *packed))
    begun(cluster, "away", process)
    before = {path: path.read_bytes() for path in reports(cluster, "away")}
    for host in (1, 2, 3):
        cluster.hide_storage(host)
    time.sleep(20)
    assert process.poll() is None
    for host in (1, 2, 3):
        cluster.show_storage(host)
    said = ended(process)
    assert f"{folder} cannot be written" in said and f"{folder} is back after" in said
    results = check(cluster, "away", trials=4)
    assert set(results.trials["state"]) == {"finished"}
    assert all(path.read_bytes().startswith(content) for path, content in before.items())
    assert len(hosts_of(cluster, "away")) == 1


def test_the_head_dies_and_the_search_goes_on_after_ray_up(cluster):
    process = cluster.lab.start(1, cluster.command("head", "--asha", "off", "--trials", "4"))
    begun(cluster, "head", process)
    cluster.lab.kill(1)
    process.wait(timeout=60)
    finished = {path: path.read_bytes() for path in (cluster.shared / "head").glob("results/*/trial.json")}
    cluster.boot(1)
    cluster.up()
    again = f"cd {cluster.shared}; RAY_AUTH_MODE=token fsd-tune resume head --address auto"
    ended(cluster.lab.start(1, again))
    check(cluster, "head", trials=4)
    assert {path: path.read_bytes() for path in finished} == finished
