"""A student beside its teacher in size and speed, at one setting: what the ends of `search` and `evaluate` show."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fsd_tune.profiling.cost import cost_of
from fsd_tune.profiling.latency import Setting, Target, measure_latency, noise_warnings
from fsd_tune.profiling.machine import Machine
from fsd_tune.storage.uri import local_path

# Set to 0 to leave latency out, for example where other programs share the machine.
SWITCH = "FSD_TUNE_LATENCY"
# Enough for 100 runs of any encoder of common size.
_SECONDS = 60.0


def measures_latency() -> bool:
    """Return whether `compare_models` measures latency."""
    return os.environ.get(SWITCH) != "0"


def compare_models(models: Mapping[str, tuple[Any, str | Path]], length: int, device: str = "cpu") -> dict[str, Any]:
    """Return size, operations and torch's latency (one thread, batch 1) of several models.

    Args:
        models: transformers configuration, and folder or hub id, by a name such as `student`.
        length: tokens of an example.
        device: cpu or cuda; cuda falls back to the CPU on a machine without a GPU.

    Returns:
        {"machine": in words, "setting": {"runtime", "threads", "batch", "length", "device"}, "models": {name:
        {"parameters", "size_mb", "flops", "p50_ms", "p90_ms", "spread"}}, "notes": sentences}. Without latency,
        "machine" and "setting" are None and the times are left out.

    Raises:
        FsdTuneError: the process that measures failed.
    """
    setting = Setting("torch", length=length, device=device if torch.cuda.is_available() else "cpu")
    rows: dict[str, dict[str, Any]] = {}
    for name, (config, path) in models.items():
        folder = local_path(path)
        cost = cost_of(config, (length,), folder if folder.is_dir() else None)
        rows[name] = {"parameters": cost.parameters, "size_mb": cost.size_mb, "flops": cost.flops[length]}
    if not measures_latency():
        return {"machine": None, "setting": None, "models": rows, "notes": []}
    results = measure_latency([Target(config, (setting,)) for config, _ in models.values()], seconds=_SECONDS)
    latencies = [latency for (latency,) in results]
    for name, latency in zip(models, latencies, strict=True):
        rows[name] |= {"p50_ms": latency.p50_ms, "p90_ms": latency.p90_ms, "spread": latency.spread}
    return {
        "machine": Machine.current().text,
        "setting": asdict(setting),
        "models": rows,
        "notes": noise_warnings(latencies),
    }
