"""Submit searches to a cluster that `ray up` has started, follow them and stop them.

The searches continue when this machine is switched off. Everything goes through `ray exec`, `ray rsync-up` and
`ray rsync-down` with the cluster's YAML, so its ssh settings, user and container apply, and no port has to be open.
"""

import base64
import json
import os
import posixpath
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fsd_tune.cluster import cluster_yaml, job_inputs
from fsd_tune.errors import FsdTuneError, InputError, nearest

VERBS = ("search", "resume", "confirm", "memory", "distill", "teacher", "doctor", "report")
_DASHBOARD = "http://127.0.0.1:8265"
# Matches Ray's log lines about its own work.
_RAY_LOG = re.compile(r"\b(V*INFO|V*WARN)\b")
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_STATES_SCRIPT = (
    "import json; from ray.job_submission import JobSubmissionClient as C; "
    f"print(json.dumps([[job.submission_id, str(job.status.value)] for job in C('{_DASHBOARD}').list_jobs()]))"
)
_FOLLOW_SECONDS = 30.0
# A path that no shell changes.
_PLAIN_PATH = re.compile(r"/[\w./+@%=-]*", re.ASCII)


@dataclass(frozen=True)
class Cluster:
    """A cluster that `ray up` has started.

    Attributes:
        file: the cluster's YAML.
        shared: the absolute path of the folder that all nodes share.
    """

    file: Path
    shared: str = "/shared"

    def check(self) -> None:
        """Check that `ray up` can use the YAML.

        Raises:
            InputError: a line for each problem.
        """
        problems = cluster_yaml.problems(self.file)
        if not problems:
            problems = [
                f"{self.file}: {problem}" for problem in cluster_yaml.library(cluster_yaml.read_cluster_yaml(self.file))
            ]
        if problems:
            raise InputError(problems)

    def run(self, command: str, follow: bool = False) -> str:
        """Run a shell command on the head.

        Args:
            command: the command line.
            follow: print the output while the command runs instead of returning it.

        Returns:
            The command's standard output; empty with `follow`.

        Raises:
            FsdTuneError: the head cannot be reached, or the command fails.
        """
        full_command = f"export RAY_AUTH_MODE={self._auth_mode()} RAY_USAGE_STATS_ENABLED=0; {command}"
        completed = self._ray(["exec", str(self.file), full_command], None if follow else subprocess.PIPE)
        if completed.returncode:
            reason = _last_error_line(completed.stderr, completed.stdout or "") or "`ray exec` failed"
            raise FsdTuneError(f"{self._head()}: {reason}", hint=f"Is it up? ray up {self.file}")
        return completed.stdout or ""

    def send(self, local: Path, remote: str) -> None:
        """Copy a file or folder to the head.

        Args:
            local: the path on this machine.
            remote: the path on the head, in the shared folder. Its `_plain_parent` must exist.

        Raises:
            FsdTuneError: the copy failed.
        """
        folder = _plain_parent(remote)
        if folder != posixpath.dirname(remote) or not _PLAIN_PATH.fullmatch(remote):
            # Send a folder that holds it, because a shell on the head would expand the name.
            with tempfile.TemporaryDirectory() as temporary:
                copy = Path(temporary, posixpath.relpath(remote, folder))
                copy.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if local.is_dir() else shutil.copy)(local, copy)
                self.send(Path(temporary), folder)
            return
        # A relative source with a colon would be taken for a host.
        source = f"{local.absolute()}/" if local.is_dir() else str(local.absolute())
        target = f"{remote}/" if local.is_dir() else remote
        completed = self._ray(["rsync-up", str(self.file), source, target], subprocess.PIPE)
        if completed.returncode:
            reason = _last_error_line(completed.stderr, completed.stdout or "")
            raise FsdTuneError(f"{local}: could not be copied to the cluster: {reason}")

    def fetch(self, remote: str, local: Path) -> None:
        """Copy a file or folder from the head.

        Args:
            remote: the path on the head.
            local: the path on this machine.

        Raises:
            FsdTuneError: the copy failed.
        """
        local.parent.mkdir(parents=True, exist_ok=True)
        completed = self._ray(["rsync-down", str(self.file), remote, str(local)], subprocess.PIPE)
        if completed.returncode:
            reason = _last_error_line(completed.stderr, completed.stdout or "")
            raise FsdTuneError(f"{remote}: could not be fetched: {reason}")

    def _head(self) -> str:
        """Return the cluster's file for messages, with the address of its head if the file has one."""
        provider = cluster_yaml.read_cluster_yaml(self.file).get("provider")
        address = provider.get("head_ip") if isinstance(provider, dict) else None
        return f"{self.file} (head {address})" if address else str(self.file)

    def _auth_mode(self) -> str:
        text = self.file.read_text(encoding="utf-8")
        return "token" if "RAY_AUTH_MODE=token" in text else "disabled"

    def _ray(self, arguments: list[str], output: int | None) -> "subprocess.CompletedProcess[str]":
        program = str(Path(sys.executable).parent / "ray")
        environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
        return subprocess.run(
            [program, *arguments], stdout=output, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )


def _plain_parent(path: str) -> str:
    """Return the nearest folder above a path on the head whose name no shell changes."""
    folder = posixpath.dirname(path)
    while not _PLAIN_PATH.fullmatch(folder):
        folder = posixpath.dirname(folder)
    return folder


