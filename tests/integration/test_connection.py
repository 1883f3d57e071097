"""What a search asks a cluster before it starts: how many trials fit, also on machines that are still to come."""

import contextlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from fsd_tune.cluster import accelerator, connection, destination
from fsd_tune.device import resolve_precision
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


def test_the_device_of_a_search_on_this_machine(monkeypatch, load_settings):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    share, auto, none = (load_settings(**{"resources.gpus_per_trial": value}) for value in (0.5, "auto", 0))
    assert load_settings().resources.gpus_per_trial == "auto"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert accelerator.choose(auto, "auto") == accelerator.choose(none, "auto") == accelerator.Accelerator("cpu")
    for settings, device, problem in (
        (share, "auto", "resources.gpus_per_trial: found 0.5, but this machine has no CUDA device that torch sees."),
        (auto, "cuda", "--device: found cuda, but this machine has no CUDA device that torch sees."),
        (none, "cuda", "--gpus-per-trial: found 0, but must be auto or above 0 with --device cuda."),
    ):
        with pytest.raises(InputError, match=re.escape(problem)):
            accelerator.choose(settings, device)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [accelerator.choose(settings, "auto").device for settings in (share, auto, none)] == ["cuda", "cuda", "cpu"]
    assert [accelerator.gpus_for(settings, "cuda") for settings in (share, auto)] == [0.5, 1.0]
    assert accelerator.gpus_for(auto, "cpu") == 0


