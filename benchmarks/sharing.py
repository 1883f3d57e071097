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


def _count(setting: Setting, method: str, flags: dict[str, str], barrier: Barrier, queue: Any) -> None:
    """Train for some seconds at the same time as the other processes, and report the steps a second."""
    torch.set_num_threads(1)
    _, _, bench = settings.artefacts(setting, method, "bf16", **flags)
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
    rows: list[dict[str, object]] = []
    for sharing in SHARING:
        steps, reserved = _together(setting, method, {}, sharing)
        trials = 3600 * steps / _TRIAL_STEPS
        rows.append(
            {
                "figure": f"trials an hour, {sharing} sharing the GPU",
                "value": trials,
                "low": trials,
                "high": trials,
                "goal": "reported",
                "met": None,
                "note": f"{steps:.1f} steps/s, {reserved / 1e9:.2f} GB each; a trial of {_TRIAL_STEPS} steps",
            }
        )
    return rows


def deterministic(setting: Setting, rounds: int = 2) -> list[dict[str, object]]:
    """Return a row for each method: its step with `resources.deterministic` / without, in processes that take turns."""
    rows: list[dict[str, object]] = []
    for method in ("ce", "fsd_ilg"):
        pairs = [
            [_together(setting, method, {"resources_deterministic": flag}, 1)[0] for flag in ("false", "true")]
            for _ in range(rounds)
        ]
        ratios = [without / with_ for without, with_ in pairs]
        rows.append(
            {
                "figure": f"{method} step, deterministic / not",
                "value": sum(ratios) / len(ratios),
                "low": min(ratios),
                "high": max(ratios),
                "goal": "reported",
                "met": None,
                "note": ", ".join(f"{without:.1f} and {with_:.1f} steps/s" for without, with_ in pairs),
            }
        )
    return rows


def _together(setting: Setting, method: str, flags: dict[str, str], sharing: int) -> tuple[float, float]:
    """Return the steps a second of all runs that share the GPU, and the bytes that one of them reserves."""
    settings.artefacts(setting, method, "bf16")
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(sharing), context.Queue()
    processes = [context.Process(target=_count, args=(setting, method, flags, barrier, queue)) for _ in range(sharing)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=400) for _ in processes]
    for process in processes:
        process.join()
    return sum(rate for rate, _ in found), float(found[0][1])
