"""Hosts on one machine, made of Linux namespaces: reached by ssh as a cluster's machines are, cut off, switched off.

Each host has a network, process ids, a /tmp, a /run and a /dev/shm of its own, and sees this machine's other folders
through an overlay that keeps what it writes to itself. Host 0 is the laptop: it carries the bridge, and `ray up` runs
there. Folders given as shared are the same in all of them. Needs root, iproute2, openssh-server and rsync.

`python -m tests.cluster.lab host.json` is what runs inside a host's new namespaces until sshd replaces it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests import ROOT

NET = "10.91.7"
_CHECKOUT = ROOT
_SSHD = "/usr/sbin/sshd"
_PASSED_ON = ("FSD_TUNE_LATENCY", "RAY_worker_niceness")
_TOOLS = ("ip", "unshare", "nsenter", "ssh-keygen", "rsync", _SSHD)


def missing() -> str:
    """Why no lab can be had here; empty where it can."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"needs {', '.join(lacking)}"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "this kernel refuses namespaces"


def address(host: int) -> str:
    """A host's IP address."""
    return f"{NET}.{host + 10}"


Done = subprocess.CompletedProcess[str]


class Lab:
    """Hosts 0 to `hosts`, up until `down`."""

    def __init__(self, folder: Path, hosts: int, shared: Path) -> None:
        """Start them all.

        Args:
            folder: for their state; a new one.
            hosts: how many beside the laptop.
            shared: a folder that all hosts see under the same name.
        """
        self.folder, self.shared, self._prefix = folder, shared, f"fl{os.getpid() % 100000}h"
        self._process: dict[int, subprocess.Popen[bytes]] = {}
        self.hosts = range(hosts + 1)
        # An overlay's upper folder must not lie below its lower one.
        folder.mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", "size=8g", "lab", folder)
        for key in ("id", "hostkey"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
        try:
            for host in self.hosts:
                self._network(host)
                self.boot(host)
            for host in self.hosts:
                self.wait_for_ssh(host)
        except BaseException:
            self.down()
            raise

    def _network(self, host: int) -> None:
        space, wire = f"{self._prefix}{host}", f"w{host}"
        hub = f"{self._prefix}0"
        _run("ip", "netns", "add", space)
        _run("ip", "-n", space, "link", "set", "lo", "up")
        if host == 0:
            _run("ip", "-n", hub, "link", "add", "br0", "type", "bridge")
            _run("ip", "-n", hub, "addr", "add", f"{address(0)}/24", "dev", "br0")
            _run("ip", "-n", hub, "link", "set", "br0", "up")
        else:
            _run("ip", "-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", wire, "netns", hub)
            _run("ip", "-n", hub, "link", "set", wire, "master", "br0")
            _run("ip", "-n", hub, "link", "set", wire, "up")
            _run("ip", "-n", space, "addr", "add", f"{address(host)}/24", "dev", "eth0")
            _run("ip", "-n", space, "link", "set", "eth0", "up")
        # Leads nowhere; without one Ray cannot tell a host's own address and asks for names instead.
        _run("ip", "-n", space, "route", "add", "default", "via", f"{NET}.254" if host == 0 else address(0))

    def boot(self, host: int) -> None:
        """Switch a host on; its disk is as it was."""
        place = self.folder / f"host{host}"
        place.mkdir(exist_ok=True)
        facts = {
            "name": f"lab{host}",
            "address": address(host),
            "disk": str(place),
            "keys": str(self.folder),
            "shared": [str(self.shared), *_hidden()],
            "bin": str(Path(sys.executable).parent),
            "packages": [str(_CHECKOUT), str(Path(sys.prefix) / "cluster")],
            "variables": [f"{name}={os.environ[name]}" for name in _PASSED_ON if name in os.environ],
        }
        (place / "host.json").write_text(json.dumps(facts))
        words = ["ip", "netns", "exec", f"{self._prefix}{host}", "unshare"]
        words += ["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", sys.executable, "-m"]
        words += ["tests.cluster.lab", str(place / "host.json")]
        with (place / "log").open("ab") as log:
            self._process[host] = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

    def wait_for_ssh(self, host: int, seconds: float = 30) -> None:
        """Until a host that boots can be reached."""
        deadline = time.monotonic() + seconds
        probe = f"exec 3<>/dev/tcp/{address(host)}/22"
        while self.run(0, probe, check=False).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError((self.folder / f"host{host}" / "log").read_text())
            time.sleep(0.1)

    def run(
        self, host: int, command: str, check: bool = True, timeout: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        """Run a shell command on a host, as a login does."""
        return subprocess.run(
            [*self._entered(host), command], capture_output=True, text=True, check=check, timeout=timeout
        )  # fmt: skip

    def start(self, host: int, command: str) -> "subprocess.Popen[str]":
        """Start a shell command on a host and go on."""
        return subprocess.Popen(
            [*self._entered(host), command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )  # fmt: skip

    def _entered(self, host: int) -> list[str]:
        unshare = self._process[host].pid
        # `ip netns exec` becomes unshare, whose child is the host's first process.
        children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        if not children:
            return ["false"]
        words = ["nsenter", "-t", children[0], "-m", "-p", "-n", "-u", "-i", "-r", "-w", "env", "-i"]
        return [*words, "HOME=/root", "USER=root", "TERM=dumb", "bash", "--login", "-c"]

    def kill(self, host: int) -> None:
        """Switch a host off: all its processes die at once."""
        self._process[host].send_signal(signal.SIGKILL)
        self._process[host].wait()

    def cut(self, host: int) -> None:
        """Take a host off the network without a word."""
        _run("ip", "-n", f"{self._prefix}0", "link", "set", f"w{host}", "down")

    def heal(self, host: int) -> None:
        """Put it back."""
        _run("ip", "-n", f"{self._prefix}0", "link", "set", f"w{host}", "up")

    def down(self) -> None:
        """End all hosts, and leave nothing."""
        for process in self._process.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", f"{self._prefix}{host}"], capture_output=True, check=False)
        for _ in range(20):
            if subprocess.run(["umount", self.folder], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.25)
        else:
            _run("umount", "-l", self.folder)
        self.folder.rmdir()


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def _hidden() -> list[str]:
    """What a host needs of this machine and would not see, for it lies where each host has a folder of its own."""
    needed = (_CHECKOUT, Path(sys.prefix), Path(sys.base_prefix))
    return [str(path) for path in needed if path.parts[1] in ("tmp", "run", "dev")]


def _become(facts: dict[str, Any]) -> None:
    """Inside the namespaces: a root folder of this host's own, then sshd in it as the first process."""
    disk, keys = Path(facts["disk"]), Path(facts["keys"])
    upper, work, root = disk / "upper", disk / "work", disk / "root"
    first = not upper.exists()
    for path in (upper, work, root):
        path.mkdir(exist_ok=True)
    _run("mount", "--make-rprivate", "/")
    _run("hostname", facts["name"])
    _run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", root)
    for own, mode in (("tmp", "mode=1777"), ("run", "mode=755")):
        _run("mount", "-t", "tmpfs", "-o", mode, "tmpfs", root / own)
    _run("mount", "-t", "proc", "proc", root / "proc")
    _run("mount", "--rbind", "/dev", root / "dev")
    _run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", root / "dev" / "shm")
    _run("mount", "--rbind", "/sys", root / "sys")
    for shared in facts["shared"]:
        there = root / shared.lstrip("/")
        there.mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", shared, there)
    home = root / "root"
    if first:
        shutil.rmtree(home / ".ray", ignore_errors=True)
        shutil.rmtree(home / ".ssh", ignore_errors=True)
    (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    for source, target in ((keys / "id.pub", home / ".ssh/authorized_keys"), (keys / "id", home / ".ssh/lab_key")):
        shutil.copy(source, target)
        target.chmod(0o600)
    packages = ":".join(facts["packages"])
    # docs/how-to/cluster.md, "Storage", has the reason for the second one.
    settings = " ".join(["RAY_USAGE_STATS_ENABLED=0", "AWS_EC2_METADATA_DISABLED=true", *facts["variables"]])
    profile = f"export PATH={facts['bin']}:$PATH PYTHONPATH={packages} {settings}\n"
    (root / "etc/profile.d/lab.sh").write_text(profile)
    (home / ".bashrc").write_text(profile)
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{facts['address']} {facts['name']}\n")
    (root / "run/sshd").mkdir(mode=0o755, exist_ok=True)
    shutil.copy(keys / "hostkey", root / "run/hostkey")
    (root / "run/hostkey").chmod(0o600)
    os.chroot(root)
    os.chdir("/")
    options = ["HostKey=/run/hostkey", "UsePAM=no", "PasswordAuthentication=no", "MaxStartups=100", "MaxSessions=100"]
    words = [_SSHD, "-D", "-e", "-f", "/dev/null", *(part for option in options for part in ("-o", option))]
    os.execv(_SSHD, words)


if __name__ == "__main__":
    _become(json.loads(Path(sys.argv[1]).read_text()))