@pytest.fixture
def cluster_of(monkeypatch, nodes):
    """A function that makes the connected cluster have these nodes, whose GPUs give these answers on bfloat16."""
    answers: list[bool] = []
    monkeypatch.setattr(connection, "connect", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr("ray.wait", lambda asked, num_returns, timeout: (asked, []))
    monkeypatch.setattr("ray.get", lambda answer: answer)

    class Task:
        def options(self, **_):
            return self

        def remote(self):
            return answers.pop()

    monkeypatch.setattr("fsd_tune.cluster.nodes.as_task", lambda *_, **__: Task())

    def make(gpus, found, future=""):
        nodes[:] = [
            {"Alive": True, "NodeID": f"{i:056x}", "Resources": {"CPU": 4, "GPU": n}} for i, n in enumerate(gpus)
        ]
        answers[:] = found
        monkeypatch.setenv("FSD_TUNE_NODES", future)

    return make


def test_the_device_of_a_search_on_a_cluster(cluster_of, load_settings):
    settings = load_settings(precision="auto")
    cluster_of([0, 0], [])
    assert accelerator.choose(settings, "auto", "h:1") == accelerator.Accelerator("cpu")
    with pytest.raises(InputError, match="--device: found cuda, but no node of this cluster has a GPU"):
        accelerator.choose(settings, "cuda", "h:1")
    with pytest.raises(InputError, match=r"gpus_per_trial: found 1\.0, but no node"):
        accelerator.choose(load_settings(**{"resources.gpus_per_trial": 1}), "auto", "h:1")
    for gpus, answers, native in (([0, 1], [True], True), ([1, 2], [True, False], False), ([1, 1], [True, True], True)):
        cluster_of(gpus, answers)
        assert accelerator.choose(settings, "auto", "h:1") == accelerator.Accelerator("cuda", native)
    cluster_of([0], [False], json.dumps(AWS))
    assert accelerator.choose(settings, "auto", "h:1") == accelerator.Accelerator("cuda", False), "one that is to come"
    cluster_of([1], [])
    assert accelerator.choose(load_settings(precision="bf16"), "auto", "h:1").device == "cuda", "nobody is asked"
    assert accelerator.choose(settings, "cpu", "h:1") == accelerator.Accelerator("cpu")


def test_gpus_that_no_trial_uses_are_named(nodes, load_settings):
    assert accelerator.idle_note(load_settings(), "auto") == ""
    nodes.append({"Alive": True, "Resources": {"CPU": 4, "GPU": 2}})
    nodes.append({"Alive": False, "Resources": {"CPU": 4, "GPU": 2}})
    none = load_settings(**{"resources.gpus_per_trial": 0})
    assert (
        accelerator.idle_note(load_settings(), "cpu") == "2 GPUs are not used: --device cpu; --device auto uses them."
    )
    assert accelerator.idle_note(none, "auto") == "2 GPUs are not used: resources.gpus_per_trial is 0; auto uses them."
    nodes[1]["Resources"]["GPU"] = 1.0
    assert re.fullmatch(
        r"1 GPU is not used: torch \S+ sees no CUDA device\.", accelerator.idle_note(load_settings(), "auto")
    )


def test_a_gpu_that_only_emulates_bf16_computes_in_float32(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    cuda = torch.device("cuda")
    assert resolve_precision("auto", cuda) == resolve_precision("auto", cuda, native_bf16=False) == "float32"
    assert resolve_precision("auto", cuda, native_bf16=True) == resolve_precision("bf16", cuda) == "bf16"


def test_auto_is_answered_at_once_when_the_last_cluster_is_gone(monkeypatch):
    from ray._private import services, utils

    # Bound and not listening: nobody answers there, and nobody else can take the port.
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    gone = f"127.0.0.1:{bound.getsockname()[1]}"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(utils, "read_ray_address", lambda: gone)
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: {"127.0.0.1:1"})
    destination.check_reachable("auto", "--address")
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    with bound, pytest.raises(InputError, match=f"nobody answers at {gone}, which is auto here"):
        destination.check_reachable("auto", "--address")


_RESTORED = """
import logging, os, signal, sys, threading
from pathlib import Path
from ray._private.node import Node
from fsd_tune.cluster import connection

def state():
    level = logging.getLogger("ray.tune.execution.experiment_state").level
    starts = [Node.start_monitor, Node.start_api_server, Node.start_log_monitor]
    return dict(os.environ), signal.getsignal(signal.SIGTERM), level, starts

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
            [sys.executable, "-c", _RESTORED, temporary], capture_output=True, text=True, timeout=300, cwd=ROOT,
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
        [sys.executable, "-c", ATTACK, address], capture_output=True, text=True, env=clean | environment, timeout=300
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

with connection.connect(None, Path(sys.argv[1])):
    import ray
    @ray.remote
    def seen_by_worker():
        return sys.path, "transformers.modeling_utils" in sys.modules
    here = psutil.Process()
    family = [here, *here.children(recursive=True)]
    token = os.environ["RAY_AUTH_TOKEN"]
    address = ray.get_runtime_context().gcs_address
    print(json.dumps({
        "listens": sorted({
            each.laddr.ip.removeprefix("::ffff:")
            for process in family for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN
        }),
        "for clusters": [name for process in family for name in process.cmdline() if name.endswith(
            ("monitor.py", "dashboard.py"))],
        "told": [process.pid for process in family if token in " ".join(process.cmdline())],
        "kept": subprocess.run(["grep", "-rl", token, sys.argv[1]], capture_output=True, text=True).stdout,
        "modes": [oct(path.stat().st_mode & 0o777) for path in Path(sys.argv[1]).iterdir()],
        "attacks": [
            attack(address, RAY_AUTH_MODE="disabled"),
            attack(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="guessed"),
        ],
        "with_token": attack(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token),
        "worker": ray.get(seen_by_worker.remote()),
    }))
"""


def test_a_local_instance_is_for_its_own_process_alone(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # What the user has set for clusters does not open the local instance.
    environment |= {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    with short_folder() as temporary:
        done = subprocess.run(
            [sys.executable, "-c", _PRIVATE, temporary], capture_output=True, text=True, timeout=300, cwd=tmp_path,
            env=environment, check=False,
        )  # fmt: skip
        assert not list(Path(temporary).iterdir())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["listens"] == ["127.0.0.1"]
    assert found["for clusters"] == [], "nobody needs these processes of Ray here"
    assert found["told"] == [] and found["kept"] == "" and found["modes"] == ["0o700"]
    assert all("AuthenticationError" in said or "Unauthenticated" in said for said in found["attacks"]), found
    assert found["with_token"] == "1"
    path, has_imported = found["worker"]
    assert str(tmp_path) not in path, "a user's torch.py would be taken for the library"
    assert has_imported or (os.cpu_count() or 1) > 8, "the first workers import while nobody needs them"


class _Web(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass


class _Server(http.server.HTTPServer):
    def handle_error(self, *_):
        """A client that does not wait for the answer is no error."""


@pytest.fixture
def web():
    """A web server's address, as that of Ray's dashboard."""
    with _Server(("127.0.0.1", 0), _Web) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_folder_for_a_local_ray_beside_a_cluster(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    for address, flag in ((None, "RAY_ADDRESS"), ("127.0.0.1:1", "--address")):
        with pytest.raises(InputError, match=f"^--temp-dir: .*{flag} names"), connection.connect(address, tmp_path):
            pass


def test_an_address_of_ipv6(monkeypatch):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        monkeypatch.setattr(destination, "_ANSWER_SECONDS", 0.1)
        destination.check_reachable(f"[::1]:{server.getsockname()[1]}", "--address")


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
