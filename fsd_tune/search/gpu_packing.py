"""Choose how many trials share a GPU (`resources.gpus_per_trial: auto`).

A few training steps of the largest trial measure its peak memory, and whether the host or the GPU limits its speed. The
probe that runs on a GPU node is `trial.probe`.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fsd_tune.errors import FsdTuneError
from fsd_tune.settings.configuration import resolve
from fsd_tune.settings.domains import Choice, Range
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import CUBIC_IN_BATCH, USES_FEATURES, USES_MEMORY, USES_TEACHER
from fsd_tune.settings.shapes import RANDOM
from fsd_tune.training.distiller import Distiller

# The fraction of a GPU's memory that trials may fill together, because the allocator does not count all used memory.
_USABLE = 0.9
# Memory of a CUDA context with its kernels, once per process.
_CONTEXT_BYTES = 700 << 20
# `make bench BENCH="--device cuda --only sharing"` prints trials an hour for 1, 2, 4 and 8 on one GPU; 8 are the most
# that were measured (docs/benchmarks/cost.md).
MOST = 8
# If the host has launched a step in less than this share of the step's time, it waits for the GPU for the rest of it.
# Other trials would then only take turns with this one.
_HOST_SHARE = 0.5
_WARM_UP = 3
_STEPS = 8
# From this batch size the B x B x B numbers of RKD's angles outweigh a student memory of BERT-base size.
_CUBIC = 256


def largest_configuration(settings: Settings) -> dict[str, Any]:
    """Return the configuration that needs most memory: the most terms, the largest batch and the largest student.

    Args:
        settings: the settings of the search.
    """
    values: dict[str, Any] = {}
    for name, entry in settings.space.items():
        if isinstance(entry, Range):
            values[name] = entry.high if name == "batch_size" else entry.low
        elif isinstance(entry, Choice):
            values[name] = max(entry.choice) if name == "batch_size" else entry.choice[0]
    choices = settings.student.choices
    if "layers" in choices:
        values["layers"] = max(choices["layers"].choice)
    if "start" in choices:
        # Only students that start at random can be narrower than the teacher.
        values["start"] = min(choices["start"].choice, key=lambda start: start == RANDOM)
    if "hidden_size" in choices:
        widths = choices["hidden_size"].choice
        is_narrow = values.get("start", settings.student.start) == RANDOM and None not in widths
        values["hidden_size"] = max(widths) if is_narrow else None
    costs = {
        method: sum(method in group for group in (USES_TEACHER, USES_FEATURES, USES_MEMORY))
        for method in settings.methods
    }
    cubic = [
        method
        for method in settings.methods
        if method in CUBIC_IN_BATCH and resolve(settings, {"method": method} | values)["batch_size"] >= _CUBIC
    ]
    costs |= dict.fromkeys(cubic, max(costs.values()) + 1)
    return resolve(settings, {"method": max(costs, key=lambda method: costs[method])} | values)


@dataclass(frozen=True)
class Probe:
    """The needs of the largest trial on a GPU.

    Attributes:
        peak_bytes: peak memory of torch's allocator.
        free_bytes: memory of the GPU that was free before the trial.
        host_seconds: seconds of the host for a step, without waiting for the GPU.
        step_seconds: seconds of a step.
    """

    peak_bytes: int
    free_bytes: int
    host_seconds: float
    step_seconds: float


def measure(distiller: Distiller, free_bytes: int) -> Probe:
    """Train a few steps on the longest examples.

    Args:
        distiller: a distiller on a GPU, with the configuration to measure.
        free_bytes: memory of the GPU that was free before the distiller was built.
    """
    device = distiller.setup.device
    longest = np.argsort(-distiller.setup.train.lengths, kind="stable")[: distiller.setup.config["batch_size"]]
    distiller.model.train()
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(_WARM_UP):
        distiller.train_on(longest)
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(_STEPS):
        distiller.train_on(longest)
    launched = time.perf_counter()
    torch.cuda.synchronize(device)
    done = time.perf_counter()
    peak = int(torch.cuda.max_memory_reserved(device))
    return Probe(peak, free_bytes, (launched - start) / _STEPS, (done - start) / _STEPS)


def gpu_share(probe: Probe) -> float:
    """Return the fraction of a GPU that a trial requests.

    Args:
        probe: the needs of the largest trial.

    Returns:
        1 if a single trial keeps the GPU busy, else 1/n for the n trials that fit into its memory, at most `MOST`.

    Raises:
        FsdTuneError: not even one trial fits.
    """
    fitting = int(_USABLE * probe.free_bytes // (probe.peak_bytes + _CONTEXT_BYTES))
    if fitting < 1:
        raise FsdTuneError(
            f"A trial takes {probe.peak_bytes / 1e9:.1f} GB of GPU memory, but the GPU has only "
            f"{probe.free_bytes / 1e9:.1f} GB free.",
            hint="Lower batch_size, data.max_length or student.layers, or raise gradient_accumulation.",
        )
    return 1.0 if keeps_busy(probe) else 1 / min(fitting, MOST)


def keeps_busy(probe: Probe) -> bool:
    """Return whether a single trial keeps the GPU busy, so that sharing it gains nothing.

    Args:
        probe: the needs of the largest trial.
    """
    return probe.host_seconds < _HOST_SHARE * probe.step_seconds
