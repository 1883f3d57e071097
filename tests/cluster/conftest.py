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

from tests import glue_folders, tiny
from tests.cluster import lab as labs
from tests.searching import SPACE

ROOT = Path(__file__).parents[2]
TRIALS = 8
_ALIVE = (
    "from ray._raylet import GcsClient; "
    "print(sum(node.state == 0 for node in GcsClient(address='{}:6379').get_all_node_info().values()))"
)


class Cluster:
    """What the tests do with it. Host 0 is the laptop, 1 the head, 2 and 3 workers with a CPU each."""

    def __init__(self, lab: labs.Lab, shared: Path) -> None:
        self.lab, self.shared = lab, shared

    def up(self) -> None:
        """`ray up`, until all three nodes live."""
        config = yaml.safe_load((ROOT / "docs" / "cluster" / "hosts.yaml").read_text())
        config["provider"] |= {"head_ip": labs.address(1), "worker_ips": [labs.address(2), labs.address(3)]}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh/lab_key"}
        head, worker = config["head_start_ray_commands"], config["worker_start_ray_commands"]
        small = "--object-store-memory=100000000"
        config["head_start_ray_commands"] = [
            line.replace("ray start --head", f"export AUTOSCALER_UPDATE_INTERVAL_S=1; ray start --head {small}")
            for line in head
        ]
        config["worker_start_ray_commands"] = [
            line.replace("ray start --address", f"ray start --num-cpus=1 {small} --address") for line in worker
        ]
        (self.shared / "cluster.yaml").write_text(yaml.safe_dump(config))
        self.laptop("ray get-auth-token --generate > /dev/null")
        self.laptop(f"RAY_UP_enable_autoscaler_v2=0 ray up -y --no-config-cache {self.shared / 'cluster.yaml'}")
        self.wait_for_nodes(3)

    def laptop(self, command: str) -> str:
        """What a command on the laptop prints."""
        done = self.lab.run(0, f"cd {self.shared}; export RAY_AUTH_MODE=token; {command}", check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def alive(self) -> int:
        """Nodes that the head takes for alive."""
        asked = f"RAY_AUTH_MODE=token timeout 30 python -c {shlex.quote(_ALIVE.format(labs.address(1)))}"
        said = self.lab.run(1, asked, check=False).stdout.split()
        return int(said[-1]) if said else 0

    def wait_for_nodes(self, count: int, seconds: float = 90) -> float:
        """Seconds until so many nodes are alive."""
        began = time.monotonic()
        while (found := self.alive()) != count:
            assert time.monotonic() - began < seconds, f"{found} nodes are alive, not {count}"
            time.sleep(0.5)
        return time.monotonic() - began

    def boot(self, host: int) -> None:
        """Switch a worker on again; its Ray is not started."""
        self.lab.boot(host)
        self.lab.wait_for_ssh(host)

    def join(self, host: int) -> None:
        """Start Ray on a worker that has lost its own, as the cluster's YAML does."""
        token = self.lab.run(1, "cat ~/.ray/auth_token").stdout.strip()
        self.lab.run(host, f"mkdir -p ~/.ray; printf %s {token} > ~/.ray/auth_token; ray stop --force", check=False)
        small = "--num-cpus=1 --object-store-memory=100000000"
        self.lab.run(host, f"RAY_AUTH_MODE=token ray start {small} --address={labs.address(1)}:6379")
        self.wait_for_nodes(3)

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
def running(shared: Path) -> Iterator[Cluster]:
    """A cluster with a task's data, a teacher and a space in its shared folder."""
    glue_folders.write_glue(shared / "glue", train=40, dev=24, tasks=("sst2",))
    tiny.write_teacher(shared / "teacher", tiny.write_base(shared / "base"))
    space = SPACE.replace("epochs: 2", "epochs: 60").replace("trials: 6", f"trials: {TRIALS}")
    (shared / "space.yaml").write_text(space)
    home = Path(tempfile.mkdtemp(prefix="lab"))
    lab = labs.Lab(home / "hosts", 3, shared)
    try:
        made = Cluster(lab, shared)
        made.up()
        yield made
    finally:
        lab.down()
        home.rmdir()


@pytest.fixture(scope="package")
def cluster(tmp_path_factory):
    if reason := labs.missing():
        pytest.skip(f"no hosts can be made here: {reason}")
    with running(tmp_path_factory.mktemp("shared")) as made:
        yield made
