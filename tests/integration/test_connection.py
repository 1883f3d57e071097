"""What a search asks a cluster before it starts: how many trials fit, also on machines that are still to come."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fsd_tune.cluster import connection, destination
from fsd_tune.device import resolve_precision, select_device
from fsd_tune.errors import InputError
from tests import ROOT
from tests.helpers.searching import short_folder

AWS = {
    "max_workers": 4,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 2},
        "cpu": {"resources": {"CPU": 64}, "max_workers": 3},
        "gpu_spot": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4},
    },
}
HEAD = {"Alive": True, "Resources": {"object_store_memory": 1e9}}


@pytest.fixture
def nodes(monkeypatch):
    """The nodes that live, and what may come, as Ray and `ray up` tell of them."""
    living = [HEAD]
    monkeypatch.setattr("ray.nodes", lambda: living)
    monkeypatch.setenv("FSD_TUNE_NODES", json.dumps(AWS))
    return living


def test_machines_to_come_count_up_to_what_the_cluster_may_have(nodes, load_settings):
    # Of 2 + 4 machines with a GPU there may be 4 at a time, with two trials on each.
    settings = load_settings(**{"resources.gpus_per_trial": 0.5, "search.trials": 64})
    assert connection.workers(settings, 0.5) == 8
    # Without GPUs: 3 of 64 CPUs and one of 8.
    settings = load_settings(**{"resources.cpus_per_trial": 8, "search.trials": 64})
    assert connection.workers(settings, 0) == 3 * 8 + 1
    with pytest.raises(InputError, match="gpus_per_trial: found 2, but the largest node of this cluster has 1 GPUs"):
        connection.workers(load_settings(**{"resources.gpus_per_trial": 2}), 2)


def test_nodes_that_live_count_where_nothing_is_to_come(nodes, monkeypatch, load_settings):
    monkeypatch.setenv("FSD_TUNE_NODES", "")
    nodes += [{"Alive": True, "Resources": {"CPU": 4}}, {"Alive": False, "Resources": {"CPU": 400}}]
    assert connection.workers(load_settings(**{"search.trials": 64}), 0) == 4


def test_a_memory_is_built_with_the_cpus_that_are_free_on_a_node_that_has_its_gpu(nodes, monkeypatch):
    free = {"cpu": {"CPU": 3.5}, "gpu": {"CPU": 2.0, "GPU": 1.0}}
    monkeypatch.setattr("ray._private.state.available_resources_per_node", lambda: free)
    assert connection.build_cpus(1) == 8, "not the CPUs of a node without GPUs: Ray would wait for ever"
    assert connection.build_cpus(0) == 64
    nodes.append({"Alive": True, "NodeID": "cpu", "Resources": {"CPU": 4}})
    nodes.append({"Alive": True, "NodeID": "gpu", "Resources": {"CPU": 8, "GPU": 1}})
    assert (connection.build_cpus(1), connection.build_cpus(0)) == (2, 3), "a node that lives is not waited for"
    free["gpu"]["GPU"] = 0.5
    assert connection.build_cpus(1) == 1
    free.clear()
    assert connection.build_cpus(0) == 1, "all are busy"
    monkeypatch.setenv("FSD_TUNE_NODES", "")
    nodes[:] = [HEAD]
    assert connection.build_cpus(0) == 1


def test_gpus_may_be_elsewhere(monkeypatch, load_settings):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    asked, auto = (load_settings(**{"resources.gpus_per_trial": share}) for share in (0.5, "auto"))
    assert (
        connection.device_for(asked, "auto") == "cuda"
        and connection.device_for(load_settings(), "auto", "h:1") == "cpu"
    )
    assert connection.device_for(auto, "auto") == "auto" and connection.device_for(auto, "auto", "head:6379") == "cuda"
    with pytest.raises(InputError, match="no CUDA device"):
        select_device("cuda", connection.elsewhere(None))
    there = select_device("cuda", connection.elsewhere("head:6379"))
    assert there.type == "cuda" and resolve_precision("auto", there) == "bf16"


def test_auto_is_answered_at_once_when_the_last_cluster_is_gone(monkeypatch):
    from ray._private import services, utils

    # Bound and not listening: nobody answers there, and nobody else can take the port.
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    gone = f"127.0.0.1:{bound.getsockname()[1]}"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(utils, "read_ray_address", lambda: gone)
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: {"127.0.0.1:1"})
    connection._check_reachable("auto", "--address")
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    with bound, pytest.raises(InputError, match=f"nobody answers at {gone}, which is auto here"):
        connection._check_reachable("auto", "--address")


_RESTORED = """
import logging, os, signal, sys, threading
from pathlib import Path
from fsd_tune.cluster import connection

def state():
    level = logging.getLogger("ray.tune.execution.experiment_state").level
    return dict(os.environ), signal.getsignal(signal.SIGTERM), level

def handler(number, frame):
    pass

