"""Hosts that share no folder: everything goes through an S3 server that runs on the laptop."""

import shlex
import signal
import time

import pytest
from transformers import AutoModelForSequenceClassification

from fsd_tune.report.results import load
from tests.cluster import lab as labs
from tests.cluster.test_searches import hosts_of
from tests.helpers.searching import agree

pytestmark = pytest.mark.slow
PORT = 5000
# Among that host's own processes.
SERVER = f"pkill -{{}} -f '[m]oto.server -H 0.0.0.0 -p {PORT}'"
_BUCKET = f"import urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:{PORT}/bucket', method='PUT'))"


@pytest.fixture
def uri(cluster):
    """A place in a bucket, for which every host has keys in a file."""
    server = cluster.lab.start(0, f"exec python -m moto.server -H 0.0.0.0 -p {PORT} > /dev/null 2>&1")
    keys = "[default]\naws_access_key_id = test\naws_secret_access_key = not-a-secret\n"
    for host in (0, 1, 2, 3):
        cluster.lab.run(host, f"mkdir -p ~/.aws; printf %s {shlex.quote(keys)} > ~/.aws/credentials")
    deadline = time.monotonic() + 240
    while cluster.lab.run(0, f"python -c {shlex.quote(_BUCKET)}", check=False).returncode:
        assert server.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    yield f"s3://bucket/runs/uri?scheme=http&endpoint_override={labs.address(0)}:{PORT}&region=us-east-1"
    cluster.lab.run(0, SERVER.format("TERM"), check=False)
    server.send_signal(signal.SIGCONT)  # nsenter has stopped with it
    server.wait(timeout=30)


def test_a_search_without_a_shared_folder(cluster, uri):
    """The inputs lie on the head's own disk; trials spread; the student comes to the laptop from the storage."""
    copied = f"mkdir -p /srv/own; cp -r {cluster.shared}/teacher {cluster.shared}/base {cluster.shared}/glue /srv/own/"
    cluster.lab.run(1, f"{copied}; cp {cluster.shared}/space.yaml /srv/own/")
    words = ["fsd-tune", "search", "space.yaml", "--task", "sst2", "--teacher", "teacher", "--data", "glue"]
    words += ["--student-model", "base", "--output", uri, "--address", "auto", "--resources-placement", "spread"]
    # Two trials would fit on each host.
    words += ["--cpus-per-trial", "0.5", "--max-concurrent", "2", "--trials", "3", "--asha", "off", "--epochs", "40"]
    process = cluster.lab.start(1, f"cd /srv/own; FSD_TUNE_CACHE=/srv/cache RAY_AUTH_MODE=token {shlex.join(words)}")
    working = "cat /srv/cache/*/work/uri/results/*/reports.jsonl"
    deadline = time.monotonic() + 300
    while not cluster.lab.run(1, working, check=False).stdout:
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.5)
    # The server takes connections and says nothing.
    cluster.lab.run(0, SERVER.format("STOP"))
    time.sleep(20)
    assert process.poll() is None
    cluster.lab.run(0, SERVER.format("CONT"))
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said[-3000:]
    for host in (2, 3):
        there = cluster.lab.run(host, "ls -d /srv/own/base", check=False).stdout
        assert "/srv/own/base" in there, "a node that trains has brought the models to its disk"
    home = cluster.shared / "home"
    cluster.laptop(f"fsd-tune fetch {shlex.quote(uri)} --output {home}")
    AutoModelForSequenceClassification.from_pretrained(home / "best")
    assert (home / "report.html").stat().st_size > 100_000
    # What lies behind the URI is a search's folder: read it as one.
    cluster.laptop(f"FSD_TUNE_CACHE={cluster.shared}/cache fsd-tune report {shlex.quote(uri)}")
    (view,) = (cluster.shared / "cache").glob("*/view/uri")
    results = load(view)
    assert set(results.trials["state"]) == {"finished"} and len(results.trials) == 3
    assert results.summary.memory.passes == 1
    assert results.summary.workers == 2 and hosts_of(view) == {"lab2", "lab3"}, "the head trains nothing"
    agree(results)
