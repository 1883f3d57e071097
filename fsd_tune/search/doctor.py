"""Check everything that a search needs before it starts. A check that fails says what to do."""

import functools
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from fsd_tune.cluster import cluster_yaml, destination
from fsd_tune.data import splits
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.memory import sizes
from fsd_tune.models.layers import layer_pairs
from fsd_tune.models.local_checks import model_problems
from fsd_tune.search.checks import Check, CheckRequest
from fsd_tune.storage import artifacts, hub, json_file, open_folder
from fsd_tune.storage.outputs import output_problems
from fsd_tune.storage.uri import is_uri, joined, local_path
from fsd_tune.storage.waiting import holder_of
from fsd_tune.tracking.login import tracking_problems
from fsd_tune.versions import versions

__all__ = ["Check", "CheckRequest", "print_checks", "run_checks"]


def run_checks(request: CheckRequest) -> Iterator[Check]:
    """Yield the results of all requested checks, the quick ones first.

    Args:
        request: the inputs to check.
    """
    yield Check("versions", ", ".join(f"{name} {version}" for name, version in versions().items()))
    checks: list[tuple[str, bool, Callable[[CheckRequest], Sequence[Check]]]] = [
        ("cluster file", request.cluster is not None, _cluster_file),
        ("data", request.task is not None, _data),
        ("teacher", request.teacher is not None, _teacher),
        ("output", request.output is not None, _output),
        ("warm start", request.settings is not None, _warm_start),
        ("teacher memory", request.output is not None or request.memory is not None, _memory),
        ("disk", True, _disk),
        ("Weights & Biases", request.settings is not None, _tracking),
        ("auth mode", True, _auth),
        ("Ray", True, _ray),
        ("cluster", request.address is not None, _nodes),
    ]
    for name, requested, check in checks:
        if not requested:
            continue
        try:
            yield from check(request)
        except (FsdTuneError, OSError, ValueError, RuntimeError) as error:  # Circular links raise RuntimeError.
            problems = error.problems if isinstance(error, InputError) else (str(error),)
            yield from (Check(name, problem, False) for problem in problems)


def _cluster_file(request: CheckRequest) -> list[Check]:
    assert request.cluster is not None
    problems = cluster_yaml.problems(request.cluster) or [
        *cluster_yaml.lacking(request.cluster),
        *cluster_yaml.short_stop(request.cluster),
    ]
    valid = Check("cluster file", f"{request.cluster} is valid")
    return [Check("cluster file", problem, False) for problem in problems] or [valid]


def _data(request: CheckRequest) -> list[Check]:
    assert request.task is not None
    task = splits.get_task(request.task)
    if not splits.is_here(task, request.data):
        problem = hub.unreachable("dataset", "nyu-mll/glue")
        message = f"--data is not given, and the hub: {problem}" if problem else "from the hub, which can be reached"
        return [Check("data", message, not problem)]
    counts = ", ".join(f"{count:,} in {name}" for name, count in _examples(task, request.data).items())
    source = request.data or (task.tables and task.tables.file)
    return [Check("data", f"{task.id} in {source}: {counts}")]


def _teacher(request: CheckRequest) -> list[Check]:
    assert request.teacher is not None
    problems = model_problems(request.teacher, "--teacher")
    if not Path(request.teacher).is_dir() and not problems:
        problem = hub.unreachable("model", request.teacher)
        problems = [f"--teacher: {request.teacher} is not a folder, and the hub: {problem}"] if problem else []
    readable = Check("teacher", f"{request.teacher} can be read")
    return [Check("teacher", problem, False) for problem in problems] or [readable]


def _memory(request: CheckRequest) -> list[Check]:
    """Compare the checksums of all stored teacher outputs and memories; a search compares them at the first read."""
    folder, _ = open_folder.open_experiment(request.output or "").memory_folder(request.memory)
    manifests = sorted(folder.glob(f"*/{artifacts.MANIFEST}"))
    checks, total = [], 0
    for manifest in manifests:
        artefact = manifest.parent
        total += sum(path.stat().st_size for path in artefact.iterdir())
        try:
            damaged = ", ".join(artifacts.damaged_files(artefact))
        except ValueError:
            damaged = manifest.name
        if damaged:
            message = f"{artefact} is damaged ({damaged}); delete this folder, and the next search builds it again"
            checks.append(Check("teacher memory", message, False))
    if manifests and not checks:
        message = f"{len(manifests)} artefacts in {folder} are whole ({total / 1e9:.3g} GB read)"
        checks.append(Check("teacher memory", message))
    return checks


