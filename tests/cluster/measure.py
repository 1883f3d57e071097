"""`make measure-failures`: how long a search on three hosts takes to go on after each kind of failure."""

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fsd_tune.report.results import load
from tests.cluster import lab as labs
from tests.cluster.conftest import Cluster, hosts

# In a host's own process ids, of its own processes.
ACTOR = "pgrep -f '^ray::_Memory'"
DRIVER = "pgrep -f '[f]sd-tune search'"
TRIAL = "pgrep -f '^ray::.*(DistillTrial|ResourceTrainable)'"
_STORAGE_SECONDS = 60
Process = subprocess.Popen[str]


def reports(cluster: Cluster, name: str) -> int:
    """How many reports a search's trials have made."""
    return sum(len(path.read_text().splitlines()) for path in (cluster.shared / name).glob("results/*/reports.jsonl"))


def on(cluster: Cluster, name: str, host: int) -> set[str]:
    """The trials whose newest report came from a host and that have not ended."""
    folder, found = cluster.shared / name / "results", set()
    for path in folder.glob("*/reports.jsonl"):
        lines = path.read_text().splitlines()
        if lines and f'"lab{host}"' in lines[-1] and not (path.parent / "trial.json").exists():
            found.add(path.parent.name)
    return found


def _reports_of(cluster: Cluster, name: str, trial: str) -> int:
    return len((cluster.shared / name / "results" / trial / "reports.jsonl").read_text().splitlines())


def host_of_memory(cluster: Cluster) -> int:
    """The host on which the memory's actor lives."""
    (host,) = [host for host in (1, 2, 3) if cluster.lab.run(host, ACTOR, check=False).stdout.strip()]
    return host


def _until(true: Callable[[], object], process: Process | None = None, seconds: float = 600) -> float:
    """Seconds until something is true; a search that should run meanwhile must not have failed."""
    began = time.monotonic()
    while not true():
        assert process is None or process.poll() in (None, 0), process.stdout.read() if process.stdout else ""
        assert time.monotonic() - began < seconds
        time.sleep(0.1)
    return time.monotonic() - began


def _begin(cluster: Cluster, name: str, host: int | None = None) -> tuple[Process, float]:
    """A search of which a trial has reported, from a host if one is given; and when it was started."""
    began = time.monotonic()
    # Without ASHA a trial that has just reported goes on for sure.
    process = cluster.lab.start(1, cluster.command(name, "--asha", "off"))
    _until(lambda: on(cluster, name, host) if host else reports(cluster, name) >= 2, process)
    return process, began


def _end(cluster: Cluster, name: str, process: Process, began: float) -> str:
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said[-3000:]
    assert set(load(cluster.shared / name).trials["state"]) <= {"finished", "stopped"}
    return f"{time.monotonic() - began:.0f} s in all"


def _say(what: str, *said: str) -> None:
    print(f"{what}: {', '.join(said)}", flush=True)


def _host(cluster: Cluster, what: str, name: str, host: int, fail: Callable[[int], None]) -> None:
    """A host goes: until the cluster knows, until a trial that ran there reports again, the whole search."""
    process, began = _begin(cluster, name, host)
    trial, *_ = sorted(on(cluster, name, host))
    had = _reports_of(cluster, name, trial)
    fail(host)
    known = _until(lambda: cluster.alive() == 2)
    again = _until(lambda: _reports_of(cluster, name, trial) > had, process) + known
    whole = _end(cluster, name, process, began)
    _say(what, f"known after {known:.0f} s", f"its trial reports again after {again:.0f} s", whole)


def _memory(cluster: Cluster) -> None:
    process, began = _begin(cluster, "memory")
    host = host_of_memory(cluster)
    cluster.lab.kill(host)
    back = _until(lambda: any(cluster.lab.run(h, ACTOR, check=False).stdout for h in {1, 2, 3} - {host}), process)
    _say("memory's host dies", f"the actor lives again after {back:.0f} s", _end(cluster, "memory", process, began))
    cluster.boot(host)
    cluster.join(host)


