"""Searches on a cluster that `ray up` has started: sent from here, run there, whether this machine stays on or not.

Everything goes through `ray exec` and `ray rsync-up` of the cluster's YAML, so that its ssh settings, user and
container hold, and nothing on the cluster has to be open to the network.
"""

import contextlib
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fsd_tune.cluster import cluster_yaml, job_inputs
from fsd_tune.errors import FsdTuneError, InputError, nearest

VERBS = ("search", "resume", "confirm", "memory", "distill", "teacher", "doctor", "report")
# What a laptop wants of a finished search; checkpoints, the memory and Ray's own files stay.
_FETCHED = (
    "report.html",
    "leaderboard.csv",
    "summary.json",
    "settings.yaml",
    "command.txt",
    "versions.json",
    "study.db",
)
_FOLDERS = ("best", "confirm")
_ADDRESS = "http://127.0.0.1:8265"
_REMARK = re.compile(r"\b(V*INFO|V*WARN)\b")
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Cluster:
    """A cluster by its YAML.

    Attributes:
        file: the YAML.
        shared: the folder that all its nodes share.
    """

    file: Path
    shared: str = "/shared"

    def check(self) -> None:
        """Refuse a YAML that `ray up` would trip over.

        Raises:
            InputError: with a line for each problem.
        """
        problems = cluster_yaml.problems(self.file)
        if not problems:
            problems = [f"{self.file}: {problem}" for problem in cluster_yaml.library(cluster_yaml.read(self.file))]
        if problems:
            raise InputError(problems)

    def run(self, command: str, follow: bool = False) -> str:
        """What a shell command on the head prints; with `follow` it goes to standard output as it comes.

        Raises:
            FsdTuneError: the head cannot be reached, or the command fails.
        """
        full = f"export RAY_AUTH_MODE={self._auth_mode()} RAY_USAGE_STATS_ENABLED=0; {command}"
        words = ["ray", "exec", str(self.file), full]
        done = self._ray(words, None if follow else subprocess.PIPE)
        if done.returncode:
            why = _last(done.stderr, done.stdout or "") or "`ray exec` failed"
            raise FsdTuneError(f"{self._head()}: {why}", hint=f"Is it up? ray up {self.file}")
        return done.stdout or ""

    def send(self, here: Path, there: str) -> None:
        """Copy a file or folder to the head, into the shared folder."""
        self.run(f"mkdir -p {shlex.quote(os.path.dirname(there))}")  # noqa: PTH120 (a path of the head's)
        source = f"{here}/" if here.is_dir() else str(here)
        target = f"{there}/" if here.is_dir() else there
        done = self._ray(["ray", "rsync-up", str(self.file), source, target], subprocess.PIPE)
        if done.returncode:
            raise FsdTuneError(f"{here}: could not be copied to the cluster: {_last(done.stderr, done.stdout or '')}")

    def fetch(self, there: str, here: Path) -> None:
        """Copy a file or a folder from the head."""
        here.parent.mkdir(parents=True, exist_ok=True)
        done = self._ray(["ray", "rsync-down", str(self.file), there, str(here)], subprocess.PIPE)
        if done.returncode:
            raise FsdTuneError(f"{there}: could not be fetched: {_last(done.stderr, done.stdout or '')}")

    def _head(self) -> str:
        """The cluster in words: its file, and its head's address where the file has it."""
        provider = cluster_yaml.read(self.file).get("provider")
        address = provider.get("head_ip") if isinstance(provider, dict) else None
        return f"{self.file} (head {address})" if address else str(self.file)

    def _auth_mode(self) -> str:
        text = self.file.read_text(encoding="utf-8")
        return "token" if "RAY_AUTH_MODE=token" in text else "disabled"

    def _ray(self, words: list[str], output: int | None) -> "subprocess.CompletedProcess[str]":
        program = str(Path(sys.executable).parent / words[0])
        environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
        return subprocess.run(
            [program, *words[1:]], stdout=output, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )


def named(file: Path, shared: str) -> Cluster:
    """A cluster by its YAML, which is not looked at.

    Raises:
        InputError: `shared` is no absolute path.
    """
    if not shared.startswith("/") or not shared.rstrip("/"):
        raise InputError(f"--shared: found '{shared}', but must be an absolute path.")
    return Cluster(file, shared.rstrip("/"))


def checked(file: Path, shared: str) -> Cluster:
    """A cluster whose YAML is sound.

    Raises:
        InputError: it is not.
    """
    cluster = named(file, shared)
    cluster.check()
    return cluster


def _last(*texts: str) -> str:
    """The last line that is an error's, not one of Ray's remarks on what it does; of the first text that has one."""
    for text in texts:
        lines = [line.strip() for line in text.splitlines() if line.strip("^~ \t") and not _REMARK.search(line)]
        named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|refused|denied)\b", line)]
        if lines:
            return (named or lines)[-1][:500]
    return ""


