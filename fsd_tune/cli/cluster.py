"""The verbs for a cluster: submit, status, logs, stop, fetch."""

import posixpath
import sys
from pathlib import Path

import click

from fsd_tune.cli import options
from fsd_tune.cli.app import CLUSTER, OUTPUT, RUNNING, argument, option, verb
from fsd_tune.cli.values import check_outputs, show_result
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.storage.uri import is_uri, last_name

_cluster_file = argument("cluster", type=Path, help="The YAML that was given to `ray up`.")
_shared = option(
    "--shared", panel=RUNNING, default="/shared", metavar="FOLDER", help="Folder that all nodes of the cluster share."
)
_job = argument("job", required=False, help="The job's id; default: the newest.")


@verb(CLUSTER, passes_on=True)
@_cluster_file
@argument(
    "command", nargs=-1, required=True, type=click.UNPROCESSED, help="A verb and its arguments, as you would type them."
)
@_shared
@option("--detach", panel=OUTPUT, is_flag=True, help="Do not follow the job's log.")
def submit(*, cluster: Path, command: tuple[str, ...], shared: str, detach: bool) -> None:
    """Run a verb on a cluster.

    As in `submit cluster.yaml search SPACE.yaml --task ...`; options of submit come before the cluster's YAML.
    """
    from fsd_tune.cluster import jobs

    target = jobs.named(cluster, shared)
    job = jobs.submit(target, list(command))
    print(f"job {job}: it continues when this machine is switched off", file=sys.stderr)
    if detach:
        print(job)
        return
    state = jobs.follow(target, job)
    if state != "SUCCEEDED":
        raise FsdTuneError(f"job {job}: {state.lower()}", hint=f"Its log: fsd-tune logs {cluster} {job}")


@verb(CLUSTER)
@_cluster_file
@_shared
@options.as_json
def status(*, cluster: Path, shared: str, as_json: bool) -> None:
    """List the jobs that were submitted to a cluster."""
    from fsd_tune.cluster import jobs

    submitted = jobs.jobs(jobs.checked(cluster, shared))
    lines = [f"{job['job']}  {job['state'].lower():9s}  {job['command']}" for job in submitted]
    show_result({"jobs": submitted}, as_json, lines or ["no job was submitted"])


@verb(CLUSTER)
@_cluster_file
@_job
@_shared
def logs(*, cluster: Path, job: str | None, shared: str) -> None:
    """Follow a job's log to its end.

    Ctrl-C stops following, but not the job.
    """
    from fsd_tune.cluster import jobs

    target = jobs.checked(cluster, shared)
    jobs.follow(target, jobs.newest(target, job))


@verb(CLUSTER)
@_cluster_file
@_job
@_shared
def stop(*, cluster: Path, job: str | None, shared: str) -> None:
    """Stop a job as Ctrl-C would.

    `submit cluster.yaml resume NAME` continues its search.
    """
    from fsd_tune.cluster import jobs

    target = jobs.checked(cluster, shared)
    name = jobs.newest(target, job)
    jobs.stop(target, name)
    print(f"job {name}: stopped")


@verb(CLUSTER)
@argument("cluster", help="The YAML that was given to `ray up`; or the search's URI, without a name.")
@argument("name", required=False, help="The --output of the search that was submitted.")
@options.folder_flag("--output", "Folder on this machine; default: the same name.")
@_shared
def fetch(*, cluster: str, name: str | None, output: Path | None, shared: str) -> None:
    """Fetch a search's report, leaderboard and best student.

    They come from a cluster, or from the URI where the search stored them.
    """
    from fsd_tune.cluster import jobs
    from fsd_tune.cluster.fetch import fetch_search, fetch_uri

    uri = next((value for value in (name, cluster) if value is not None and is_uri(value)), None)
    if uri is not None:
        target = output or Path(last_name(uri))
        check_outputs({"--output": target})
        file_names = fetch_uri(uri, target)
    elif name is None:
        raise InputError("NAME: is missing: the `--output` of the search that was submitted.")
    else:
        source = jobs.checked(Path(cluster), shared)
        target = Path(posixpath.normpath(name).removeprefix(f"{source.shared}/")) if output is None else output
        if output is None and target.is_absolute():
            raise InputError(f"NAME: {name} does not lie in {source.shared}, which all nodes share.")
        check_outputs({"--output": target})
        file_names = fetch_search(source, name, target)
    print(f"{target}: {', '.join(file_names)}")