def _output(request: CheckRequest) -> list[Check]:
    """Check that the output can be written, that it holds no other search, and that its study can be read."""
    assert request.output is not None
    problems = output_problems(request.output, uri=True)
    if problems:
        return [Check("output", problem.removeprefix("--output: "), False) for problem in problems]
    if is_uri(request.output):
        open_folder.open_experiment(request.output).check_writable("--output")
        changes = _changes(request)
        if changes:
            return [Check("output", _other_search(request.output, changes), False)]
        return [Check("output", f"{request.output} can be written and read back")]
    output = Path(request.output)
    changes = _changes(request)
    if changes:
        return [Check("output", _other_search(request.output, changes), False)]
    if not (output / "study.db").is_file():
        return [Check("output", f"{output} can be written")]
    try:
        with sqlite3.connect(f"file:{(output / 'study.db').resolve()}?mode=ro", uri=True) as database:
            (count,) = database.execute("select count(*) from trials").fetchone()
    except sqlite3.Error as error:
        holder = holder_of(output / "study.db")
        way_out = f"process {holder.pid} has locked it" if holder else "move it away, and `resume` writes it again"
        message = f"{output / 'study.db'} cannot be opened ({error}); {way_out}"
        return [Check("study", message, False)]
    return [Check("study", f"{output / 'study.db'} holds {count} trials; the same search continues")]


def _warm_start(request: CheckRequest) -> list[Check]:
    """Check that the searches of `search.warm_from` can be used, or name those beside the output."""
    from fsd_tune.search import warm_start  # This module imports Optuna.

    assert request.settings is not None
    warm_from = request.settings.search.warm_from
    if isinstance(warm_from, str):
        has_begun = request.output is None or is_uri(request.output) or (Path(request.output) / "summary.json").exists()
        offer = "" if has_begun or request.output is None else warm_start.offer(request.settings, request.output)
        return [Check("warm start", offer)] if offer else []
    metric = "" if request.task is None else splits.get_task(request.task).metric
    found = warm_start.collect(request.settings, metric, warm_from)
    return [
        *(Check("warm start", problem, False) for problem in found.problems),
        *(Check("warm start", note.removeprefix("warm start: ")) for note in found.notes),
    ]


