"""What a node is asked, and what becomes of its answers; on real nodes in test_placement.py and tests/cluster/."""

import shutil
import subprocess
import sys

import pytest
import ray
from ray import cloudpickle

from fsd_tune.cluster import node_probe, nodes
from fsd_tune.cluster.nodes import Needs
from fsd_tune.storage.open_folder import open_experiment


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Asks this machine as if it were the node of a cluster; gives the node's answer in words."""

    def ask(needs, resources=None):
        node = {"NodeID": "01" * 28, "NodeManagerAddress": "10.0.0.1", "Resources": resources or {"CPU": 1.0}}
        probe = nodes._NodeProbe(open_experiment(tmp_path / "shared"), needs)
        monkeypatch.setattr(ray, "get", lambda reference, timeout: reference)

        class Here:
            def options(self, **_):
                return self

            def remote(self, **arguments):
                return node_probe.probe(**arguments)

        monkeypatch.setattr(nodes, "as_task", lambda *_, **__: Here())
        answer = probe.receive(node, probe.send(node))
        probe.close()
        assert not list((tmp_path / "shared").iterdir()), "nothing stays behind"
        return answer

    return ask


def test_a_node_that_is_right(asked, tmp_path):
    answer = asked(Needs(paths=[str(tmp_path)]))
    assert answer.problems == () and answer.room is None and answer.cpus == 1


_WITHOUT_THE_PACKAGE = """
import sys
sys.modules["fsd_tune"] = None  # importing it fails
from ray import cloudpickle
probe = cloudpickle.loads(bytes.fromhex(sys.stdin.read()))
answer = probe(sys.argv[1], "mark", "token", "node", ["no-such-package", "python"], ["/", "/nowhere"], "", False)
print(answer["versions"]["no-such-package"], repr(answer["storage"]), answer["unread"])
"""


def test_a_node_without_this_package_can_say_so(tmp_path):
    (tmp_path / "mark").write_text("token")
    probe = cloudpickle.dumps(node_probe.probe).hex()
    words = [sys.executable, "-c", _WITHOUT_THE_PACKAGE, str(tmp_path)]
    done = subprocess.run(words, input=probe, capture_output=True, text=True, check=True)
    assert done.stdout == "not installed '' ['/nowhere']\n"
    assert (tmp_path / "mark-node").read_text() == "token"


def test_what_cannot_be_read_is_named(asked, tmp_path):
    missing = tmp_path / "teacher"
    assert asked(Needs(paths=[str(missing)])).lines() == [
        f"node 10.0.0.1: cannot read {missing}; put it into a folder that all nodes share."
    ]


def test_a_copy_must_fit_the_nodes_disk(asked, tmp_path):
    copies, free = tmp_path / "cache" / "memory", shutil.disk_usage(tmp_path).free
    assert not asked(Needs(copies=copies, nbytes=free // 2)).problems
    (problem,) = asked(Needs(copies=copies, nbytes=free * 2)).problems
    assert f"below {copies}, which takes {free * 2 / 1e9:.3g} GB; give it a larger disk" in problem
    assert not asked(Needs(copies=copies, nbytes=free * 2), {"CPU": 0.0}).problems, (
        "a head that trains nothing has none"
    )


def test_what_a_node_has_of_the_copy_counts(asked, tmp_path, monkeypatch):
    copies = tmp_path / "cache"
    copies.mkdir()
    (copies / "layer.npy").write_bytes(b"x" * 1000)
    free = shutil.disk_usage(tmp_path)._replace(free=2 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    assert not asked(Needs(copies=copies, nbytes=2 * 10**9 + 1000)).problems
    assert asked(Needs(copies=copies, nbytes=2 * 10**9 + 1001)).problems
