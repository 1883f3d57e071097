"""`make bench-grouping`: dev scores of `data.batching: grouped` beside `random`, on the same seeds.

Grouping changes which examples meet in L_L and L_G. Each run is a line of `scores.jsonl`; a run that has one is not
made again, so the command can be stopped and repeated, with more seeds or tasks too.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import fsd_tune as fsd
from fsd_tune.data import demo_input
from fsd_tune.data.splits import get_task
from fsd_tune.errors import InputError
from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.report.intervals import Interval, paired
from fsd_tune.settings import loader
from fsd_tune.settings.configuration import resolve
from fsd_tune.settings.judging import JUDGE_BY, judge
from fsd_tune.storage import json_file
from fsd_tune.training.factory import DistillerFactory
from fsd_tune.training.inputs import load_inputs

METHODS = ("kd", "fsd_ilg")
BATCHINGS = ("grouped", "random")
TASKS = ("demo", "cola", "rte")
# The largest loss, in points of 100, that may be the price of a faster step.
LARGEST_LOSS = 0.3
_REPORTS = 6


def main() -> None:
    """Make the missing runs, and print the differences."""
    parser = argparse.ArgumentParser(prog="make bench-grouping", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where input, teachers and scores lie")
    parser.add_argument("--glue", type=Path, help="a folder in GLUE's layout with CoLA and RTE; default: the hub")
    parser.add_argument("--tasks", default=",".join(TASKS), help="some of demo,cola,rte")
    parser.add_argument("--seeds", type=int, default=10, help="seeds of each task and method, at least two")
    parser.add_argument("--epochs", type=int, default=3, help="of teachers and students")
    parser.add_argument("--limit", type=int, help="training examples; default: all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of torch; default: all cores")
    given = parser.parse_args()
    tasks = given.tasks.split(",")
    if not set(tasks) <= set(TASKS):
        raise InputError(f"--tasks: found {given.tasks}, but must be some of {','.join(TASKS)}.")
    if given.seeds < 2:
        raise InputError(f"--seeds: found {given.seeds}, but must be at least 2.")
    if given.threads:
        torch.set_num_threads(given.threads)
    console = Console(width=140)
    results = Table(title=f"{given.seeds} paired seeds, {given.epochs} epochs, 95% intervals, points of 100")
    for column in (
        "task",
        "metric",
        "method",
        "random",
        "grouped",
        "grouped - random",
        f"no loss above {LARGEST_LOSS}",
    ):
        results.add_column(column)
    for name in tasks:
        metric, scores = measure(name, given)
        for method in METHODS:
            grouped, random = (scores[method, batching] for batching in BATCHINGS)
            difference = paired(grouped, random)
            results.add_row(
                name, metric, method, f"{sum(random) / len(random):.2f}", f"{sum(grouped) / len(grouped):.2f}",
                f"{difference.estimate:+.2f} ({difference.low:+.2f} to {difference.high:+.2f})", verdict(difference),
            )  # fmt: skip
    console.print(results)


def verdict(difference: Interval) -> str:
    """Return whether the interval of grouped - random, in points, excludes a loss above the largest accepted one.

    Args:
        difference: the interval.
    """
    if difference.low >= -LARGEST_LOSS:
        return "yes"
    return "NO" if difference.high < -LARGEST_LOSS else "open"


def measure(name: str, given: argparse.Namespace) -> tuple[str, dict[tuple[str, str], list[float]]]:
    """Return a task's metric, and the scores of each method and batching, seed by seed, after making missing runs.

    Args:
        name: demo, cola or rte.
        given: the arguments of the command.
    """
    found = demo_input.fetch_demo_input(given.folder / "input")
    task, data = ("sst2", found.data) if name == "demo" else (name, given.glue)
    sizes = f"{given.epochs}-epochs-{given.limit or 'all'}"
    folder = given.folder / "grouping" / f"{name}-{sizes}"
    teacher = folder / "teacher"
    if not (teacher / "fsd_tune.json").is_file():
        fsd.fine_tune_teacher(
            task, model=found.model, output=teacher, data=data, epochs=given.epochs, device=given.device, quiet=False
        )
    file = folder / "scores.jsonl"
    made = scores_in(file)
    arrays: Any = None
    for seed in range(given.seeds):
        # The runs of a pair follow each other, so that a stopped measurement has whole pairs.
        for method in METHODS:
            for batching in BATCHINGS:
                if (method, batching, seed) in made:
                    continue
                factory = _factory(method, batching, task, data, teacher, folder, given)
                arrays = arrays or open_arrays(build_artifacts(factory.spec, lambda *_: None), mapped=True)
                factory.arrays = arrays
                score = _score(factory, seed)
                made[method, batching, seed] = score
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(
                        json.dumps({"method": method, "batching": batching, "seed": seed, "score": score}) + "\n"
                    )
                print(f"  {name} {method} {batching} seed {seed}: {score:.2f}", flush=True)
    scores = {
        (method, batching): [made[method, batching, seed] for seed in range(given.seeds)]
        for method in METHODS
        for batching in BATCHINGS
    }
    return get_task(task).metric, scores


def scores_in(file: Path) -> dict[tuple[str, str, int], float]:
    """Return the scores of earlier runs by method, batching and seed. A line that was cut off is left out.

    Args:
        file: `scores.jsonl`, which may be missing.
    """
    if not file.exists():
        return {}
    rows = [row for _, row in json_file.read_rows(file) if row is not None]
    return {(row["method"], row["batching"], row["seed"]): row["score"] for row in rows}


def _factory(
    method: str,
    batching: str,
    task: str,
    data: Path | None,
    teacher: Path,
    folder: Path,
    given: argparse.Namespace,
) -> DistillerFactory:
    flags = {"method": method, "data.batching": batching, "student.layers": 3, "space.epochs": given.epochs}
    flags |= {"data.train_limit": given.limit} if given.limit else {}
    settings = loader.load(None, flags)
    inputs = load_inputs(settings, task, str(teacher), data)
    # Batching is no part of teacher outputs and memory, so all runs of a task share those of fsd_ilg.
    stored = loader.load(None, flags | {"method": "fsd_ilg"})
    return DistillerFactory(settings, MemorySpec.from_inputs(stored, inputs, folder / "memory", given.device), None)


def _score(factory: DistillerFactory, seed: int) -> float:
    """Return the score of a run, in points of 100."""
    run = factory.distiller(resolve(factory.settings), _REPORTS, seed)
    metric = run.setup.task.metric
    values = []
    while not run.done:
        values.append(float(run.train_to_next_evaluation()[metric]))
    return 100 * judge(values, JUDGE_BY)


if __name__ == "__main__":
    main()
