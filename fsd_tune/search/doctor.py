"""What can be found before a search starts: one finding a line, each either right or with what to do."""

import functools
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.cluster import cluster_yaml
from fsd_tune.data import splits
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.memory import sizes
from fsd_tune.models.local_checks import model_problems
from fsd_tune.settings.loader import Settings
from fsd_tune.storage import hub, open_folder
from fsd_tune.storage.uri import is_uri, joined, misses_slash
from fsd_tune.tracking.login import tracking_problems
from fsd_tune.versions import versions


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: its name.
        said: what was found, or what to do.
        right: whether a search may start.
    """

    what: str
    said: str
    right: bool = True


@dataclass(frozen=True)
class CheckRequest:
    """What a search is to be started with; what is None is not looked at.

    Attributes:
        settings: resolved.
        task, teacher, data, memory, output: as `search` takes them.
        address: of a Ray cluster.
        cluster: the YAML of `ray up`.
    """

    settings: Settings | None = None
    task: splits.TaskLike | None = None
    teacher: str | None = None
    data: Path | None = None
    memory: str | None = None
    output: str | None = None
    address: str | None = None
    cluster: Path | None = None


def run_checks(wanted: CheckRequest) -> Iterator[Check]:
    """Look at everything that is wanted, the quick things first."""
    yield Check("versions", ", ".join(f"{name} {version}" for name, version in versions().items()))
    looks: list[tuple[str, bool, Callable[[CheckRequest], Sequence[Check]]]] = [
        ("cluster file", wanted.cluster is not None, _cluster_file),
        ("data", wanted.task is not None, _data),
        ("teacher", wanted.teacher is not None, _teacher),
        ("output", wanted.output is not None, _output),
        ("disk", True, _disk),
        ("Weights & Biases", wanted.settings is not None, _tracking),
        ("auth mode", True, _auth),
        ("cluster", wanted.address is not None, _nodes),
    ]
    for name, asked, look in looks:
        if not asked:
            continue
        try:
            yield from look(wanted)
        except (FsdTuneError, OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
            problems = error.problems if isinstance(error, InputError) else (str(error),)
            yield from (Check(name, problem, False) for problem in problems)


def _cluster_file(wanted: CheckRequest) -> list[Check]:
    assert wanted.cluster is not None
    problems = cluster_yaml.problems(wanted.cluster) or cluster_yaml.lacking(wanted.cluster)
    sound = Check("cluster file", f"{wanted.cluster} is sound")
    return [Check("cluster file", problem, False) for problem in problems] or [sound]


def _data(wanted: CheckRequest) -> list[Check]:
    assert wanted.task is not None
    task = splits.get_task(wanted.task)
    if not splits.is_here(task, wanted.data):
        why = hub.unreachable("dataset", "nyu-mll/glue")
        said = f"--data is not given, and the hub: {why}" if why else "from the hub, which can be reached"
        return [Check("data", said, not why)]
    counts = ", ".join(f"{count:,} in {name}" for name, count in _examples(task, wanted.data).items())
    where = wanted.data or (task.tables and task.tables.file)
    return [Check("data", f"{task.id} in {where}: {counts}")]


def _teacher(wanted: CheckRequest) -> list[Check]:
    assert wanted.teacher is not None
    problems = model_problems(wanted.teacher, "--teacher")
    if not Path(wanted.teacher).is_dir() and not problems:
        why = hub.unreachable("model", wanted.teacher)
        problems = [f"--teacher: {wanted.teacher} is no folder, and the hub: {why}"] if why else []
    readable = Check("teacher", f"{wanted.teacher} can be read")
    return [Check("teacher", problem, False) for problem in problems] or [readable]


def _output(wanted: CheckRequest) -> list[Check]:
    """Whether it can be written, and what its study says if there is one."""
    assert wanted.output is not None
    if is_uri(wanted.output):
        open_folder.open_experiment(wanted.output).check_writable("--output")
        different = _different(wanted)
        if different:
            return [Check("output", _another(wanted.output, different), False)]
        return [Check("output", f"{wanted.output} can be written and read back")]
    output = Path(wanted.output)
    if misses_slash(wanted.output):
        return [Check("output", f"found {wanted.output}; a URI has two slashes, as in s3://bucket/runs/rte", False)]
    existing = next(path for path in (output, *output.resolve().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return [Check("output", f"{existing} cannot be written; give another --output", False)]
    different = _different(wanted)
    if different:
        return [Check("output", _another(wanted.output, different), False)]
    if not (output / "study.db").is_file():
        return [Check("output", f"{output} can be written")]
    try:
        with sqlite3.connect(f"file:{(output / 'study.db').resolve()}?mode=ro", uri=True) as database:
            (count,) = database.execute("select count(*) from trials").fetchone()
    except sqlite3.Error as error:
        said = f"{output / 'study.db'} cannot be opened ({error}); move it away, `resume` makes it anew"
        return [Check("study", said, False)]
    return [Check("study", f"{output / 'study.db'} holds {count} trials; a search that is the same goes on")]


def _different(wanted: CheckRequest) -> list[str]:
    """What settings and task of the search that the output holds differ from those that are wanted, at most three."""
    assert wanted.output is not None
    summary = joined(wanted.output, "summary.json")
    try:
        if wanted.settings is None:
            return []
        if is_uri(wanted.output):
            from fsd_tune.storage.remote import RemoteFolder  # pyarrow comes with it

            text = RemoteFolder(wanted.output).read("summary.json").decode()
        else:
            text = Path(summary).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    from fsd_tune.report.compare import differences
    from fsd_tune.search.folder import identifying_settings  # torch comes with it

    try:
        held = dict(json.loads(text)["identity"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{summary}: is damaged or no search's; move it away, or give a new folder.") from error
    now: dict[str, Any] = {"settings": identifying_settings(wanted.settings)}
    if wanted.task is not None:
        now["task"] = splits.get_task(wanted.task).definition
    return differences({"settings": {}} | held, now)[:3]


def _another(output: str, different: list[str]) -> str:
    return f"{output} holds another search ({'; '.join(different)}); give a new folder, or --overwrite"


def _disk(wanted: CheckRequest) -> list[Check]:
    """Room for the teacher's outputs, at most by formula (README, "What a trial costs"); and /dev/shm for Ray."""
    found = []
    folder = open_folder.open_experiment(wanted.output or "").memory_folder(wanted.memory)[0].resolve()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    try:
        needed = _bytes_at_most(wanted)
    except (InputError, OSError, ValueError):
        needed = None  # what is wrong with the data is said of them
    if needed is None:
        found.append(Check("disk", f"{free / 1e9:.3g} GB are free below {existing}"))
    else:
        limit = wanted.settings.memory.spool_limit_gb * 1e9 if wanted.settings else 50e9
        live = min(limit, 0.9 * free) < needed
        said = f"{free / 1e9:.3g} GB free below {existing}, outputs and memory take at most {needed / 1e9:.3g} GB"
        more = "; over memory.spool_limit_gb or the disk the teacher runs live, which makes steps dearer"
        found.append(Check("disk", said + (more if live else "")))
    store = Path("/dev/shm")
    if wanted.address is None and store.is_dir():
        room = shutil.disk_usage(store).free
        said = f"{room / 1e9:.3g} GB of shared memory for Ray's object store"
        found.append(Check("object store", said if room > 2e8 else f"{said}; 0.2 GB are needed", room > 2e8))
    return found


