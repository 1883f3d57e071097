"""The launch from a laptop: submit, status, logs, stop, resume, fetch; word by word as the README has it."""

import json
import time

import pytest
from transformers import pipeline

from tests.cluster.conftest import TRIALS

pytestmark = pytest.mark.slow


def test_a_search_is_submitted_followed_and_fetched(cluster):
    cluster.lab.run(0, "mkdir -p ~/laptop && cp -r {glue,teacher,base,space.yaml} ~/laptop".replace(
        "{", f"{cluster.shared}/{{"))  # fmt: skip
    options = f"--shared {cluster.shared}"
    file = cluster.shared / "cluster.yaml"
    search = "search space.yaml --task sst2 --teacher teacher --data glue --output runs/sst2 --trials 4"
    said = cluster.laptop(f"cd ~/laptop; fsd-tune submit {options} {file} {search}")
    assert "best student" in said, said[-2000:]
    status = cluster.laptop(f"fsd-tune status {options} {file}")
    assert "succeeded" in status and "fsd-tune search" in status
    fetched = cluster.laptop(f"cd ~/laptop; fsd-tune fetch {options} {file} runs/sst2")
    assert "report.html" in fetched and "best" in fetched
    listed = cluster.laptop("cd ~/laptop/runs/sst2; ls; cat summary.json; rm -rf $OLDPWD/mine; cp -r best $OLDPWD/mine")
    assert '"state": "done"' in listed
    assert pipeline("text-classification", model=str(cluster.shared / "mine"))("a word")[0]["label"]


def test_a_detached_search_is_stopped_and_resumed(cluster):
    options, file = f"--shared {cluster.shared}", cluster.shared / "cluster.yaml"
    there = cluster.shared
    search = f"search {there}/space.yaml --task sst2 --teacher {there}/teacher --data {there}/glue"
    job = cluster.laptop(f"fsd-tune submit {options} --detach {file} {search} --output stopped").split()[-1]
    deadline = time.monotonic() + 120
    while not list((cluster.shared / "stopped").glob("results/*/reports.jsonl")):
        assert time.monotonic() < deadline, cluster.laptop(f"fsd-tune logs {options} {file} {job}")
        time.sleep(0.5)
    cluster.laptop(f"fsd-tune stop {options} {file}")
    while json.loads((cluster.shared / "stopped" / "summary.json").read_text())["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    said = cluster.laptop(f"fsd-tune submit {options} {file} resume stopped")
    assert "best student" in said, said[-2000:]
    summary = cluster.summary("stopped")
    assert summary["state"] == "done" and summary["trials"] == TRIALS


def test_the_doctor_asks_every_node(cluster):
    began = time.monotonic()
    looked = "doctor space.yaml --task sst2 --teacher teacher --data glue --output runs/x --address auto"
    done = cluster.lab.run(1, f"cd {cluster.shared}; RAY_AUTH_MODE=token fsd-tune {looked}", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 20
    for line in ("node 10.91.7.11: 0 CPUs", "node 10.91.7.12: 1 CPUs", "node 10.91.7.13: 1 CPUs", "workers: 2 trials"):
        assert f"ok  {line}" in done.stdout