def _changes(request: CheckRequest) -> list[str]:
    """Return at most three differences of settings or task between the search in the output and the requested one."""
    assert request.output is not None
    summary = joined(request.output, "summary.json")
    try:
        if request.settings is None:
            return []
        if is_uri(request.output):
            from fsd_tune.storage.remote import RemoteFolder  # This module imports pyarrow.

            text = RemoteFolder(request.output).read("summary.json").decode()
        else:
            text = Path(summary).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    from fsd_tune.report.compare import differences
    from fsd_tune.search.folder import identifying_settings  # This module imports torch.
    from fsd_tune.search.plan import with_absolute_paths

    try:
        identity = dict(json_file.parse(text)["identity"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{summary}: is damaged or does not belong to a search; move it away, or give a new folder."
        ) from error
    requested: dict[str, Any] = {"settings": identifying_settings(with_absolute_paths(request.settings))}
    if request.task is not None:
        requested["task"] = splits.get_task(request.task).definition
    return differences({"settings": {}} | identity, requested)[:3]


def _other_search(output: str, changes: list[str]) -> str:
    return f"{output} holds another search ({'; '.join(changes)}); give a new folder, or --overwrite"


def _disk(request: CheckRequest) -> list[Check]:
    """Check the disk space for teacher outputs and memory (an upper bound), and the size of /dev/shm for Ray."""
    checks = []
    folder = open_folder.open_experiment(request.output or "").memory_folder(request.memory)[0].resolve()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    try:
        needed = _bytes_at_most(request)
    except (InputError, OSError, ValueError):
        needed = None  # The check of the data reports the problem.
    if needed is None:
        checks.append(Check("disk", f"{free / 1e9:.3g} GB are free below {existing}"))
    else:
        limit = request.settings.memory.spool_limit_gb * 1e9 if request.settings else 50e9
        live = min(limit, 0.9 * free) < needed
        message = f"{free / 1e9:.3g} GB free below {existing}, outputs and memory take at most {needed / 1e9:.3g} GB"
        consequence = "; if they exceed memory.spool_limit_gb or the disk, the teacher runs live and steps are slower"
        checks.append(Check("disk", message + (consequence if live else "")))
    store = Path("/dev/shm")
    if request.address is None and store.is_dir():
        store_bytes = shutil.disk_usage(store).free
        message = f"{store_bytes / 1e9:.3g} GB of shared memory for Ray's object store"
        enough = store_bytes > 2e8
        checks.append(Check("object store", message if enough else f"{message}; 0.2 GB are needed", enough))
    return checks


def _bytes_at_most(request: CheckRequest) -> int | None:
    """Return the bytes of outputs and memory if every example had the maximum length; None if a size is unknown."""
    settings = request.settings
    task = None if request.task is None else splits.get_task(request.task)
    if settings is None or task is None or not splits.is_here(task, request.data):
        return None
    if not Path(request.teacher or "").is_dir():
        return None
    config = json_file.read_mapping(Path(str(request.teacher)) / "config.json")
    hidden, depth = config.get("hidden_size"), config.get("num_hidden_layers")
    if not isinstance(hidden, int) or not isinstance(depth, int):
        return None
    selection = settings.loss.layers
    if isinstance(selection, str):
        pairs = (layer_pairs(selection, depth, own) for own in settings.student.possible("layers"))
        layers = len({t for t, _ in chain(*pairs)}) + (selection == "all")
    else:
        layers = len(selection) + 1
    rows = _examples(task, request.data)["train"]
    width = settings.data.max_length * hidden
    k = min(settings.memory.centroids or task.default_centroids, rows)
    outputs = sizes.outputs_bytes(rows * settings.data.max_length, rows, hidden, layers, task.num_labels)
    return outputs + sizes.memory_bytes(rows, k, width)


@functools.lru_cache(maxsize=1)
def _examples(task: splits.Task, data: Path | None) -> dict[str, int]:
    """Return the number of examples of the training and dev splits by name."""
    return {name: len(split.first) for name, split in splits.load_splits(task, ("train", "dev"), data).items()}


def _tracking(request: CheckRequest) -> list[Check]:
    assert request.settings is not None
    mode = request.settings.wandb.mode
    problems = tracking_problems(request.settings.wandb)
    return [Check("Weights & Biases", problem, False) for problem in problems] or [Check("Weights & Biases", mode)]


def _auth(request: CheckRequest) -> list[Check]:
    """Check that Ray's token exists if the environment requires one."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    token = local_path("~/.ray/auth_token")
    if mode == "token" and not token.is_file() and "RAY_AUTH_TOKEN" not in os.environ:
        message = "RAY_AUTH_MODE=token, but there is no token; `ray get-auth-token --generate` makes one"
        return [Check("auth mode", message, False)]
    unset = "not set; a local Ray has a token of its own" if request.address is None else "not set"
    return [Check("auth mode", mode or unset)]


def _ray(request: CheckRequest) -> list[Check]:
    """Check that RAY_ADDRESS is that of a cluster, or that a local Ray can have its folder."""
    destination.check(request.address, None)
    flag, cluster = destination.resolve(request.address)
    if cluster not in (None, "auto"):
        destination.check_reachable(str(cluster), flag)
    return []


def _nodes(request: CheckRequest) -> list[Check]:
    from fsd_tune.cluster import accelerator, connection, nodes

    gpus = 0.0
    if request.settings is not None:
        chosen = accelerator.choose(request.settings, "auto", request.address)
        gpus = accelerator.gpus_for(request.settings, chosen.device)
    paths = [str(Path(path).absolute()) for path in (request.teacher,) if path and Path(path).is_dir()]
    checks = []
    needed = _bytes_at_most(request)
    experiment = open_folder.open_experiment(request.output or "")
    folder, remote = experiment.memory_folder(request.memory)
    # Only a bound of the size is known, so do not require it of the nodes. The search requires the true size.
    needs = nodes.Needs(gpus, paths, folder.absolute() if remote else None)
    with connection.connect(request.address):
        if request.settings is not None:
            workers = connection.workers(request.settings, gpus)
            checks.append(Check("workers", f"{workers} trials can run at the same time"))
        for node in nodes.probe_nodes(experiment, needs):
            name = f"node {node.address}"
            checks += [Check(name, problem, False) for problem in node.problems]
            if not node.problems:
                resources = f"{node.cpus:g} CPUs, {node.gpus:g} GPUs, same versions, shared storage"
                copies = "" if node.room is None else f", {node.room / 1e9:.3g} GB for a copy of them"
                checks.append(Check(name, f"{resources}, {_describe_store(node.store, needed)}{copies}"))
    return checks


def _describe_store(store: float, needed: int | None) -> str:
    """Return the size of a node's object store in words, and whether outputs and memory fit.

    Args:
        store: size of the node's object store in bytes.
        needed: upper bound of the bytes of outputs and memory; None if it is unknown.
    """
    from fsd_tune.memory import actor

    size = f"object store {store / 1e9:.3g} GB"
    if needed is None:
        return size
    if needed <= actor.room_in(store):
        use = "holds outputs and memory"
    else:
        use = "is too small for outputs and memory, which are read as files"
    return f"{size} {use} ({needed / 1e9:.3g} GB at most)"


def print_checks(checks: Iterator[Check]) -> bool:
    """Print each check as it arrives, and return whether all passed.

    Args:
        checks: the results, as `run_checks` yields them.
    """
    passed = True
    for check in checks:
        passed &= check.passed
        print(f"{'ok' if check.passed else '!!'}  {check.name}: {check.message}", flush=True)
    return passed