def _bytes_at_most(wanted: CheckRequest) -> int | None:
    """Bytes of outputs and memory if every example had the maximum length; None where the sizes are not known here."""
    settings = wanted.settings
    task = None if wanted.task is None else splits.get_task(wanted.task)
    if settings is None or task is None or not splits.is_here(task, wanted.data):
        return None
    if not Path(wanted.teacher or "").is_dir():
        return None
    config = json.loads((Path(str(wanted.teacher)) / "config.json").read_text(encoding="utf-8"))
    hidden = config.get("hidden_size")
    if not isinstance(hidden, int):
        return None
    asked = settings.loss.layers
    layers = {"all": settings.student.layers}.get(asked, 1) if isinstance(asked, str) else len(asked) + 1
    rows, width = _examples(task, wanted.data)["train"], settings.data.max_length * hidden
    k = min(settings.memory.centroids or task.default_centroids, rows)
    outputs = sizes.outputs_bytes(rows * settings.data.max_length, rows, hidden, layers, task.num_labels)
    return outputs + sizes.memory_bytes(rows, k, width)


@functools.lru_cache(maxsize=1)
def _examples(task: splits.Task, data: Path | None) -> dict[str, int]:
    return {name: len(split.first) for name, split in splits.load(task, ("train", "dev"), data).items()}