signal.signal(signal.SIGTERM, handler)
os.environ["RAY_DEDUP_LOGS"] = "1"
os.environ.pop("RAY_AUTH_MODE", None)
before = state()
with connection.connect(None, Path(sys.argv[1])):
    token = os.environ["RAY_AUTH_TOKEN"]
    assert os.environ["RAY_AUTH_MODE"] == "token" and os.environ["RAY_DEDUP_LOGS"] == "1"
    assert signal.getsignal(signal.SIGTERM) is not handler
    with connection.connect():
        pass
    assert os.environ["RAY_AUTH_TOKEN"] == token, "the inner connection is the outer one's"
assert state() == before, "the main thread"
try:
    with connection.connect("127.0.0.1:1"):
        pass
except connection.InputError:
    pass
assert state() == before, "nothing answers"

def in_thread():
    with connection.connect(None, Path(sys.argv[1])):
        handlers.append(signal.getsignal(signal.SIGTERM))

handlers = []
thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
assert handlers == [handler] and state() == before, "another thread"
print("restored")
"""


def test_a_connection_leaves_the_process_as_it_was():
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with short_folder() as temporary:
        done = subprocess.run(
            [sys.executable, "-c", _RESTORED, temporary], capture_output=True, text=True, timeout=120, cwd=ROOT,
            env=environment, check=False,
        )  # fmt: skip
    assert done.stdout == "restored\n", done.stderr


_PRIVATE = """
import json, os, subprocess, sys
from pathlib import Path
import psutil
from fsd_tune.cluster import connection

ATTACK = "import sys; from ray._raylet import GcsClient as C; print(len(C(sys.argv[1]).get_all_node_info(timeout=9)))"

def attack(address, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", ATTACK, address], capture_output=True, text=True, env=clean | environment, timeout=60
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

with connection.connect(None, Path(sys.argv[1])):
    import ray
    @ray.remote
    def path_of_worker():
        return sys.path
    here = psutil.Process()
    family = [here, *here.children(recursive=True)]
    token = os.environ["RAY_AUTH_TOKEN"]
    address = ray.get_runtime_context().gcs_address
    print(json.dumps({
        "listens": sorted({
            each.laddr.ip.removeprefix("::ffff:")
            for process in family for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN
        }),
        "told": [process.pid for process in family if token in " ".join(process.cmdline())],
        "kept": subprocess.run(["grep", "-rl", token, sys.argv[1]], capture_output=True, text=True).stdout,
        "modes": [oct(path.stat().st_mode & 0o777) for path in Path(sys.argv[1]).iterdir()],
        "attacks": [
            attack(address, RAY_AUTH_MODE="disabled"),
            attack(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="guessed"),
        ],
        "with_token": attack(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token),
        "worker": ray.get(path_of_worker.remote()),
    }))
"""


def test_a_local_instance_is_for_its_own_process_alone(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # What the user has set for clusters does not open the local instance.
    environment |= {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    with short_folder() as temporary:
        done = subprocess.run(
            [sys.executable, "-c", _PRIVATE, temporary], capture_output=True, text=True, timeout=120, cwd=tmp_path,
            env=environment, check=False,
        )  # fmt: skip
        assert not list(Path(temporary).iterdir())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["listens"] == ["127.0.0.1"]
    assert found["told"] == [] and found["kept"] == "" and found["modes"] == ["0o700"]
    assert all("AuthenticationError" in said or "Unauthenticated" in said for said in found["attacks"]), found
    assert found["with_token"] == "1"
    assert str(tmp_path) not in found["worker"], "a user's torch.py would be taken for the library"


class _Web(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    """A web server's address, as that of Ray's dashboard."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Web) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("prefix", ["http://", "HTTPS://", "", "tcp://"])
def test_a_dashboard_is_no_cluster(monkeypatch, web, prefix):
    monkeypatch.setenv("RAY_ADDRESS", f"{prefix}{web}")
    for given, flag, remedy in (
        (None, "RAY_ADDRESS", "unset"),
        ("auto", "RAY_ADDRESS", "unset"),
        (f"{prefix}{web}", "--address", "leave it"),
    ):
        said = f"^{flag}: found {prefix}{web}, the address of a dashboard.*{remedy}"
        with pytest.raises(InputError, match=said), connection.connect(given):
            pass


@pytest.mark.parametrize(
    ("given", "variable", "found"),
    [
        (None, "", None),
        (None, "local", None),
        (None, "auto", "auto"),
        (None, "a:1", "a:1"),
        ("auto", "", "auto"),
        ("auto", "a:1", "a:1"),
        ("b:1", "a:1", "b:1"),
        ("local", "a:1", None),
        ("ray://b:1", "http://a:1", "ray://b:1"),
    ],
)
def test_the_flag_goes_before_ray_address(monkeypatch, given, variable, found):
    monkeypatch.setenv("RAY_ADDRESS", variable)
    assert destination.resolve(given)[1] == found and connection.elsewhere(given) == bool(found)
