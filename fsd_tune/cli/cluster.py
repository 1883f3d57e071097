"""The verbs for a cluster: submit, status, logs, stop, fetch; and doctor, which looks before anything starts."""

import posixpath
import sys
from pathlib import Path
from typing import Annotated

import typer

from fsd_tune.cli.app import verb
from fsd_tune.cli.options import Address, AsJson, DataFolder, MemoryPlace, OptionalSpace, Overrides, show
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.settings import loader
from fsd_tune.storage.uri import is_uri, last_name

ClusterFile = Annotated[Path, typer.Argument(help="the YAML that `ray up` was given")]
Shared = Annotated[str, typer.Option("--shared", help="the folder that all nodes of the cluster share")]
Job = Annotated[str | None, typer.Argument(help="the job's id; default: the newest")]


@verb(passes_on=True)
def submit(
    *,
    cluster: ClusterFile,
    command: Annotated[list[str], typer.Argument(help="a verb and its arguments, as they would be typed here")],
    shared: Shared = "/shared",
    detach: Annotated[bool, typer.Option("--detach", help="do not follow its log")] = False,
) -> None:
    """Run a verb on a cluster: `submit cluster.yaml search SPACE.yaml --task ...`; options of submit come first."""
    from fsd_tune.cluster import jobs

    where = jobs.named(cluster, shared)
    job = jobs.submit(where, command)
    print(f"job {job}: it runs on whether this machine does or not", file=sys.stderr)
    if detach:
        print(job)
        return
    state = jobs.follow(where, job)
    if state != "SUCCEEDED":
        raise FsdTuneError(f"job {job}: {state.lower()}", hint=f"Its log: fsd-tune logs {cluster} {job}")


@verb()
def status(*, cluster: ClusterFile, shared: Shared = "/shared", as_json: AsJson = False) -> None:
    """The jobs that were submitted to a cluster."""
    from fsd_tune.cluster import jobs

    found = jobs.jobs(jobs.checked(cluster, shared))
    lines = [f"{one['job']}  {one['state'].lower():9s}  {one['command']}" for one in found]
    show({"jobs": found}, as_json, lines or ["no job was submitted"])


@verb()
def logs(*, cluster: ClusterFile, job: Job = None, shared: Shared = "/shared") -> None:
    """A job's log, followed to its end; Ctrl-C ends the following alone."""
    from fsd_tune.cluster import jobs

    where = jobs.checked(cluster, shared)
    jobs.follow(where, jobs.newest(where, job))


@verb()
def stop(*, cluster: ClusterFile, job: Job = None, shared: Shared = "/shared") -> None:
    """End a job as Ctrl-C would; `submit cluster.yaml resume NAME` goes on with its search."""
    from fsd_tune.cluster import jobs

    where = jobs.checked(cluster, shared)
    name = jobs.newest(where, job)
    jobs.stop(where, name)
    print(f"job {name}: stopped")


@verb()
def fetch(
    *,
    cluster: Annotated[str, typer.Argument(help="the YAML that `ray up` was given; or the search's URI, and no name")],
    name: Annotated[str | None, typer.Argument(help="the `--output` of the search that was submitted")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="folder here; default: the same name")] = None,
    shared: Shared = "/shared",
) -> None:
    """Bring a search's report, leaderboard and best student from a cluster, or from where it stored them."""
    from fsd_tune.cluster import jobs

    uri = next((given for given in (name, cluster) if given is not None and is_uri(given)), None)
    if uri is not None:
        here = output or Path(last_name(uri))
        found = jobs.fetch_uri(uri, here)
    elif name is None:
        raise InputError("NAME: is missing: the `--output` of the search that was submitted.")
    else:
        where = jobs.checked(Path(cluster), shared)
        here = Path(posixpath.normpath(name).removeprefix(f"{where.shared}/")) if output is None else output
        if output is None and here.is_absolute():
            raise InputError(f"NAME: {name} does not lie in {where.shared}, which all nodes share.")
        found = jobs.fetch(where, name, here)
    print(f"{here}: {', '.join(found)}")


@verb(settings_flags=True)
def doctor(
    overrides: Overrides,
    *,
    space: OptionalSpace = None,
    task: Annotated[str | Path | None, typer.Option("--task", help="GLUE task whose data are looked at")] = None,
    teacher: Annotated[str | None, typer.Option("--teacher", help="teacher: folder or hub id")] = None,
    data: DataFolder = None,
    memory: MemoryPlace = None,
    output: Annotated[str | None, typer.Option("--output", help="the search's folder, or a URI")] = None,
    address: Address = None,
    cluster: Annotated[Path | None, typer.Option("--cluster", help="the YAML of `ray up`")] = None,
) -> None:
    """Look at all that a search needs before it starts; each line is ok, or says what to do."""
    from fsd_tune.search import doctor as doctors

    settings = None if space is None else loader.load(space, overrides())
    wanted = doctors.CheckRequest(settings, task, teacher, data, memory, output, address, cluster)
    if not doctors.show(doctors.run_checks(wanted)):
        raise SystemExit(2)