def submit(cluster: Cluster, words: Sequence[str]) -> str:
    """Send a verb's inputs to the cluster and start it there as a Ray job.

    A word that names a file or folder here is copied into the shared folder and means its copy there; `--output` lies
    in the shared folder, too.

    Args:
        cluster: which.
        words: the verb and its arguments, as they would be typed here.

    Returns:
        The job's id.

    Raises:
        InputError: the verb is none that a cluster is for, or the cluster's YAML is wrong.
        FsdTuneError: the cluster cannot be reached.
    """
    if not words or words[0] not in VERBS:
        found = words[0] if words else "nothing"
        order = " Its own options come before the cluster's file." if found.startswith("-") else ""
        raise InputError(f"submit: found {found}, but must be one of {', '.join(VERBS)}.{nearest(found, VERBS)}{order}")
    cluster.check()
    remote, sent = job_inputs.translated(cluster.shared, words)
    for there, path in sent.items():
        cluster.send(path, there)
    job = f"{words[0]}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    command = shlex.join(["fsd-tune", *remote])
    note = json.dumps({"job": job, "command": command, "submitted": time.time()})
    cluster.run(
        f"cd {shlex.quote(cluster.shared)} && ray job submit --address {_ADDRESS} --submission-id {job} --no-wait -- "
        f"{shlex.join(['bash', '-c', f'cd {shlex.quote(cluster.shared)} && {command}'])} && "
        f"printf '%s\\n' {shlex.quote(note)} >> {shlex.quote(cluster.shared)}/jobs.jsonl"
    )
    return job


def jobs(cluster: Cluster) -> list[dict[str, str]]:
    """The jobs that were submitted to a cluster, oldest first: `job`, `command` and `state`."""
    told = cluster.run(
        f"cat {shlex.quote(cluster.shared)}/jobs.jsonl 2>/dev/null; echo ==; "
        f"python -c {shlex.quote(_STATES.format(address=_ADDRESS))}"
    )
    noted, _, states = told.partition("==")
    known = dict(json.loads(next((line for line in states.splitlines() if line.startswith("[")), "[]")))
    found = []
    for line in noted.splitlines():
        if line.startswith("{"):
            one = json.loads(line)
            found.append({"job": one["job"], "state": known.get(one["job"], "GONE"), "command": one["command"]})
    return found


_STATES = (
    "import json; from ray.job_submission import JobSubmissionClient as C; "
    "print(json.dumps([[job.submission_id, str(job.status.value)] for job in C('{address}').list_jobs()]))"
)


def newest(cluster: Cluster, job: str | None) -> str:
    """The job of that id, or the one that was submitted last.

    Raises:
        InputError: there is none.
    """
    known = [one["job"] for one in jobs(cluster)]
    if job is not None and job not in known:
        raise InputError(f"{job}: no such job.{nearest(job, known)}")
    if not known:
        raise InputError(f"{cluster.file}: no job was submitted to this cluster.")
    return job or known[-1]


def follow(cluster: Cluster, job: str) -> str:
    """Print a job's log as it grows, to its end; returns its state.

    Ending this ends nothing there.
    """
    cluster.run(f"ray job logs --address {_ADDRESS} --follow {job}", follow=True)
    deadline = time.monotonic() + 30
    while True:
        state = next((one["state"] for one in jobs(cluster) if one["job"] == job), "GONE")
        if state in _ENDED or time.monotonic() > deadline:
            return state
        time.sleep(1)


def stop(cluster: Cluster, job: str) -> None:
    """End a job as Ctrl-C would: its search can be resumed."""
    cluster.run(f"ray job stop --address {_ADDRESS} {job}")


def fetch_uri(uri: str, here: Path) -> list[str]:
    """Bring a search's report, figures and student home from where it stored them; no cluster is asked.

    Returns:
        The names that were there.

    Raises:
        InputError: there is no such search, or the storage does not answer.
    """
    from fsd_tune.storage.remote import RemoteFolder

    there = RemoteFolder(uri)
    there.require("URI")
    listed = {name.split("/")[0] for name in there.sizes()}
    wanted = _wanted(listed, uri, "there")
    _refuse_other(here, there.read("summary.json").decode())
    for each in wanted:
        if each in _FOLDERS:
            there.get_folder(each, here / each)
        else:
            there.get(each, here / each)
    return wanted


def _wanted(listed: Collection[str], name: str, where: str) -> list[str]:
    """What is fetched of a search's folder.

    Raises:
        InputError: it holds no search, or one that is too young.
    """
    wanted = [each for each in (*_FETCHED, *_FOLDERS) if each in listed]
    if not wanted:
        raise InputError(f"{name}: no search lies {where}.")
    if "summary.json" not in listed:
        raise InputError(f"{name}: its search has not begun its trials; fetch it later.")
    return wanted


def _refuse_other(here: Path, told: str) -> None:
    """Refuse a folder that holds anything but the search whose summary is `told`: its folders are replaced."""
    if here.exists() and not here.is_dir():
        raise InputError(f"{here}: is a file; give a new folder with --output.")
    if not here.is_dir() or not any(here.iterdir()):
        return
    held = None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        held = json.loads((here / "summary.json").read_text(encoding="utf-8"))["group"]
    if held is None or f'"{held}"' not in told:
        what = "other files" if held is None else "another search"
        raise InputError(f"{here}: holds {what}; give a new folder with --output.")


def fetch(cluster: Cluster, name: str, here: Path) -> list[str]:
    """Bring a search's report, figures and student home.

    Returns:
        The names that were there.

    Raises:
        InputError: there is no such search.
    """
    there = job_inputs.there(cluster.shared, name, "fetch")
    listed = cluster.run(f"ls -1 {shlex.quote(there)} 2>/dev/null || true").split()
    wanted = _wanted(listed, name, f"at {there} on the cluster")
    _refuse_other(here, cluster.run(f"cat {shlex.quote(there)}/summary.json"))
    here.mkdir(parents=True, exist_ok=True)
    for each in wanted:
        # rsync: the folder's contents into the folder of that name here.
        cluster.fetch(f"{there}/{each}/" if each in _FOLDERS else f"{there}/{each}", here / each)
    return wanted