def named(file: Path, shared: str) -> Cluster:
    """Return a cluster without reading its YAML.

    Args:
        file: the cluster's YAML.
        shared: the folder that all nodes share.

    Raises:
        InputError: `shared` is not an absolute path that every shell takes as it is.
    """
    # The path is part of commands that several shells read.
    if not _PLAIN_PATH.fullmatch(shared) or not shared.strip("/"):
        raise InputError(f"--shared: found '{shared}', but must be an absolute path of letters, digits and ._-+@%=.")
    return Cluster(file, shared.rstrip("/"))


def checked(file: Path, shared: str) -> Cluster:
    """Return a cluster whose YAML is valid.

    Args:
        file: the cluster's YAML.
        shared: the folder that all nodes share.

    Raises:
        InputError: the YAML is invalid, or `shared` is not an absolute path.
    """
    cluster = named(file, shared)
    cluster.check()
    return cluster


def _last_error_line(*texts: str) -> str:
    """Return the last line of an error, without Ray's log lines, from the first text that has one."""
    for text in texts:
        lines = [line.strip() for line in text.splitlines() if line.strip("^~ \t") and not _RAY_LOG.search(line)]
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|refused|denied)\b", line)]
        if lines:
            return (errors or lines)[-1][:500]
    return ""


def submit(cluster: Cluster, words: Sequence[str]) -> str:
    """Copy a verb's inputs to the cluster and start the verb there as a Ray job.

    A file or folder of this machine that an argument names is copied into the shared folder, and the argument is
    replaced by the path of the copy. A relative `--output` is in the shared folder, too.

    Args:
        cluster: the cluster.
        words: the verb and its arguments, as the user would type them on this machine.

    Returns:
        The job's id.

    Raises:
        InputError: the verb cannot run on a cluster, or an argument or the cluster's YAML is wrong.
        FsdTuneError: the cluster cannot be reached.
    """
    if not words or words[0] not in VERBS:
        name = words[0] if words else "nothing"
        order = " Its own options come before the cluster's file." if name.startswith("-") else ""
        raise InputError(f"submit: found {name}, but must be one of {', '.join(VERBS)}.{nearest(name, VERBS)}{order}")
    cluster.check()
    command_words, files = job_inputs.translate(cluster.shared, words)
    if files:
        # One command for all, because each takes seconds.
        cluster.run(f"mkdir -p {shlex.join(sorted({_plain_parent(target) for target in files}))}")
    for target, path in files.items():
        cluster.send(path, target)
    job = f"{words[0]}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    command = shlex.join(["fsd-tune", *command_words])
    note = json.dumps({"job": job, "command": command, "submitted": time.time()})
    script = f"{cluster.shared}/inputs/{job}.sh"
    cluster.run(
        f"cd {cluster.shared} && mkdir -p inputs && "
        f"{_decoded(f'cd {cluster.shared} && exec {command}')} > {script} && "
        f"ray job submit --address {_DASHBOARD} --submission-id {job} --no-wait -- bash {script} && "
        f"{_decoded(note)} >> jobs.jsonl"
    )
    return job


def _decoded(line: str) -> str:
    """Return a command that prints a line, which is encoded because each shell on the way would expand its words."""
    encoded = base64.b64encode(f"{line}\n".encode()).decode()
    return f"echo {encoded} | base64 -d"


def jobs(cluster: Cluster) -> list[dict[str, str]]:
    """Return the jobs that were submitted to a cluster, oldest first.

    Args:
        cluster: the cluster, which must be up.

    Returns:
        `job`, `command` and `state` of each. `state` is Ray's state of the job, or `GONE` if Ray no longer knows it.
    """
    output = cluster.run(
        f"cat {shlex.quote(cluster.shared)}/jobs.jsonl 2>/dev/null; echo ==; python -c {shlex.quote(_STATES_SCRIPT)}"
    )
    notes, _, states = output.partition("==")
    state_of = dict(json.loads(next((line for line in states.splitlines() if line.startswith("[")), "[]")))
    submitted = [json.loads(line) for line in notes.splitlines() if line.startswith("{")]
    return [
        {"job": note["job"], "state": state_of.get(note["job"], "GONE"), "command": note["command"]}
        for note in submitted
    ]


def newest(cluster: Cluster, job: str | None) -> str:
    """Return the id of a job, or of the job that was submitted last.

    Args:
        cluster: the cluster.
        job: the id; None for the last one.

    Raises:
        InputError: there is no such job.
    """
    job_ids = [entry["job"] for entry in jobs(cluster)]
    if job is not None and job not in job_ids:
        raise InputError(f"{job}: no such job.{nearest(job, job_ids)}")
    if not job_ids:
        raise InputError(f"{cluster.file}: no job was submitted to this cluster.")
    return job or job_ids[-1]


def follow(cluster: Cluster, job: str) -> str:
    """Print a job's log as it grows until the job ends. Interrupting this does not stop the job.

    Args:
        cluster: the cluster.
        job: the job's id.

    Returns:
        The job's state.
    """
    cluster.run(f"ray job logs --address {_DASHBOARD} --follow {job}", follow=True)
    deadline = time.monotonic() + _FOLLOW_SECONDS
    while True:
        state = next((entry["state"] for entry in jobs(cluster) if entry["job"] == job), "GONE")
        if state in _ENDED or time.monotonic() > deadline:
            return state
        time.sleep(1)


def stop(cluster: Cluster, job: str) -> None:
    """Stop a job as Ctrl-C would; its search can be resumed.

    Args:
        cluster: the cluster.
        job: the job's id.
    """
    cluster.run(f"ray job stop --address {_DASHBOARD} {job}")
