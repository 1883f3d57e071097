"""Check, lock and clear a search's folder, and read what identifies the search in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fsd_tune.data.batching import split_digest
from fsd_tune.data.splits import Task
from fsd_tune.errors import InputError
from fsd_tune.memory.spec import SpecInputs, fingerprint
from fsd_tune.report.compare import differences
from fsd_tune.settings import loader
from fsd_tune.settings.comparing import EQUAL
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.objectives import Latency
from fsd_tune.storage import files, layout
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.search_summary import SearchSummary
from fsd_tune.storage.uri import is_uri, local_path


def describe_identity(settings: Settings, inputs: SpecInputs) -> dict[str, Any]:
    """Return the identity of a search: its settings, and task, teacher and data by their content.

    The numbers of trials and workers and the time are not part of it, because a search can continue with more of them.

    Args:
        settings: the settings of the search.
        inputs: its task, teacher and data.
    """
    return {
        "settings": identifying_settings(settings),
        "task": inputs.task.definition,
        "teacher": fingerprint(inputs.teacher.path),
        "training split": split_digest(inputs.train),
        "dev split": split_digest(inputs.dev),
    }


def identifying_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that belong to a search's identity, as plain values.

    Args:
        settings: the settings of the search.

    Returns:
        The settings without `resources`, `wandb` and the limits on trials and time, which a resumed search can change.
    """
    values: dict[str, Any] = yaml.safe_load(loader.dump(settings))
    for section in ("resources", "wandb"):
        values.pop(section)
    for key in ("trials", "time_budget", "stop_after_stalled", "stop_when", "price_per_hour", "pick"):
        values["search"].pop(key)
    # Searches of earlier versions have none of these keys: their batches are random, their methods not compared, they
    # learned nothing from earlier searches, and looked for the best score alone.
    if values["data"]["batching"] == "random":
        values["data"].pop("batching")
    if values["search"]["compare_methods"] != EQUAL:
        values["search"].pop("compare_methods")
    if values["search"]["warm_from"] == "auto":
        values["search"].pop("warm_from")
    if values["search"]["objectives"] == ["score"]:
        values["search"].pop("objectives")
    if not values["search"]["limits"]:
        values["search"].pop("limits")
    if settings.latency == Latency():
        values.pop("latency")
    return values


def record_inputs(task: Task, teacher: str, data: object, memory: object, device: str) -> dict[str, Any]:
    """Return the inputs of a search with absolute paths, so that other commands need only its folder.

    Args:
        task: the task.
        teacher: folder or hub id.
        data: folder of the data, or None.
        memory: folder or URI of the memories, or None.
        device: auto, cpu or cuda.
    """

    def absolute(path: object) -> str | None:
        if path is None or is_uri(path):
            return None if path is None else str(path)
        return str(local_path(str(path)).absolute())

    local = local_path(teacher).is_dir()  # Otherwise the teacher is an id of the hub.
    return {
        "task": task.id,
        **({} if task.tables is None else {"task_file": str(task.tables.file)}),
        "teacher": absolute(teacher) if local else teacher,
        "data": absolute(data),
        "memory": absolute(memory),
        "device": device,
    }


UNDO = "Undo that, or start a new search."
_KEPT_FILES = (layout.MEMORY, layout.LOCK, *files.SYSTEM_NAMES)


@contextmanager
def hold_folder(folder: Path, name: str = "") -> Iterator[None]:
    """Lock a search's folder for this process. The lock is released even if the process is killed.

    If the block raises an `InputError`, a lock file that was not there before is removed, so that a refused command
    changes nothing.

    Args:
        folder: the folder, which is created if needed.
        name: the folder as the user gave it, for the message; empty for its path.

    Raises:
        InputError: another process is searching in it.
    """
    from filelock import FileLock, Timeout

    new = not folder.is_dir()
    files.make_folder(folder)
    new_lock, refused = not (folder / layout.LOCK).exists(), False
    lock = FileLock(folder / layout.LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"--output: another search is running in {name or folder}; wait for its end, or stop it."
        ) from None
    try:
        yield
    except InputError:
        refused = True
        raise
    finally:
        only_lock = [path.name for path in folder.iterdir()] == [layout.LOCK]
        if only_lock or (new_lock and refused):
            (folder / layout.LOCK).unlink(missing_ok=True)
            if only_lock and new:
                # The search was refused before it wrote anything, so remove the empty folder that was created for it.
                files.real_path(folder).rmdir()
        lock.release()


def check_output(folder: Path, identity: dict[str, Any], overwrite: bool, resuming: bool = False) -> None:
    """Check that a folder holds at most the search of this `identity` and memories.

    Args:
        folder: the folder of the search.
        identity: the identity, as `describe_identity` returns it.
        overwrite: accept another search, which the caller then deletes.
        resuming: the folder must hold this search.

    Raises:
        InputError: the folder holds other files, or holds another search without `overwrite`.
    """
    if not folder.is_dir() or all(path.name in _KEPT_FILES for path in folder.iterdir()):
        return
    try:
        changes = differences(SearchSummary.read(folder).identity, identity)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"--output: {folder} holds other files; give a new folder.") from None
    if changes and resuming:
        raise InputError([f"{folder}: {change}." for change in changes], UNDO)
    if changes and not overwrite:
        rest = [f"and {len(changes) - 3} more"] if len(changes) > 3 else []
        raise InputError(
            f"--output: {folder} holds another search ({'; '.join([*changes[:3], *rest])}); give a new folder, or "
            "--overwrite."
        )


def group_in(folder: Path) -> str | None:
    """Return the group of the search in a folder, which no other search has; None if there is none.

    Args:
        folder: the search's.
    """
    try:
        return SearchSummary.read(folder).group
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def recorded_inputs(folder: Path) -> dict[str, Any]:
    """Return the task, teacher, data, memory and device of a search, as keywords of `search.run`.

    Args:
        folder: the folder of the search.

    Raises:
        InputError: the folder holds no search, or its summary cannot be read.
    """
    try:
        inputs = SearchSummary.read(folder).inputs
        return {key: inputs[key] for key in ("teacher", "data", "memory", "device")} | {"task": recorded_task(inputs)}
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: holds no search that has begun; give the `--output` folder of a search.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / 'summary.json'}: cannot be read ({type(error).__name__}); the command in "
            f"{folder / 'command.txt'} starts the search in a new folder."
        ) from None


def recorded_task(given: dict[str, Any]) -> str | Path:
    """Return the recorded task of a search: the id of a GLUE task, or the file of a custom one.

    Args:
        given: the inputs, as `record_inputs` returns them.
    """
    return Path(given["task_file"]) if given.get("task_file") else str(given["task"])


def clear_folder(experiment: ExperimentFolder) -> None:
    """Delete the files of a search except its memories, which are named by content and stay valid.

    Args:
        experiment: the folder of the search.
    """
    for path in experiment.folder.iterdir():
        if path.name in _KEPT_FILES:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    experiment.clear()
