"""`make measure-failures`: how long a search on three hosts takes to go on after each kind of failure."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fsd_tune.results import load
from tests.cluster import lab as labs
from tests.cluster.conftest import Cluster, running


def elsewhere(cluster: Cluster, name: str, trials: set[str], host: int) -> int:
    """How many reports these trials have made on other hosts."""
    paths = [cluster.shared / name / "results" / trial / "reports.jsonl" for trial in trials]
    return sum(f'"lab{host}"' not in line for path in paths for line in path.read_text().splitlines())


def on(cluster: Cluster, name: str, host: int) -> set[str]:
    """The trials whose newest report came from a host and that have not ended."""
    folder, found = cluster.shared / name / "results", set()
    for path in folder.glob("*/reports.jsonl"):
        lines = path.read_text().splitlines()
        if lines and f'"lab{host}"' in lines[-1] and not (path.parent / "trial.json").exists():
            found.add(path.parent.name)
    return found


def measure(cluster: Cluster, name: str, host: int, fail: Callable[[int], None]) -> tuple[float, float, float]:
    """Seconds until the cluster knows, until the host's trial reports again elsewhere, and of the whole search."""
    began = time.monotonic()
    process = cluster.lab.start(1, cluster.command(name))
    while not (trials := on(cluster, name, host)):
        assert process.poll() is None, "the search ended before a trial ran there"
        time.sleep(0.1)
    before, failed = elsewhere(cluster, name, trials, host), time.monotonic()
    fail(host)
    known = went_on = 0.0
    while process.poll() is None:
        if not known and cluster.alive() == 2:
            known = time.monotonic() - failed
        if not went_on and elsewhere(cluster, name, trials, host) > before:
            went_on = time.monotonic() - failed
        time.sleep(0.1)
    assert process.returncode == 0, process.stdout.read() if process.stdout else ""
    assert set(load(cluster.shared / name).trials["state"]) <= {"finished", "stopped"}
    return known, went_on, time.monotonic() - began


def _say(what: str, known: float, went_on: float, whole: float) -> None:
    print(
        f"{what}: known after {known:.0f} s, its trial reports again after {went_on:.0f} s, {whole:.0f} s in all",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    if reason := labs.missing():
        raise SystemExit(f"no hosts can be made here: {reason}")
    with tempfile.TemporaryDirectory() as shared, running(Path(shared)) as cluster:
        began = time.monotonic()
        done = cluster.lab.run(1, cluster.command("plain"), timeout=600)
        assert done.returncode == 0
        print(f"nothing fails: the search takes {time.monotonic() - began:.0f} s", flush=True)
        known, went_on, whole = measure(cluster, "dead", 3, cluster.lab.kill)
        _say("host dies", known, went_on, whole)
        cluster.boot(3)
        cluster.join(3)
        known, went_on, whole = measure(cluster, "cut", 2, cluster.lab.cut)
        print(
            f"host cut off: known after {known:.0f} s, trial reports again after {went_on:.0f} s, {whole:.0f} s in all"
        )
        cluster.lab.heal(2)


if __name__ == "__main__":
    main()
