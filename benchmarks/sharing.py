"""Steps a second of 1, 2, 4 or 8 runs that share one GPU: what `gpu_packing.MOST` should be. Needs `--device cuda`."""

import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from typing import Any

import torch

from benchmarks import setting as settings
from benchmarks.setting import Setting

SHARING = (1, 2, 4, 8)
# Steps of a trial for the figure of trials an hour: three epochs of 67,349 sentences (SST-2) in batches of 32.
_TRIAL_STEPS = 3 * 67349 // 32
_SECONDS = 6.0
_WARM_UP = 10


def _count(setting: Setting, method: str, barrier: Barrier, queue: Any) -> None:
    """Train for some seconds at the same time as the other processes, and report the steps a second."""
    torch.set_num_threads(1)
    _, _, bench = settings.artefacts(setting, method, "bf16")
    run = settings.distiller(bench)
    for _ in range(_WARM_UP):
        run.train_step()
    torch.cuda.synchronize()
    barrier.wait(timeout=300)
    begun, steps = time.perf_counter(), 0
    while time.perf_counter() - begun < _SECONDS:
        run.train_step()
        steps += 1
        if steps % 8 == 0:
            # As at a report: else the host would queue steps that are not done when the time is over.
            torch.cuda.synchronize()
    torch.cuda.synchronize()
    queue.put((steps / (time.perf_counter() - begun), torch.cuda.max_memory_reserved()))


def trials_an_hour(setting: Setting, method: str = "fsd_ilg") -> list[dict[str, object]]:
    """Return a row for each number of runs that share the GPU."""
    settings.artefacts(setting, method, "bf16")
    context = multiprocessing.get_context("spawn")
    rows: list[dict[str, object]] = []
    for sharing in SHARING:
        barrier, queue = context.Barrier(sharing), context.Queue()
        processes = [context.Process(target=_count, args=(setting, method, barrier, queue)) for _ in range(sharing)]
        for process in processes:
            process.start()
        found = [queue.get(timeout=400) for _ in processes]
        for process in processes:
            process.join()
        steps = sum(rate for rate, _ in found)
        trials = 3600 * steps / _TRIAL_STEPS
        rows.append(
            {
                "figure": f"trials an hour, {sharing} sharing the GPU",
                "value": trials,
                "low": trials,
                "high": trials,
                "goal": "reported",
                "met": None,
                "note": f"{steps:.1f} steps/s, {found[0][1] / 1e9:.2f} GB each; a trial of {_TRIAL_STEPS} steps",
            }
        )
    return rows
