"""Choose how many trials share a GPU (`resources.gpus_per_trial: auto`).

A few training steps of the largest trial measure its peak memory. The probe that runs on a GPU node is `trial.probe`.
"""

from typing import Any

import numpy as np
import torch

from fsd_tune.errors import FsdTuneError
from fsd_tune.settings.configuration import resolve
from fsd_tune.settings.domains import Choice, Range
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import USES_FEATURES, USES_MEMORY, USES_TEACHER
from fsd_tune.training.distiller import Distiller

# The fraction of a GPU's memory that trials may fill together, because the allocator does not count all used memory.
_USABLE = 0.9
# Memory of a CUDA context with its kernels, once per process.
_CONTEXT_BYTES = 700 << 20
# The number of students assumed to keep a GPU busy. It is not measured: `make bench BENCH="--device cuda"` prints
# trials per hour for 1, 2, 4 and 8.
MOST = 4
_STEPS = 3
# From this batch size the B x B x B numbers of rkd_angle outweigh a student memory of BERT-base size.
_CUBIC = 256


def largest_configuration(settings: Settings) -> dict[str, Any]:
    """Return the configuration that needs most memory: the method with the most terms and the largest batch.

    Args:
        settings: the settings of the search.
    """
    values: dict[str, Any] = {}
    for name, entry in settings.space.items():
        if isinstance(entry, Range):
            values[name] = entry.high if name == "batch_size" else entry.low
        elif isinstance(entry, Choice):
            values[name] = max(entry.choice) if name == "batch_size" else entry.choice[0]
    costs = {
        method: sum(method in group for group in (USES_TEACHER, USES_FEATURES, USES_MEMORY))
        for method in settings.methods
    }
    if "rkd_angle" in costs and resolve(settings, values | {"method": "rkd_angle"})["batch_size"] >= _CUBIC:
        costs["rkd_angle"] = max(costs.values()) + 1
    return resolve(settings, {"method": max(costs, key=lambda method: costs[method])} | values)


def measure_peak(distiller: Distiller) -> int:
    """Train a few steps on the longest examples and return the peak of the allocator's GPU memory in bytes.

    Args:
        distiller: a distiller on a GPU, with the configuration to measure.
    """
    lengths = distiller.setup.train.lengths
    longest = np.argsort(-lengths, kind="stable")[: distiller.setup.config["batch_size"]]
    distiller.model.train()
    torch.cuda.reset_peak_memory_stats(distiller.setup.device)
    for _ in range(_STEPS):
        distiller.train_on(longest)
    torch.cuda.synchronize(distiller.setup.device)
    return int(torch.cuda.max_memory_reserved(distiller.setup.device))


def gpu_share(peak_bytes: int, total_bytes: int) -> float:
    """Return the fraction of a GPU that a trial requests: 1/n for the n trials that fit, at most `MOST`.

    Args:
        peak_bytes: the peak GPU memory of a trial.
        total_bytes: the memory of the GPU.

    Raises:
        FsdTuneError: not even one trial fits.
    """
    fitting = int(_USABLE * total_bytes // (peak_bytes + _CONTEXT_BYTES))
    if fitting < 1:
        raise FsdTuneError(
            f"A trial takes {peak_bytes / 1e9:.1f} GB of GPU memory, but the GPU has {total_bytes / 1e9:.1f} GB.",
            hint="Lower batch_size, data.max_length or student.layers, or raise gradient_accumulation.",
        )
    return 1 / min(fitting, MOST)
