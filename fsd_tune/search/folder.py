"""A search's folder: whether it may be used, what is written into it before trials start, what it holds already."""

import json
import os
import platform
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fsd_tune.data.batching import split_digest
from fsd_tune.data.splits import Task
from fsd_tune.errors import InputError
from fsd_tune.memory.spec import MemorySpec, fingerprint
from fsd_tune.report.compare import differences
from fsd_tune.settings import loader
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.schema import Asha
from fsd_tune.storage import artifacts
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.uri import is_uri, misses_slash
from fsd_tune.training.inputs import Inputs
from fsd_tune.versions import versions


def identity(settings: Settings, spec: MemorySpec) -> dict[str, Any]:
    """What a search is: settings, task, teacher and data, the last three by their content.

    Trials, time and workers are left out: a search may be continued with more of them.
    """
    return {
        "settings": plain(settings),
        "task": spec.task.definition,
        "teacher": fingerprint(spec.teacher.path),
        "training split": split_digest(spec.train),
        "dev split": split_digest(spec.dev),
    }


def plain(settings: Settings) -> dict[str, Any]:
    """The settings of `identity`."""
    found: dict[str, Any] = yaml.safe_load(loader.dump(settings))
    for section in ("resources", "wandb"):
        found.pop(section)
    for key in ("trials", "time_budget", "stop_after_stalled"):
        found["search"].pop(key)
    return found


def given(task: Task, teacher: str, data: object, memory: object, device: str) -> dict[str, Any]:
    """What a search was started with, with absolute paths, so that other verbs can work on its folder alone."""

    def absolute(path: object) -> str | None:
        if path is None or is_uri(path):
            return None if path is None else str(path)
        return str(Path(str(path)).expanduser().absolute())

    local = Path(teacher).expanduser().is_dir()  # else an id of the hub
    return {
        "task": task.id,
        **({} if task.tables is None else {"task_file": str(task.tables.file)}),
        "teacher": absolute(teacher) if local else teacher,
        "data": absolute(data),
        "memory": absolute(memory),
        "device": device,
    }


UNDO = "Undo that, or search anew."
_KEPT = ("memory", ".lock")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a search's folder to this process; the lock goes with the process, however it ends.

    Raises:
        InputError: another process is searching in it.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"--output: another search is running in {folder}; wait for its end, or stop it.") from None
    try:
        yield
    finally:
        if [path.name for path in folder.iterdir()] == [".lock"]:
            # Refused before anything was written: nothing stays behind.
            (folder / ".lock").unlink()
            folder.rmdir()
        lock.release()


def check(folder: Path, identity: dict[str, Any], overwrite: bool, resuming: bool = False) -> None:
    """Refuse a folder that holds anything but the search of this `identity`, or a memory.

    Raises:
        InputError: it does (and `overwrite` is not given, or what it holds is no search), or cannot be written.
    """
    if misses_slash(folder):
        raise InputError(f"--output: found {folder}; a URI has two slashes, as in s3://bucket/runs/rte.")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output: {folder} is a file, but must be a folder or new.")
    parent = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"--output: {folder} cannot be made, for {parent} cannot be written.")
    if not folder.is_dir() or all(path.name in _KEPT for path in folder.iterdir()):
        return
    try:
        held = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["identity"]
        found = differences(held, identity)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"--output: {folder} holds other files; give a new folder.") from None
    if found and resuming:
        raise InputError([f"{folder}: {difference}." for difference in found], UNDO)
    if found and not overwrite:
        more = [f"and {len(found) - 3} more"] if len(found) > 3 else []
        raise InputError(
            f"--output: {folder} holds another search ({'; '.join([*found[:3], *more])}); give a new folder, or "
            "--overwrite."
        )


def write_description(
    where: ExperimentFolder,
    identity: dict[str, Any],
    settings: Settings,
    inputs: Inputs,
    spec: MemorySpec,
    notes: list[str],
    given: dict[str, Any],
) -> dict[str, Any]:
    """Make the folder or take it up again, and write what describes the search.

    Args:
        where: the search's folder.
        identity: as `identity` gives it.
        settings, inputs, spec: of the search.
        notes: for people.
        given: task, teacher, data, memory and device, as the user gave them, with absolute paths.

    Returns:
        The summary, as it stands in `summary.json`.
    """
    summary: dict[str, Any] = {}
    folder = where.folder
    if (folder / "summary.json").exists():
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.write_text(folder / "settings.yaml", loader.dump(settings))
    artifacts.write_text(folder / "command.txt", command_line(where, **given) + "\n")
    artifacts.write_json(folder / "versions.json", versions())
    asha = settings.asha
    from fsd_tune.search.searcher import rungs

    summary.update(
        identity=identity,
        inputs=given,
        name=summary.get("name") or folder.resolve().name,
        # Among all searches of a project, those of another folder of this name too.
        group=summary.get("group") or f"{folder.resolve().name}-{artifacts.digest(identity, time.time())[:6]}",
        task=inputs.task.id,
        metric=inputs.task.metric,
        mode="max",
        state="running",
        trials=settings.search.trials,
        reports=(asha or Asha()).reports,
        rungs=rungs(asha.grace, asha.reduction_factor, asha.reports) if asha else [],
        judge_by=settings.search.judge_by,
        select_on=settings.search.model_dump(mode="json")["select_on"],
        selection_examples=len(inputs.dev),
        train_examples=len(inputs.train),
        precision=spec.precision,
        device=spec.device,
        student={"layers": settings.student.layers, "start": settings.student.start},
        machine=f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}",
        notes=notes,
    )
    for figure in ("ended_by", "dev"):
        summary.pop(figure, None)
    summary.setdefault("started", time.time())
    summary.setdefault("memory", None)
    summary.setdefault("teacher", {"name": inputs.teacher.path})
    artifacts.write_json(folder / "summary.json", summary)
    where.sync_all()
    return summary


def recorded_inputs(folder: Path) -> dict[str, Any]:
    """Task, teacher, data, memory and device that a search was given, as keywords of `search.run`.

    Raises:
        InputError: no search is there, or its summary cannot be read.
    """
    try:
        given = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["inputs"]
        return {key: given[key] for key in ("teacher", "data", "memory", "device")} | {"task": task_of(given)}
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: holds no search that has begun; give the `--output` folder of a search.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / 'summary.json'}: cannot be read ({type(error).__name__}); the command in "
            f"{folder / 'command.txt'} starts the search in a new folder."
        ) from None


def task_of(given: dict[str, Any]) -> str | Path:
    """The task of a search, from what `given` recorded: an id, or the file of one's own."""
    return Path(given["task_file"]) if given.get("task_file") else str(given["task"])


def clear(where: ExperimentFolder) -> None:
    """Delete what a search has written; its memories stay, for they are named by content."""
    for path in where.folder.iterdir():
        if path.name in _KEPT:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    where.clear()


def command_line(
    where: ExperimentFolder,
    task: str,
    teacher: str,
    data: str | None,
    memory: str | None,
    device: str,
    task_file: str | None = None,
) -> str:
    """The command that makes a search, whatever started it."""
    named = ["--task", task] if task_file is None else ["--task-file", task_file]
    words = ["fsd-tune", "search", where.folder / "settings.yaml", *named, "--teacher", teacher]
    words += ["--data", data] if data is not None else []
    words += ["--memory", memory] if memory is not None else []
    words += ["--device", device] if device != "auto" else []
    return shlex.join(map(str, [*words, "--output", where.name]))
