"""Tracking in Weights & Biases: real offline files read back, a service that dies, servers that refuse."""

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from fsd_tune.settings.wandb_section import Wandb
from fsd_tune.tracking.login import tracking_problems
from fsd_tune.tracking.tracker import Tracker, safe_id, tracked
from tests.helpers.wandb_files import runs_of

OFFLINE = Wandb(mode="offline", tags=("<b>a</b>", "b"))


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """No test knows a key, and each has a home of its own."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))


def test_off_does_nothing(tmp_path):
    tracker = Tracker(Wandb(), tmp_path, "g")
    tracker.write("a", "trial", {}, [{"report": 1}], {})
    tracker.close()
    assert not list(tmp_path.iterdir())
    code = "import sys, fsd_tune.search.driver, fsd_tune.training.api; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, "nobody pays for the import"


def test_names_become_ids():
    assert safe_id("rte <x>/ü 1_2.3") == "rte-x-1_2.3" and len(safe_id("a" * 300)) == 100
    assert safe_id("a" * 300 + "-1") != safe_id("a" * 300 + "-2"), "trials of a long name share no id"


def test_runs_are_read_back(tmp_path):
    said: list[str] = []
    tracker = Tracker(OFFLINE, tmp_path, "search <1", said.append)
    rows = [{"report": i, "accuracy": i / 10, "loss/kd": 1.0} for i in (1, 2, 3)]
    tracker.begin("t0", "trial", {"hp/alpha": 0.5, "task": "<script>"}, rows[:1])
    tracker.begin("t0", "trial", {})  # its worker died and it started again
    for row in rows:  # the first again
        tracker.log("t0", row)
    tracker.end("t0", {"state": "finished", "best_accuracy": 0.3})
    tracker.write("t1", "trial", {}, rows[:2], {"state": "failed", "reason": "diverged: </td>"}, failed=True)
    tracker.begin("open", "trial", {}, rows[:1])
    tracker.close()
    found = runs_of(tmp_path)
    first = found["search-1-t0"]
    assert first.rows == rows and first.exit_code == 0 and first.group == "search-1" and first.kind == "trial"
    assert (first.summary["best_accuracy"] == 0.3 and first.config["hp/alpha"] == {"value": 0.5}) or first.config
    assert first.tags == ["<b>a</b>", "b"]
    second = found["search-1-t1"]
    assert second.rows == rows[:2] and second.exit_code == 1 and second.summary["reason"] == "diverged: </td>"
    assert not said and {path.name for path in tmp_path.iterdir()} == {"wandb"}
    assert tracker.holds("t0") and tracker.holds("t1") and not tracker.holds("open")
    assert not (tmp_path / "home").exists(), "nothing is staged in the home folder"


def test_a_run_that_was_broken_off_is_written_anew(tmp_path):
    rows = [{"report": i, "accuracy": i / 10} for i in (1, 2, 3)]
    code = f"""
import os, pathlib
from fsd_tune.settings.wandb_section import Wandb
from fsd_tune.tracking.tracker import Tracker
tracker = Tracker(Wandb(mode="offline"), pathlib.Path({str(tmp_path)!r}), "g")
tracker.begin("t", "trial", {{}}, {rows[:2]})
import time; time.sleep(float(os.environ["SECONDS"]))
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"SECONDS": "4"}, check=False)
    (killed,) = runs_of(tmp_path).values()
    assert killed.rows == rows[:2] and killed.exit_code is None, "rows are on disk a second after they are made"
    tracker = Tracker(Wandb(mode="offline"), tmp_path, "g")
    assert not tracker.holds("t")
    tracker.write("t", "trial", {}, rows, {})
    tracker.close()
    (whole,) = runs_of(tmp_path).values()
    assert whole.rows == rows and whole.exit_code == 0


def test_one_run_around_a_piece_of_work(tmp_path):
    with tracked(OFFLINE, tmp_path, "distill", "s", {"a": 1}, print) as run:
        run.log({"report": 1, "loss": 2.0})
        run.summary["score"] = 0.5
    with pytest.raises(ZeroDivisionError), tracked(OFFLINE, tmp_path, "distill", "s", {}, print):
        raise ZeroDivisionError
    by_code = {run.exit_code: run for run in runs_of(tmp_path).values()}
    assert by_code[0].rows == [{"report": 1, "loss": 2.0}] and by_code[0].summary["score"] == 0.5
    assert by_code[1].kind == "distill"


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
@pytest.mark.parametrize("who", ["process", "service"])
def test_one_that_dies_or_hangs_stops_the_tracking_alone(tmp_path, signal, who, monkeypatch):
    """Our process or W&B's own service is killed, or hangs: calls return at once, it is said once, nothing is left."""
    monkeypatch.setattr("fsd_tune.tracking.tracker._CLOSE_SECONDS", 3.0)
    said: list[str] = []
    tracker = Tracker(OFFLINE, tmp_path, "g", said.append)
    tracker.begin("t", "trial", {}, [{"report": 1}])
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("wandb/*/*.wandb")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert tracker._process is not None
    ours = psutil.Process(tracker._process.pid)
    family = [ours, *ours.children(recursive=True)]
    assert len(family) > 1
    for one in family[:1] if who == "process" else family[1:]:
        one.kill() if signal == "KILL" else one.suspend()
    for report in range(2, 5000):  # more than a pipe holds
        tracker.log("t", {"report": report, "text": "x" * 100})
    tracker.end("t", {})
    tracker.write("u", "trial", {}, [{"report": 1}], {})
    assert len(said) <= 1 and tracker._process is not None, "no call has waited for the end"
    tracker.close()
    assert len(said) == 1 and said[0].startswith("Weights & Biases: logging has")
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, alive


class Refuses(BaseHTTPRequestHandler):
    """A server that knows no key."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b'{"errors": [{"message": "permission denied"}]}'
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815 (the name that http.server calls)

    def log_message(self, *_):
        pass


class Hangs(Refuses):
    """A server that never answers."""

    def do_POST(self):
        time.sleep(30)

    do_GET = do_POST  # noqa: N815 (the name that http.server calls)


@pytest.fixture
def server(monkeypatch):
    servers = []

    def start(handler):
        one = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        one.daemon_threads = True
        threading.Thread(target=one.serve_forever, daemon=True).start()
        servers.append(one)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{one.server_port}")

    yield start
    for one in servers:
        one.shutdown()


KEY = "0123456789abcdef" * 3


@pytest.mark.parametrize(
    ("handler", "key", "expected"),
    [(None, None, "there is no key"), (Refuses, KEY, "W&B refuses"), (Hangs, KEY, "has not answered within 9 s")],
)
def test_online_is_checked_before_anything_starts(server, monkeypatch, handler, key, expected):
    if handler is not None:
        server(handler)
    if key is not None:
        monkeypatch.setenv("WANDB_API_KEY", key)
    (problem,) = tracking_problems(Wandb(mode="online"))
    assert expected in problem and "--wandb offline" in problem and "\n" not in problem and KEY not in problem
    assert tracking_problems(OFFLINE) == tracking_problems(Wandb()) == []
