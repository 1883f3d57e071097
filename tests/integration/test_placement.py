"""On which nodes trials and the memory's actor go; on a cluster of several nodes that are processes of this machine."""

import json
import subprocess
import sys

import pytest

from fsd_tune.cluster.placement import fullest
from tests import ROOT
from tests.helpers.searching import short_folder

_CLUSTER = """
import json, os, sys, time
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "CUDA_VISIBLE_DEVICES": "0,1"}
from pathlib import Path
Path("/tmp/ray").mkdir(exist_ok=True)  # this kind of cluster takes it for granted, and leaves its address there
import ray
from ray.cluster_utils import Cluster
from fsd_tune import errors
from fsd_tune.cluster import nodes as cluster_nodes, placement
from fsd_tune.cluster.task_pool import as_task
from fsd_tune.memory import actor as memory_actor
from fsd_tune.storage.open_folder import open_experiment
few = {"object_store_memory": 10**8, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=few | {"num_cpus": 0, "temp_dir": sys.argv[1]})
head = cluster.head_node.node_id
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
alone = placement.not_on_head()
workers = [cluster.add_node(num_cpus=4, num_gpus=2, **few) for _ in range(2)]
cluster.wait_for_nodes()

def nodes(kind, cpus, gpus):
    groups = []
    for _ in range(4):
        groups.append(placement.request(kind, cpus, gpus).to_placement_group())
        ray.get(groups[-1].ready())
        time.sleep(0.5)  # as trials come: the first of them is seen to have taken its share
    table = ray.util.placement_group_table()
    found = [next(iter(table[group.id.hex()]["bundles_to_node_id"].values())) for group in groups]
    for group in groups:
        ray.util.remove_placement_group(group)
    time.sleep(1)
    return sorted(found.count(node) for node in set(found))

found = {f"{kind} {gpus}": nodes(kind, 1, gpus) for kind in ("pack", "spread") for gpus in (0, 0.25, 0.5)}
for gpus in (0, 1):
    process = Path(f"/proc/{ray.get(as_task(lambda: os.getpid(), gpus=gpus).remote())}")  # a lambda: no builtin
    deadline = time.monotonic() + (60 if gpus else 2)
    while process.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    found[f"process left by a task with {gpus} GPUs"] = process.exists()
actor = memory_actor._actor().remote()
look = lambda self: (os.environ["CUDA_VISIBLE_DEVICES"], ray.get_runtime_context().get_node_id())
found["memory actor sees"] = ray.get(actor.__ray_call__.remote(look))[0]
apart = placement.not_on_head()
actors = [memory_actor._actor().options(label_selector=apart).remote() for _ in range(6)]
homes = lambda: {home for _, home in ray.get([actor.__ray_call__.remote(look) for actor in actors], timeout=300)}
found["actors on the head"] = head in homes()
dies = placement.Packed([{"CPU": 1}])
first = dies.to_placement_group()
ray.get(first.ready())
(held,) = ray.util.placement_group_table()[first.id.hex()]["bundles_to_node_id"].values()
cluster.remove_node(next(node for node in workers if node.node_id == held), allow_graceful=False)
second = dies.to_placement_group()
ray.get(second.ready(), timeout=300)
found["after a death elsewhere"] = held not in ray.util.placement_group_table()[second.id.hex()][
    "bundles_to_node_id"].values()
found["after a death on the head"] = head in homes() or held in homes()
needed = Path(sys.argv[1], "needed")
needed.touch()
shared = open_experiment(Path(sys.argv[1], "shared"))
joining = cluster_nodes.NewNodeWatcher(shared, cluster_nodes.Needs(0, [str(needed)]))
joining.require()
needed.unlink()
cluster.add_node(num_cpus=1, **few)
deadline = time.monotonic() + 240
while "joined" not in found and time.monotonic() < deadline:
    time.sleep(0.5)
    try:
        joining.require()
    except errors.FsdTuneError as error:
        found["joined"] = f"cannot read {needed}" in str(error)
found["the head alone is free to all"] = alone == {}
print(json.dumps(found))
ray.shutdown()
cluster.shutdown()
"""


def test_the_fullest_node_with_room():
    free = {"a": {"CPU": 4.0, "GPU": 1.0}, "b": {"CPU": 3.0, "GPU": 0.5}, "c": {"CPU": 8.0}, "head": {}}
    assert fullest(free, {"CPU": 1.0}) == "c", "no GPU is blocked by what needs none"
    assert fullest(free, {"CPU": 1.0, "GPU": 0.5}) == "b"
    assert fullest(free, {"CPU": 1.0, "GPU": 0.75}) == "a"
    assert fullest(free, {"CPU": 9.0}) is None and fullest({}, {"CPU": 1.0}) is None
    assert fullest({"y": {"CPU": 2.0}, "x": {"CPU": 2.0}}, {"CPU": 1.0}) == "x", "all trials agree on one"


@pytest.mark.slow
def test_trials_are_packed_or_spread_and_the_memorys_actor_sees_no_gpu():
    with short_folder() as temporary:
        done = subprocess.run(
            [sys.executable, "-c", _CLUSTER, temporary], capture_output=True, text=True, timeout=240,
            cwd=ROOT, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert found == {
        "pack 0": [4], "pack 0.25": [4], "pack 0.5": [4],
        "spread 0": [2, 2], "spread 0.25": [2, 2], "spread 0.5": [2, 2],
        "process left by a task with 0 GPUs": True, "process left by a task with 1 GPUs": False,
        "memory actor sees": "", "after a death elsewhere": True,
        "actors on the head": False, "after a death on the head": False, "the head alone is free to all": True,
        "joined": True,
    }  # fmt: skip
