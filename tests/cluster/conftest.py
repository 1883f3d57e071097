"""A cluster of three hosts, started by `ray up` from the project's own YAML for ssh hosts."""

import json
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests import ROOT
from tests.cluster import lab as labs
from tests.helpers import glue_folders, tiny
from tests.helpers.searching import SPACE

TRIALS = 5
# Counts the living nodes until there are so many, in one process, because each takes a second of CPU time to start.
_ALIVE = """
import sys, time
from ray._raylet import GcsClient
head, (wanted, seconds) = GcsClient(address=sys.argv[1] + ":6379"), map(float, sys.argv[2:])
deadline = time.monotonic() + seconds
while (alive := sum(node.state == 0 for node in head.get_all_node_info().values())) != wanted:
    if time.monotonic() > deadline:
        break
    time.sleep(0.1)
print(alive)
"""


class Cluster:
    """What the tests do with it. Host 0 is the laptop, 1 the head, 2 and 3 workers with a CPU each."""

    def __init__(self, lab: labs.Lab, shared: Path) -> None:
        self.lab, self.shared = lab, shared
        self._on_demand: bool | None = None

    def configure(self, on_demand: bool) -> None:
        """Write `cluster.yaml` for these hosts: the project's for ssh hosts, with these addresses and small nodes.

        Args:
            on_demand: the workers come by the autoscaler, as a cloud's machines do: the head alone lives.
        """
        config = yaml.safe_load((ROOT / "examples" / "cluster" / "hosts.yaml").read_text())
        hosts = {"head_ip": labs.address(1), "worker_ips": [labs.address(2), labs.address(3)]}
        config["provider"] |= hosts
        config["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh/lab_key"}
        if on_demand:
            del config["min_workers"]
            config |= {
                # A worker is up after a few seconds; one that has nothing to do for so long is given back.
                "idle_timeout_minutes": 0.25,
                "provider": {"type": "external", "module": "tests.cluster.on_demand.Hosts", **hosts},
                "available_node_types": {
                    "head": {"resources": {"CPU": 0}, "node_config": {}},
                    "worker": {"min_workers": 0, "max_workers": 2, "resources": {"CPU": 1}, "node_config": {}},
                },
                "head_node_type": "head",
                "cluster_synced_files": [],
            }
            config["provider"]["key"] = config["auth"]["ssh_private_key"]
        head, worker = config["head_start_ray_commands"], config["worker_start_ray_commands"]
        small = "--object-store-memory=100000000"
        # `join` alone brings a host back: if the autoscaler starts Ray there at the same time, one of them ends it.
        quick = "export AUTOSCALER_UPDATE_INTERVAL_S=1 AUTOSCALER_HEARTBEAT_TIMEOUT_S=86400"
        config["head_start_ray_commands"] = [
            line.replace("ray start --head", f"{quick}; ray start --head {small}") for line in head
        ]
        config["worker_start_ray_commands"] = [
            line.replace("ray start --address", f"ray start --num-cpus=1 {small} --address") for line in worker
        ]
        (self.shared / "cluster.yaml").write_text(yaml.safe_dump(config))

    def up(self, on_demand: bool = False) -> None:
        """`ray up`, until all nodes live that then should."""
        self._on_demand = on_demand
        self.configure(on_demand)
        self.laptop("ray get-auth-token --generate > /dev/null")
        # Of a list of hosts the new autoscaler starts one too few.
        old = "" if on_demand else "RAY_UP_enable_autoscaler_v2=0 "
        self.laptop(f"{old}ray up -y --no-config-cache {self.shared / 'cluster.yaml'}")
        self.wait_for_nodes(1 if on_demand else 3)

    def be(self, on_demand: bool) -> None:
        """Come up as this kind of cluster; from the other kind by switching all hosts off and on again."""
        if self._on_demand not in (None, on_demand):
            for host in self.lab.hosts:
                self.lab.kill(host)
                self.boot(host)
        if self._on_demand is not on_demand:
            self.up(on_demand)

    def laptop(self, command: str) -> str:
        """What a command on the laptop prints."""
        done = self.lab.run(0, f"cd {self.shared}; export RAY_AUTH_MODE=token; {command}", check=False, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def alive(self, wanted: int = -1, seconds: float = 0) -> int:
        """Nodes that the head takes for alive, after so many seconds at most if `wanted` are not."""
        words = shlex.join(["python", "-c", _ALIVE, labs.address(1), str(wanted), str(seconds)])
        said = self.lab.run(1, f"RAY_AUTH_MODE=token {words}", check=False, timeout=seconds + 60).stdout.split()
        return int(said[-1]) if said else 0

    def wait_for_nodes(self, count: int, seconds: float = 90) -> float:
        """Seconds until so many nodes are alive."""
        began = time.monotonic()
        found = self.alive(count, seconds)
        assert found == count, f"{found} nodes are alive, not {count}"
        return time.monotonic() - began

    def boot(self, host: int) -> None:
        """Switch a worker on again; its Ray is not started."""
        self.lab.boot(host)
        self.lab.wait_for_ssh(host)

    def hide_storage(self, host: int) -> None:
        """Put an empty folder that nobody can write over the shared one, as a host sees it."""
        self.lab.run(host, f"mount -t tmpfs -o ro tmpfs {self.shared}")

    def show_storage(self, host: int) -> None:
        """Take it away again."""
        self.lab.run(host, f"umount -l {self.shared}")

    def join(self, host: int) -> None:
        """Start Ray on a worker that has lost its own, as the cluster's YAML does."""
        token = self.lab.run(1, "cat ~/.ray/auth_token").stdout.strip()
        start = f"ray start --num-cpus=1 --object-store-memory=100000000 --address={labs.address(1)}:6379"
        ready = f"mkdir -p ~/.ray; printf %s {token} > ~/.ray/auth_token; ray stop --force"
        self.lab.run(host, f"{ready}; RAY_AUTH_MODE=token {start}")
        self.wait_for_nodes(3)

    def received(self, host: int) -> int:
        """Bytes that have come in over a host's network so far."""
        (line,) = [line for line in self.lab.run(host, "cat /proc/net/dev").stdout.splitlines() if "eth0:" in line]
        return int(line.split(":")[1].split()[0])

    def command(self, name: str, *more: str) -> str:
        """A search's command line for the head."""
        words = ["fsd-tune", "search", "space.yaml", "--task", "sst2", "--teacher", "teacher", "--data", "glue"]
        words += ["--output", name, "--address", "auto", *more]
        return f"cd {self.shared}; RAY_AUTH_MODE=token {shlex.join(words)}"

    def summary(self, name: str) -> dict[str, object]:
        """`summary.json` of a search."""
        found: dict[str, object] = json.loads((self.shared / name / "summary.json").read_text())
        return found


@contextmanager
def hosts(shared: Path) -> Iterator[Cluster]:
    """Three hosts with a task's data, a teacher and a space in their shared folder; no cluster is up on them."""
    glue_folders.write_glue(shared / "glue", train=40, dev=24, tasks=("sst2", "rte"))
    tiny.write_teacher(shared / "teacher", tiny.write_base(shared / "base"))
    space = SPACE.replace("epochs: 2", "epochs: 60").replace("trials: 6", f"trials: {TRIALS}")
    (shared / "space.yaml").write_text(space)
    home = Path(tempfile.mkdtemp(prefix="lab"))
    lab = labs.Lab(home / "hosts", 3, shared)
    try:
        yield Cluster(lab, shared)
    finally:
        lab.down()
        home.rmdir()


@pytest.fixture(scope="package")
def made(tmp_path_factory):
    if reason := labs.missing():
        pytest.skip(f"no hosts can be made here: {reason}")
    with hosts(tmp_path_factory.mktemp("shared")) as made:
        yield made


@pytest.fixture
def cluster(made):
    """The head and two workers are up."""
    made.be(on_demand=False)
    return made
