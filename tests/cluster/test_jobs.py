"""The launch as docs/how-to/cluster.md has it, word by word; a search that is stopped and resumed from a laptop."""

import shlex
import time

import pytest
from transformers import pipeline

from tests import ROOT
from tests.cluster import lab as labs
from tests.cluster.measure import DRIVER, reports
from tests.cluster.test_searches import check

pytestmark = pytest.mark.slow


def commands():
    """The page's first commands, but for the one that installs what Ray needs to talk to AWS."""
    page = (ROOT / "docs/how-to/cluster.md").read_text()
    lines = [line.partition(" #")[0].strip() for line in page.split("```bash\n")[1].split("```")[0].splitlines()]
    assert lines[0] == "pip install boto3"
    return lines[1:]


def _wait(true, why=lambda: "", seconds=180):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, why()
        time.sleep(0.2)


def test_the_launch_of_the_page_word_by_word(made):
    """Its files are on the laptop alone, under its names; the hosts share what it takes to be shared."""
    made.configure(on_demand=False)
    copied = {"cluster.yaml": "", "space.yaml": "search_spaces/fsd_ilg.yaml", "teacher": "teachers/rte", "glue": ""}
    fewer = "sed -i 's/trials: 8/trials: 4/' search_spaces/fsd_ilg.yaml"
    copies = "; ".join(f"cp -r {made.shared / name} {target or name}" for name, target in copied.items())
    made.lab.run(0, f"mkdir -p ~/launch/{{search_spaces,teachers}}; cd ~/launch; {copies}; {fewer}")
    for host in (1, 2, 3):
        made.lab.run(host, f"mkdir -p /shared; mount --bind {made.shared} /shared")
    token, up, *_, down = lines = commands()
    assert token == "ray get-auth-token --generate" and up.startswith("ray up") and down.startswith("ray down")
    said = {}
    for line in [*lines[:-1], "fsd-tune status cluster.yaml", down]:
        # The variable is the one that examples/cluster/hosts.yaml asks for. On a terminal Ray asks whether to go on.
        typed = f"echo y | script -qec {shlex.quote(line)} /dev/null" if line.startswith("ray ") else line
        command = f"cd ~/launch; export RAY_UP_enable_autoscaler_v2=0; {typed}"
        done = made.lab.run(0, command, check=False, timeout=400)
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        said[line] = done.stdout
        if line == up:
            made.wait_for_nodes(3)
    (searched,) = [text for line, text in said.items() if " search " in line]
    assert "best student" in searched
    status = said["fsd-tune status cluster.yaml"]
    assert "succeeded" in status and "fsd-tune search" in status
    # Of a list of hosts the others' Ray ends by itself, when it finds no head any more.
    assert not made.lab.run(1, "pgrep -x raylet", check=False).stdout
    made.lab.run(0, f"cp -r ~/launch/runs/rte {made.shared / 'brought'}")
    summary = made.summary("brought")
    assert summary["state"] == "done" and summary["trials"] == 4
    assert (made.shared / "brought" / "report.html").stat().st_size > 100_000
    assert pipeline("text-classification", model=str(made.shared / "brought" / "best"))("a word")[0]["label"]


def test_a_detached_search_is_stopped_and_resumed_and_its_driver_dies(cluster):
    options, file = f"--shared {cluster.shared}", cluster.shared / "cluster.yaml"
    there, folder = cluster.shared, cluster.shared / "stopped"
    search = f"search {there}/space.yaml --task sst2 --teacher {there}/teacher --data {there}/glue"
    search += " --asha off --epochs 150"  # so long that nothing of what follows comes too late
    job = cluster.laptop(f"fsd-tune submit {options} --detach {file} {search} --output stopped").split()[-1]
    _wait(lambda: reports(cluster, "stopped"), lambda: cluster.laptop(f"fsd-tune logs {options} {file} {job}"))
    again = f"cd {there}; RAY_AUTH_MODE=token fsd-tune resume stopped --address {labs.address(1)}:6379"
    twice = cluster.lab.run(2, again, check=False)
    assert twice.returncode == 2 and "another search is running in stopped" in twice.stderr
    cluster.laptop(f"fsd-tune stop {options} {file}")
    _wait(lambda: cluster.summary("stopped")["state"] != "running")
    had = reports(cluster, "stopped")
    job = cluster.laptop(f"fsd-tune submit {options} --detach {file} resume stopped").split()[-1]
    _wait(lambda: reports(cluster, "stopped") > had, lambda: cluster.laptop(f"fsd-tune logs {options} {file} {job}"))
    cluster.lab.run(1, f"kill -9 $({DRIVER.replace('search', 'resume')})")
    finished = {path: path.read_bytes() for path in folder.glob("results/*/trial.json")}
    said = cluster.laptop(f"fsd-tune submit {options} {file} resume stopped")
    assert "best student" in said, said[-2000:]
    check(cluster, "stopped")
    assert {path: path.read_bytes() for path in finished} == finished


def test_the_doctor_asks_every_node(cluster):
    looked = "doctor space.yaml --task sst2 --teacher teacher --data glue --output runs/x --address auto"
    done = cluster.lab.run(1, f"cd {cluster.shared}; RAY_AUTH_MODE=token fsd-tune {looked}", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("node 10.91.7.11: 0 CPUs", "node 10.91.7.12: 1 CPUs", "node 10.91.7.13: 1 CPUs", "workers: 2 trials"):
        assert f"ok  {line}" in done.stdout