def _tracking(wanted: CheckRequest) -> list[Check]:
    assert wanted.settings is not None
    mode = wanted.settings.wandb.mode
    problems = tracking_problems(wanted.settings.wandb)
    return [Check("Weights & Biases", problem, False) for problem in problems] or [Check("Weights & Biases", mode)]


def _auth(wanted: CheckRequest) -> list[Check]:
    """Ray's token: asked for by the environment, and there."""
    mode = os.environ.get("RAY_AUTH_MODE", "disabled" if wanted.address is None else "")
    token = Path("~/.ray/auth_token").expanduser()
    if mode == "token" and not token.is_file() and "RAY_AUTH_TOKEN" not in os.environ:
        said = "RAY_AUTH_MODE=token, but there is no token; `ray get-auth-token --generate` makes one"
        return [Check("auth mode", said, False)]
    return [Check("auth mode", mode or "not set")]


def _nodes(wanted: CheckRequest) -> list[Check]:
    from fsd_tune.cluster import connection as cluster
    from fsd_tune.cluster import nodes

    gpus = 0.0
    if wanted.settings is not None:
        gpus = cluster.gpus_for(wanted.settings, cluster.device_for(wanted.settings, "auto", wanted.address))
    paths = [str(Path(path).absolute()) for path in (wanted.teacher,) if path and Path(path).is_dir()]
    found, needed, where = [], _bytes_at_most(wanted), open_folder.open_experiment(wanted.output or "")
    folder, remote = where.memory_folder(wanted.memory)
    # How much is asked for is known at most; the search itself asks for the right amount.
    needs = nodes.Needs(gpus, paths, folder.absolute() if remote else None)
    with cluster.connect(wanted.address):
        if wanted.settings is not None:
            workers = cluster.workers(wanted.settings, gpus)
            found.append(Check("workers", f"{workers} trials fit side by side"))
        for node in nodes.probe_nodes(where, needs):
            what = f"node {node.address}"
            found += [Check(what, problem, False) for problem in node.problems]
            if not node.problems:
                has = f"{node.cpus:g} CPUs, {node.gpus:g} GPUs, same versions, storage shared"
                copies = "" if node.room is None else f", {node.room / 1e9:.3g} GB for a copy of them"
                found.append(Check(what, f"{has}, {_serves(node.store, needed)}{copies}"))
    return found


def _serves(store: float, needed: int | None) -> str:
    """How a node with an object store of this size serves outputs and memory, which take so much at most."""
    from fsd_tune.memory import actor

    has = f"object store {store / 1e9:.3g} GB"
    if needed is None:
        return has
    how = "holds outputs and memory" if needed <= actor.room_in(store) else "too small: they are read as files"
    return f"{has} {how} ({needed / 1e9:.3g} GB at most)"


def show(findings: Iterator[Check]) -> bool:
    """Print findings as they come; returns whether all are right."""
    right = True
    for finding in findings:
        right &= finding.right
        print(f"{'ok' if finding.right else '!!'}  {finding.what}: {finding.said}")
        sys.stdout.flush()
    return right
