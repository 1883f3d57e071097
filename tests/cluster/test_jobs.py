"""The launch from a laptop, word by word as the README has it; a search that is stopped and resumed from there."""

import json
import time

import pytest
from transformers import pipeline

from fsd_tune.results import load
from tests.cluster.conftest import ROOT, TRIALS

pytestmark = pytest.mark.slow


def commands():
    """The README's commands for a cluster, but for the one that installs what Ray needs to talk to AWS."""
    section = (ROOT / "README.md").read_text().split("## On a cluster")[1]
    lines = [line.partition(" #")[0].strip() for line in section.split("```bash\n")[1].split("```")[0].splitlines()]
    assert lines[0] == "pip install boto3"
    return lines[1:]


def test_the_readmes_launch_word_by_word(made):
    """Its files are on the laptop alone, under its names; the hosts share what it takes to be shared."""
    made.configure(on_demand=False)
    copied = {"cluster.yaml": "", "space.yaml": "search_spaces/fsd_ilg.yaml", "teacher": "teachers/rte", "glue": ""}
    copies = "; ".join(f"cp -r {made.shared / name} {target or name}" for name, target in copied.items())
    made.lab.run(
        0, f"mkdir -p ~/launch/{{search_spaces,teachers}}; cd ~/launch; {copies}; ray get-auth-token --generate"
    )
    for host in (1, 2, 3):
        made.lab.run(host, f"mkdir -p /shared; mount --bind {made.shared} /shared")
    up, *_, down = lines = commands()
    assert up.startswith("ray up") and down.startswith("ray down")
    said = {}
    for line in [*lines[:-1], "fsd-tune status cluster.yaml", down]:
        # As docs/cluster/hosts.yaml has it for a list of hosts.
        answered = f"cd ~/launch; export RAY_UP_enable_autoscaler_v2=0; yes | {line}"
        done = made.lab.run(0, answered, check=False, timeout=400)
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        said[line] = done.stdout
        if line == up:
            made.wait_for_nodes(3)
    (searched,) = [text for line, text in said.items() if " search " in line]
    assert "best student" in searched
    status = said["fsd-tune status cluster.yaml"]
    assert "succeeded" in status and "fsd-tune search" in status
    made.wait_for_nodes(0)
    made.lab.run(0, f"cp -r ~/launch/runs/rte {made.shared / 'home'}")
    results = load(made.shared / "home")
    assert len(results.trials) == TRIALS and results.summary["state"] == "done"
    assert (made.shared / "home" / "report.html").stat().st_size > 100_000
    assert pipeline("text-classification", model=str(made.shared / "home" / "best"))("a word")[0]["label"]


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
