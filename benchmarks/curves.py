"""Real learning curves to replay searches on: 100 configurations trained and evaluated with six seeds, numbers only.

    python -m benchmarks.curves record --folder bench --workers 2    # what `curve_runs.jsonl` lacks; resumable
    python -m benchmarks.curves pack --folder bench                  # writes benchmarks/curves.npz

The task is the demo's (movie-review sentences, the packaged MiniLM) with a smaller student and a dev split of 1,500.
A run is a function of its configuration and seed alone, so how many workers record and how often they are stopped
changes nothing. Give `record` again to go on. Seeds whose runs are all in `curve_runs.jsonl` are not recorded again, so
all runs of a seed have one device, one precision and one teacher; others may have those of another machine.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from benchmarks import pool
from fsd_tune.data import demo_input
from fsd_tune.data.batching import tokenize
from fsd_tune.data.splits import get_task
from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.models.loading import load_tokenizer, quiet_transformers, read_model_info
from fsd_tune.progress import Display
from fsd_tune.settings import loader
from fsd_tune.settings.configuration import resolve
from fsd_tune.training.distiller import Distiller
from fsd_tune.training.factory import DistillerFactory
from fsd_tune.training.inputs import Inputs, load_train_and_dev
from fsd_tune.training.teacher import TeacherConfig, fine_tune

RUNS = "curves.jsonl"
RECORDED = Path(__file__).parent / "curve_runs.jsonl"
PACKED = Path(__file__).parent / "curves.npz"
TABLE = "demo_sst2"
# Searched ranges; all but alpha are logarithmic.
RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (2.5e-4, 4e-3),
    "alpha": (0.2, 0.8),
    "temperature": (2.0, 8.0),
    "beta": (0.03, 10.0),
    "gamma_g": (0.1, 1.0),
}
CONFIGURATIONS = 100
SEEDS = (0, 1, 2, 3, 4, 5)
REPORTS = 5
TRAIN, DEV, MAX_LENGTH = 1500, 1500, 24
FLAGS = {
    "method": "fsd_ilg",
    "student-layers": "2",
    "student-freeze-embeddings": "true",
    "data-max-length": str(MAX_LENGTH),
    "data-train-limit": "640",
    "memory-centroids": "50",
    "batch-size": "16",
    "epochs": "2",
    "gamma-i": "1",
    "gamma-l": "1",
    "gamma-m": "0.5",
    "precision": "auto",
}
_TEACHER = {
    "learning_rate": 1e-4, "epochs": 2, "batch_size": 16, "warmup_ratio": 0.1, "weight_decay": 0.0,
    "gradient_accumulation": 1,
}  # fmt: skip


def points() -> NDArray[np.float64]:
    """Return the configurations scaled to 0..1, float [configurations, ranges]: the first of a Sobol sequence."""
    drawn = qmc.Sobol(len(RANGES), seed=0).random(2 ** math.ceil(math.log2(CONFIGURATIONS)))[:CONFIGURATIONS]
    return np.asarray(drawn, dtype=float)


def configurations() -> list[dict[str, float]]:
    """Return the configurations in the order of `points`."""
    rows = []
    for point in points():
        row = {}
        for (name, (low, high)), place in zip(RANGES.items(), point, strict=True):
            row[name] = float(low + place * (high - low) if name == "alpha" else low * (high / low) ** place)
        rows.append(row)
    return rows


@dataclass(frozen=True)
class Curve:
    """One recorded run: dev accuracy and seconds after each report."""

    index: int
    seed: int
    accuracy: list[float]
    seconds: list[float]


def bench(folder: Path, device: str) -> DistillerFactory:
    """The task, teacher and memory, made on the first call."""
    quiet_transformers()
    display = Display(quiet=True)
    found = demo_input.fetch_demo_input(folder / "input", train=TRAIN, dev=DEV)
    teacher = folder / "teacher"
    if not (teacher / "fsd_tune.json").is_file():
        run = TeacherConfig(
            str(found.model), "sst2", found.data, teacher, _TEACHER, MAX_LENGTH, True, 0, 2, device, "auto"
        )  # fmt: skip
        print(f"teacher: {fine_tune(run, True, display)['score']:.4f}", flush=True)
    given = FLAGS | {name.replace("_", "-"): str(low) for name, (low, _) in RANGES.items()}
    settings = loader.load(None, loader.parse_flags([f"--{k}={v}" for k, v in given.items()]))
    splits, tokenizer = load_train_and_dev(get_task("sst2"), found.data), load_tokenizer(str(teacher))
    train = tokenize(splits["train"], tokenizer, MAX_LENGTH, settings.data.train_limit)
    dev = tokenize(splits["dev"], tokenizer, MAX_LENGTH)
    inputs = Inputs(get_task("sst2"), read_model_info(str(teacher)), train, dev, None, ())
    spec = MemorySpec.from_inputs(settings, inputs, folder / "memory", device)
    return DistillerFactory(settings, spec, open_arrays(build_artifacts(spec, lambda *_: None), mapped=True))


def one(workbench: DistillerFactory, index: int, seed: int) -> Curve:
    """Train and evaluate one configuration."""
    config = resolve(workbench.settings, configurations()[index])
    run: Distiller = workbench.distiller(config, REPORTS, seed)
    accuracy, seconds = [], []
    while not run.done:
        row = run.train_to_next_evaluation()
        accuracy.append(float("nan") if "diverged" in row else float(row["accuracy"]))
        seconds.append(round(row["train_seconds"] + row["evaluation_seconds"], 3))
        if "diverged" in row:
            break
    return Curve(index, seed, accuracy, seconds)


def job(index: int, seed: int) -> pool.Job:
    """Return a run as `pool.Pool.finish` takes it.

    Args:
        index: of its configuration.
        seed: one of `SEEDS`.
    """
    return {"index": index, "seed": seed}


def jobs() -> list[pool.Job]:
    """Return all runs, seed by seed, so that what is there early is a whole table."""
    return [job(index, seed) for seed in SEEDS for index in range(CONFIGURATIONS)]


_BENCHES: dict[tuple[Path, str], DistillerFactory] = {}


def work(job: pool.Job, folder: Path, device: str) -> dict[str, Any]:
    """Return a run's curve as plain values.

    Args:
        job: of `job`.
        folder: of input, teacher and memory.
        device: cpu or cuda.
    """
    if (folder, device) not in _BENCHES:
        _BENCHES[folder, device] = bench(folder, device)
    return vars(one(_BENCHES[folder, device], **job))


def recorded() -> dict[str, Any]:
    """Return the results of the recorded seeds that are whole, as `pool.results_in` does."""
    found = pool.results_in(RECORDED)
    whole = [seed for seed in SEEDS if all(pool.key(job(index, seed)) in found for index in range(CONFIGURATIONS))]
    return {name: result for name, result in found.items() if result["seed"] in whole}


def record(folder: Path, workers: int, device: str) -> None:
    """Record what is missing with so many processes of one thread each.

    Args:
        folder: of input, teacher, memory and recorded runs.
        workers: number of processes.
        device: cpu or cuda.
    """
    known = recorded()
    if all(pool.key(each) in known for each in jobs()):
        print(f"{RECORDED} has all runs")
        return
    bench(folder, device)
    with pool.Pool(workers) as processes:
        processes.finish(folder / RUNS, jobs(), partial(work, folder=folder, device=device), known)


def pack(folder: Path) -> None:
    """Write the table that the replays read; every run must be there."""
    found = pool.results_in(folder / RUNS) | recorded()
    missing = sum(pool.key(each) not in found for each in jobs())
    if missing:
        sys.exit(f"{missing} of {len(jobs())} runs are missing; record them first")
    curves = np.full((len(SEEDS), CONFIGURATIONS, REPORTS), np.nan, dtype=np.float32)
    for place, seed in enumerate(SEEDS):
        for index in range(CONFIGURATIONS):
            values = found[pool.key(job(index, seed))]["accuracy"]
            curves[place, index, : len(values)] = values
    last = curves[:, :, -1]
    worth = np.where(np.isnan(last), np.nanmin(curves), last).mean(axis=0)
    about = {
        "ranges": RANGES,
        "fixed": FLAGS,
        "seeds": SEEDS,
        "seconds": sum(row["seconds"][-1] for row in found.values()),
    }
    arrays = {"U": points(), "curves": curves, "worth": worth, "about": np.asarray(json.dumps(about))}
    np.savez_compressed(PACKED, allow_pickle=False, **{f"{TABLE}/{name}": array for name, array in arrays.items()})
    print(f"{PACKED}: {PACKED.stat().st_size / 1e3:.1f} kB")


def main() -> None:
    """Record or pack."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("what", choices=("record", "pack"))
    parser.add_argument("--folder", type=Path, default=Path("bench"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args()
    if given.what == "record":
        record(given.folder, given.workers, given.device)
    else:
        pack(given.folder)


if __name__ == "__main__":
    main()