def _resumed(cluster: Cluster, what: str, name: str, began: float, before: str = "") -> None:
    """`resume` of a search whose driver is gone."""
    had, resumed = reports(cluster, name), time.monotonic()
    again = f"cd {cluster.shared}; RAY_AUTH_MODE=token fsd-tune resume {name} --address auto"
    process = cluster.lab.start(1, again)
    news = _until(lambda: reports(cluster, name) > had, process)
    whole = _end(cluster, name, process, began)
    took = time.monotonic() - resumed
    _say(what, *([before] if before else []), f"resume reports after {news:.0f} s and ends after {took:.0f} s", whole)


def _driver(cluster: Cluster) -> None:
    process, began = _begin(cluster, "driver")
    cluster.lab.run(1, f"kill -9 $({DRIVER})")
    process.wait(timeout=60)
    _resumed(cluster, "driver dies", "driver", began)


def _head(cluster: Cluster) -> None:
    process, began = _begin(cluster, "head")
    cluster.lab.kill(1)
    process.wait(timeout=60)
    died = time.monotonic()
    cluster.boot(1)
    cluster.up()
    _resumed(cluster, "head dies", "head", began, f"`ray up` and all nodes after {time.monotonic() - died:.0f} s")


def _worker(cluster: Cluster) -> None:
    process, began = _begin(cluster, "process", 3)
    trial, *_ = sorted(on(cluster, "process", 3))
    had = _reports_of(cluster, "process", trial)
    cluster.lab.run(3, f"kill -9 $({TRIAL})")
    again = _until(lambda: _reports_of(cluster, "process", trial) > had, process)
    whole = _end(cluster, "process", process, began)
    _say("worker process dies", f"its trial reports again after {again:.0f} s", whole)


def _storage(cluster: Cluster) -> None:
    process, began = _begin(cluster, str(cluster.shared / "storage"))
    for host in (1, 2, 3):
        cluster.hide_storage(host)
    time.sleep(_STORAGE_SECONDS)
    had = reports(cluster, "storage")
    for host in (1, 2, 3):
        cluster.show_storage(host)
    again = _until(lambda: reports(cluster, "storage") > had, process)
    whole = _end(cluster, "storage", process, began)
    _say(f"storage is away for {_STORAGE_SECONDS} s", f"reports again {again:.0f} s after it is back", whole)


def _on_demand(cluster: Cluster) -> None:
    began = time.monotonic()
    # So long that the second worker comes before the first has done it all.
    longer = ("--asha", "off", "--trials", "4", "--epochs", "400")
    process = cluster.lab.start(1, cluster.command("demand", *longer))
    first = _until(lambda: cluster.alive() == 2, process)
    both = _until(lambda: cluster.alive() == 3, process) + first
    whole = _end(cluster, "demand", process, began)
    gone = cluster.wait_for_nodes(1)
    _say("from no worker", f"the first is there after {first:.0f} s", f"both after {both:.0f} s", whole,
         f"given back {gone:.0f} s after its end (once idle for 15 s)")  # fmt: skip


def main() -> None:
    """Print the table."""
    if reason := labs.missing():
        raise SystemExit(f"no hosts can be made here: {reason}")
    with tempfile.TemporaryDirectory() as shared, hosts(Path(shared)) as cluster:
        cluster.be(on_demand=False)
        process, began = _begin(cluster, "plain")
        _say("nothing fails", _end(cluster, "plain", process, began))
        _host(cluster, "host dies", "dead", 3, cluster.lab.kill)
        cluster.boot(3)
        cluster.join(3)
        _host(cluster, "host cut off", "cut", 2, cluster.lab.cut)
        cluster.lab.heal(2)
        cluster.join(2)
        for scenario in (_worker, _memory, _driver, _storage, _head):
            scenario(cluster)
        cluster.be(on_demand=True)
        _on_demand(cluster)


if __name__ == "__main__":
    main()
