"""This machine's cache of latencies: one JSON file for each machine and its versions of the runtimes."""

import contextlib
from pathlib import Path
from typing import Any

from fsd_tune.profiling.machine import Machine
from fsd_tune.storage import artifacts, json_file
from fsd_tune.storage.experiment_folder import cache


def read() -> dict[str, Any]:
    """Return the latencies that this machine has measured, as JSON values by their keys; empty if none can be read."""
    try:
        entries = json_file.read_mapping(_file())["latencies"]
    except (OSError, ValueError, KeyError):
        return {}
    return entries if isinstance(entries, dict) else {}


def add(entries: dict[str, dict[str, Any]]) -> None:
    """Add latencies to the cache. A cache that cannot be written is left alone, because all can be measured again.

    Args:
        entries: the JSON values of latencies by their keys.
    """
    with contextlib.suppress(OSError):
        document = {"machine": Machine.current().as_json(), "latencies": read() | entries}
        artifacts.write_json(_file(), document)


def _file() -> Path:
    return cache() / "latency" / f"{artifacts.digest(Machine.current().as_json())}.json"
