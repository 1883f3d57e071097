"""A search's folder: whether it may be used, what is written into it before trials start, what it holds already."""

import json
import os
import platform
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from fsd_tune import files
from fsd_tune import settings as settings_module
from fsd_tune.errors import InputError
from fsd_tune.inputs import Inputs
from fsd_tune.results import load
from fsd_tune.settings import Settings
from fsd_tune.space import picked
from fsd_tune.spec import Spec, fingerprint
from fsd_tune.study import Known

_PACKAGES = ("fsd_tune", "ray", "torch", "transformers", "datasets", "optuna", "scikit-learn", "numpy", "wandb")
_DEFAULT_REPORTS = 10


def identity(settings: Settings, spec: Spec) -> str:
    """A name for what a search is: settings, task, teacher and data.

    Trials, time and workers are left out: a search may be continued with more of them.
    """
    plain = settings.model_dump(mode="json", exclude={"resources": True, "wandb": True})
    for key in ("trials", "time_budget", "stop_after_stalled"):
        plain["search"].pop(key)
    return files.digest(plain, spec.task, fingerprint(spec.teacher.path), spec.train.ids, spec.dev.ids)


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


def check(folder: Path, name: str, settings: Settings, overwrite: bool) -> None:
    """Refuse a folder that holds anything but the search `name`, or a memory.

    Raises:
        InputError: it does (and `overwrite` is not given, or what it holds is no search), or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output: {folder} is a file, but must be a folder or new.")
    parent = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"--output: {folder} cannot be made, for {parent} cannot be written.")
    if not folder.is_dir() or all(path.name in _KEPT for path in folder.iterdir()):
        return
    try:
        held = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"--output: {folder} holds other files; give a new folder.") from None
    if held != name and not overwrite:
        raise InputError(
            f"--output: {folder} holds another search ({_differences(folder, settings)}); give a new folder, or "
            "--overwrite."
        )


def _differences(folder: Path, settings: Settings) -> str:
    """Which keys another search's settings have differently; or that its settings are the same."""
    try:
        held = _flat(yaml.safe_load((folder / "settings.yaml").read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError):
        return "its settings cannot be read"
    own = _flat(yaml.safe_load(settings_module.dump(settings)))
    keys = [key for key in own | held if own.get(key) != held.get(key)]
    shown = [f"{key} {held.get(key)} there, {own.get(key)} now" for key in keys[:3]]
    more = [f"and {len(keys) - 3} more"] if len(keys) > 3 else []
    return "; ".join([*shown, *more]) or "the same settings on another task, teacher or data"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: leaf for name, part in value.items() for key, leaf in _flat(part, f"{prefix}.{name}".strip(".")).items()
    }


def begin(
    folder: Path, name: str, settings: Settings, inputs: Inputs, spec: Spec, notes: list[str], command: str
) -> dict[str, Any]:
    """Make the folder or take it up again, and write what describes the search.

    Returns:
        The summary, as it stands in `summary.json`.
    """
    summary: dict[str, Any] = {}
    if (folder / "summary.json").exists():
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / "settings.yaml", settings_module.dump(settings))
    files.write_text(folder / "command.txt", command + "\n")
    files.write_json(folder / "versions.json", versions())
    asha = settings.asha
    from fsd_tune.searcher import rungs

    summary.update(
        identity=name,
        name=summary.get("name") or folder.resolve().name,
        task=inputs.task.id,
        metric=inputs.task.metric,
        mode="max",
        state="running",
        trials=settings.search.trials,
        reports=asha.reports if asha else _DEFAULT_REPORTS,
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
    files.write_json(folder / "summary.json", summary)
    return summary


def clear(folder: Path) -> None:
    """Delete what a search has written; its memories stay, for they are named by content."""
    for path in folder.iterdir():
        if path.name in _KEPT:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def command_line(folder: Path, task: str, teacher: str, data: object, memory: object, device: str) -> str:
    """The command that makes (or continues) a search, whatever started it."""
    words = ["fsd-tune", "search", folder / "settings.yaml", "--task", task, "--teacher", teacher]
    words += ["--data", data] if data is not None else []
    words += ["--memory", memory] if memory is not None else []
    words += ["--device", device] if device != "auto" else []
    return shlex.join(map(str, [*words, "--output", folder]))


def past(folder: Path, settings: Settings) -> dict[int, Known]:
    """Trials of an earlier part of the search by number.

    An interrupted one is returned as running, without values, and its folder is deleted: it will be run anew.
    """
    results = load(folder)
    found = {}
    for _, row in results.trials.iterrows():
        ended = row["state"] in ("finished", "stopped", "failed")
        rows = results.reports[results.reports["trial"] == row["number"]] if ended else results.reports[:0]
        values = {int(r): float(v) for r, v in zip(rows["report"], rows.get(results.metric, []), strict=False)}
        trial = folder / "results" / row["folder"]
        written = json.loads((trial / "params.json").read_text(encoding="utf-8"))
        params, state = picked(settings, written["config"]), str(row["state"]) if ended else "running"
        at = json.loads((trial / "trial.json").read_text(encoding="utf-8")).get("time", 0.0) if ended else 0.0
        found[int(row["number"])] = Known(params, state, values, written.get("generation"), at)
        if not ended:
            shutil.rmtree(folder / "results" / row["folder"], ignore_errors=True)
    return found
