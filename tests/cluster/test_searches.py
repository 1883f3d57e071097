"""Searches on three hosts: one is cut off or dies, storage goes away or is not shared."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

from fsd_tune.report.results import load
from fsd_tune.storage import artifacts
from tests import ROOT
from tests.cluster import lab as labs
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


def hosts_of(folder):
    """The hosts that the reports of a search came from."""
    return {json.loads(line)["hostname"] for path in folder.glob("results/*/reports.jsonl") for line in path.open()}


def begun(cluster, name, process, at_least=2, seconds=300):
    """Wait until trials report."""
    deadline = time.monotonic() + seconds
    while len(reports(cluster, name)) < at_least:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)


def trains(cluster, name, process, host, seconds=180):
    """Wait until a trial reports from a host and is not at its end."""
    deadline = time.monotonic() + seconds
    while not on(cluster, name, host):
        assert process.poll() is None and time.monotonic() < deadline, f"no trial reports from host {host}"
        time.sleep(0.1)


def ended(process, seconds=400):
    said, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, said[-3000:]
    return said


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
    prepared = BuiltMemory(None, None, {"student": folder}, 0, 0, {}, MemoryFacts("", 0, True, 0.0))

    @ray.remote(num_cpus=0.3)
    def total():
        return float(memory_actor.fetch_arrays(actor, prepared).starts["student"].sum())

    workers = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = [
        total.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in workers for _ in range(2)
    ]
    try:
        assert ray.get(asked) == [float(np.load(folder / "start.npy").sum())] * 4
    finally:
        memory_actor.leave(actor, "test")  # which no later search would end
"""


def test_the_memory_crosses_to_a_node_once(cluster):
    """Counted on the hosts' network interfaces: two trials on each of two hosts, and 20 MB to serve."""
    served = np.random.default_rng(0).random((500, 10_000), dtype=np.float32)
    with artifacts.writing(cluster.shared / "served") as (folder, _):
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


def test_what_a_node_lacks_is_said_before_the_first_trial(cluster):
    """Host 2 sees another folder than the driver, host 3 cannot write to it and has the package no more."""
    place, site = cluster.shared / "place", next(Path(sys.prefix).glob("lib/*/site-packages"))
    place.mkdir()
    # What says that the package is there, beside the environment's packages or the checkout, looks empty to the host.
    described = [*site.glob("fsd_tune-*.dist-info"), *ROOT.glob("fsd_tune.egg-info")]
    assert described
    empty = "; ".join(f"mount -t tmpfs tmpfs {path}" for path in described)
    cluster.lab.run(2, f"mount -t tmpfs tmpfs {place}")
    cluster.lab.run(3, f"mount --bind {place} {place}; mount -o remount,ro,bind {place}; {empty}")
    try:
        done = cluster.lab.run(1, cluster.command("place/half"), check=False)
    finally:
        cluster.lab.run(2, f"umount {place}")
        cluster.lab.run(3, "; ".join(f"umount {path}" for path in (place, *described)))
    lines = sorted(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert done.returncode == 2 and len(lines) == 3, done.stderr
    refused = f"--output: {place / 'half'} is not shared: this node"
    assert f"node {labs.address(2)}: {refused} does not see the files that the driver writes there" in lines[0]
    assert f"node {labs.address(3)}: {refused} cannot use it (Read-only file system)" in lines[1]
    assert f"node {labs.address(3)}: has fsd_tune not installed, but the driver has" in lines[2]
    assert not list(place.iterdir()), "nothing stays behind"


@pytest.mark.timeout(900)
def test_storage_goes_away_then_a_worker_is_cut_off_and_comes_back_then_the_memorys_host_dies(cluster):
    """Two trials share a worker all the time; nothing that was done is lost."""
    folder, name = cluster.shared / "failures", str(cluster.shared / "failures")
    packed = ("--trials", "4", "--cpus-per-trial", "0.5", "--max-concurrent", "2", "--asha", "off", "--epochs", "150")
    process = cluster.lab.start(1, cluster.command(name, *packed))
    begun(cluster, name, process)
    (first,) = hosts_of(folder)
    before = {path: path.read_bytes() for path in reports(cluster, name)}
    # Away from the driver's host and the workers' at once: all wait.
    for host in (1, 2, 3):
        cluster.hide_storage(host)
    time.sleep(10)
    assert process.poll() is None
    for host in (1, 2, 3):
        cluster.show_storage(host)
    worker = int(first.removeprefix("lab"))
    other = 5 - worker
    trains(cluster, name, process, worker)
    cluster.lab.cut(worker)
    silent = cluster.wait_for_nodes(2)
    cluster.lab.heal(worker)
    cluster.join(worker)
    trains(cluster, name, process, other)
    # The head runs no trials, so it is spared the memory, too.
    assert host_of_memory(cluster) == other
    cluster.lab.kill(other)
    dead = cluster.wait_for_nodes(2)
    cluster.boot(other)
    cluster.join(other)
    said = ended(process)
    assert f"{name} cannot be written" in said and f"{name} is back after" in said
    assert f"its host {labs.address(other)} has died; it continues elsewhere" in said
    results = check(cluster, name, trials=4)
    assert set(results.trials["state"]) == {"finished"}
    assert all(path.read_bytes().startswith(content) for path, content in before.items())
    assert silent < 30, "a host that is cut off says nothing: only its silence tells"
    assert dead < 20, "the cluster's YAML makes Ray see a dead host soon"
