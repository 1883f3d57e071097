"""The launch as docs/how-to/cluster.md has it, word by word; a search that is stopped and resumed from a laptop."""

import shlex
import time

import pytest
from transformers import pipeline

from tests import ROOT
from tests.cluster.conftest import TRIALS
from tests.cluster.measure import DRIVER, reports
from tests.cluster.test_searches import check, hosts_of

pytestmark = pytest.mark.slow


def commands():
    """The page's first commands, but for the one that installs what Ray needs to talk to AWS."""
    page = (ROOT / "docs/how-to/cluster.md").read_text()
    lines = [line.partition(" #")[0].strip() for line in page.split("```bash\n")[1].split("```")[0].splitlines()]
    assert lines[0] == "pip install boto3"
    return lines[1:]


@pytest.mark.timeout(900)
def test_the_launch_of_the_page_word_by_word(made):
    """Its files are on the laptop alone, under its names; workers come for the trials and go after them."""
    made.configure(on_demand=True)
    # So long that the second worker starts its trial before the first has ended its own, and would take that one, too.
    longer = {f"trials: {TRIALS}": "trials: 2", "epochs: 60": "epochs: 400", "asha: {reports: 4}": "asha: off"}
    space = (made.shared / "space.yaml").read_text()
    for old, new in longer.items():
        assert old in space
        space = space.replace(old, new)
    (made.shared / "longer.yaml").write_text(space)
    copied = {"cluster.yaml": "", "longer.yaml": "search_spaces/fsd_ilg.yaml", "teacher": "teachers/rte", "glue": ""}
    copies = "; ".join(f"cp -r {made.shared / name} {target or name}" for name, target in copied.items())
    made.lab.run(0, f"mkdir -p ~/launch/{{search_spaces,teachers}}; cd ~/launch; {copies}")
    for host in (1, 2, 3):
        made.lab.run(host, f"mkdir -p /shared; mount --bind {made.shared} /shared")
    token, up, *_, down = lines = commands()
    assert token == "ray get-auth-token --generate" and up.startswith("ray up") and down.startswith("ray down")
    said = {}
    for line in [*lines[:-1], "fsd-tune status cluster.yaml", down]:
        # On a terminal Ray asks whether to go on.
        typed = f"echo y | script -qec {shlex.quote(line)} /dev/null" if line.startswith("ray ") else line
        if line == down:
            made.wait_for_nodes(1)
        done = made.lab.run(0, f"cd ~/launch; {typed}", check=False, timeout=400)
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        said[line] = done.stdout
        if line == up:
            made.wait_for_nodes(1)
    (searched,) = [text for line, text in said.items() if " search " in line]
    assert "best student" in searched
    status = said["fsd-tune status cluster.yaml"]
    assert "succeeded" in status and "fsd-tune search" in status
    assert not made.lab.run(1, "pgrep -x raylet", check=False).stdout
    results = check(made, "runs/rte", trials=2)
    assert results.summary.workers == 2 and hosts_of(made.shared / "runs/rte") == {"lab2", "lab3"}
    made.lab.run(0, f"cp -r ~/launch/runs/rte {made.shared / 'brought'}")
    summary = made.summary("brought")
    assert summary["state"] == "done" and summary["trials"] == 2
    assert (made.shared / "brought" / "report.html").stat().st_size > 100_000
    assert pipeline("text-classification", model=str(made.shared / "brought" / "best"))("a word")[0]["label"]


@pytest.mark.timeout(1200)
def test_a_detached_search_outlives_a_stop_and_its_drivers_and_the_heads_death(cluster):
    """Each time another driver goes on with it, and nothing that was finished is done again."""
    options, file = f"--shared {cluster.shared}", cluster.shared / "cluster.yaml"
    there, folder = cluster.shared, cluster.shared / "stopped"

    def submit(words):
        """Submit without following; until a trial reports."""
        had, deadline = reports(cluster, "stopped"), time.monotonic() + 300
        job = cluster.laptop(f"fsd-tune submit {options} --detach {file} {words}").split()[-1]
        while reports(cluster, "stopped") <= had:
            assert time.monotonic() < deadline, cluster.laptop(f"fsd-tune logs {options} {file} {job}")
            time.sleep(0.2)

    # So long that nothing of what follows comes too late.
    search = f"search {there}/space.yaml --task sst2 --teacher {there}/teacher --data {there}/glue"
    submit(f"{search} --asha off --trials 3 --epochs 300 --output stopped")
    cluster.laptop(f"fsd-tune stop {options} {file}")
    deadline = time.monotonic() + 300
    while cluster.summary("stopped")["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert cluster.summary("stopped")["state"] == "interrupted"
    submit("resume stopped")
    cluster.lab.run(1, f"kill -9 $({DRIVER.replace('search', 'resume')})")
    submit("resume stopped")
    cluster.lab.kill(1)
    finished = {path: path.read_bytes() for path in folder.glob("results/*/trial.json")}
    assert len(finished) < 3
    cluster.boot(1)
    cluster.up()
    said = cluster.laptop(f"fsd-tune submit {options} {file} resume stopped")
    assert "best student" in said, said[-2000:]
    check(cluster, "stopped", trials=3)
    assert {path: path.read_bytes() for path in finished} == finished


def test_the_doctor_asks_every_node(cluster):
    looked = "doctor space.yaml --task sst2 --teacher teacher --data glue --output runs/x --address auto"
    done = cluster.lab.run(1, f"cd {cluster.shared}; RAY_AUTH_MODE=token fsd-tune {looked}", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("node 10.91.7.11: 0 CPUs", "node 10.91.7.12: 1 CPUs", "node 10.91.7.13: 1 CPUs", "workers: 2 trials"):
        assert f"ok  {line}" in done.stdout
