"""Another host attacks the local Ray of a verb, as anybody on its network could."""

import json
import shlex
import time

import pytest

from tests.cluster import lab as labs

pytestmark = pytest.mark.slow

# A local Ray as a verb starts it, until the file `end` is there.
_VICTIM = """
import json, os, sys, time
from pathlib import Path
import psutil
from fsd_tune.cluster import connection
with connection.connect(None, Path("/tmp")):
    import ray
    me = psutil.Process()
    ports = [
        (kept.laddr.ip, kept.laddr.port)
        for process in (me, *me.children(recursive=True))
        for kept in process.net_connections("tcp")
        if kept.status == psutil.CONN_LISTEN
    ]
    gcs = int(ray.get_runtime_context().gcs_address.rpartition(":")[2])
    found = {"ports": ports, "gcs": gcs, "token": os.environ["RAY_AUTH_TOKEN"]}
    Path(sys.argv[1], "new").write_text(json.dumps(found))
    Path(sys.argv[1], "new").rename(Path(sys.argv[1], "victim.json"))
    while not Path(sys.argv[1], "end").exists():
        time.sleep(0.1)
    Path(sys.argv[1], "nodes").write_text(str(len(ray.nodes())))
"""
_KNOCK = """
import json, socket, sys
for port in json.loads(sys.argv[2]):
    try:
        socket.create_connection((sys.argv[1], port), timeout=5).close()
    except ConnectionRefusedError:
        continue
    print(port)
"""


def test_no_other_host_can_use_it(made):
    there = made.shared / "private"
    there.mkdir()
    process = made.lab.start(2, f"python -c {shlex.quote(_VICTIM)} {there}")
    try:
        deadline = time.monotonic() + 240
        while not (there / "victim.json").exists():
            assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
            time.sleep(0.2)
        victim = json.loads((there / "victim.json").read_text())
        ports = json.dumps([port for _, port in victim["ports"]])
        knock = f"python -c {shlex.quote(_KNOCK)} {{}} {shlex.quote(ports)}"
        assert len(made.lab.run(2, knock.format("127.0.0.1")).stdout.split()) == len(victim["ports"]) > 4
        assert made.lab.run(3, knock.format(labs.address(2))).stdout == "", "what another host reaches"
        # Even with the token, which it cannot know.
        token = f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN={victim['token']}"
        start = f"timeout 60 ray start --num-cpus=1 --address={labs.address(2)}:{victim['gcs']} --temp-dir=/tmp"
        attacks = [
            made.lab.start(3, f"{known} RAY_gcs_rpc_server_reconnect_timeout_s=2 {start}/{name}")
            for name, known in {"open": "RAY_AUTH_MODE=disabled", "token": token}.items()
        ]
        assert all(attack.wait(timeout=300) != 0 for attack in attacks)
        (there / "end").touch()
        assert process.wait(timeout=300) == 0
        assert (there / "nodes").read_text() == "1"
    finally:
        (there / "end").touch()
        process.communicate(timeout=300)
