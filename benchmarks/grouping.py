"""`make bench-grouping`: dev scores of `data.batching: grouped` beside `random`, on the same seeds.

Grouping changes which examples meet in L_L and L_G. Each run is a line of `scores.jsonl`; a run that has one is not
made again, so the command can be stopped and repeated, with more seeds or tasks too.
"""

import argparse
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

import fsd_tune as fsd
from benchmarks import command, pool
from fsd_tune.data import demo_input
from fsd_tune.data.splits import get_task
from fsd_tune.errors import InputError
from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.report.intervals import Interval, paired
from fsd_tune.settings import loader
from fsd_tune.settings.configuration import resolve
from fsd_tune.training.factory import DistillerFactory
from fsd_tune.training.inputs import load_inputs

METHODS = ("kd", "fsd_ilg")
BATCHINGS = ("grouped", "random")
TASKS = ("demo", "cola", "rte")
# The largest loss, in points of 100, that may be the price of a faster step.
LARGEST_LOSS = 0.3
# Small students of few examples learn little at the default, which is for BERT-base.
LEARNING_RATE = 2e-4
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
    parser.add_argument("--workers", type=int, default=2, help="runs at the same time, of one thread each")
    given = parser.parse_args()
    tasks = given.tasks.split(",")
    if not set(tasks) <= set(TASKS):
        raise InputError(f"--tasks: found {given.tasks}, but must be some of {','.join(TASKS)}.")
    if given.seeds < 2:
        raise InputError(f"--seeds: found {given.seeds}, but must be at least 2.")
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
    with pool.Pool(given.workers) as processes:
        found = {name: measure(name, given, processes) for name in tasks}
    for name, (metric, scores) in found.items():
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


def measure(
    name: str, given: argparse.Namespace, processes: pool.Pool
) -> tuple[str, dict[tuple[str, str], list[float]]]:
    """Return a task's metric, and the scores of each method and batching, seed by seed, after making missing runs.

    Args:
        name: demo, cola or rte.
        given: the arguments of the command.
        processes: make the runs.
    """
    task, data = source(name, given)
    folder = folder_of(name, given)
    teacher = folder / "teacher"
    if not (teacher / "fsd_tune.json").is_file():
        model = demo_input.fetch_demo_input(given.folder / "input").model
        fsd.fine_tune_teacher(
            task, model=model, output=teacher, data=data, epochs=given.epochs, device=given.device, quiet=False
        )
    # Stored once, before the processes start.
    run_factory("fsd_ilg", "random", name, given)
    # The runs of a pair follow each other, so that a stopped measurement has whole pairs.
    jobs = [job(*setup, seed) for seed in range(given.seeds) for setup in setups()]
    made = processes.finish(folder / "scores.jsonl", jobs, partial(score, name=name, given=given))
    scores = {setup: [made[pool.key(job(*setup, seed))] for seed in range(given.seeds)] for setup in setups()}
    return get_task(task).metric, scores


def setups() -> list[tuple[str, str]]:
    """Return each method with each batching."""
    return [(method, batching) for method in METHODS for batching in BATCHINGS]


def job(method: str, batching: str, seed: int) -> pool.Job:
    """Return a run as `pool.Pool.finish` takes it.

    Args:
        method: one of `METHODS`.
        batching: one of `BATCHINGS`.
        seed: of student, batches and dropout.
    """
    return {"method": method, "batching": batching, "seed": seed}


def source(name: str, given: argparse.Namespace) -> tuple[str, Path | None]:
    """Return a task's id and the folder of its data.

    Args:
        name: demo, cola or rte.
        given: the arguments of the command.
    """
    return ("sst2", demo_input.fetch_demo_input(given.folder / "input").data) if name == "demo" else (name, given.glue)


def folder_of(name: str, given: argparse.Namespace) -> Path:
    """Return the folder of a task's teacher and scores.

    Args:
        name: demo, cola or rte.
        given: the arguments of the command.
    """
    folder: Path = given.folder / "grouping" / f"{name}-{given.epochs}-epochs-{given.limit or 'all'}"
    return folder


_FACTORIES: dict[tuple[str, str, str], DistillerFactory] = {}


def run_factory(method: str, batching: str, name: str, given: argparse.Namespace) -> DistillerFactory:
    """Return the factory of a task's runs, which a process keeps for its next ones.

    Args:
        method: one of `METHODS`.
        batching: one of `BATCHINGS`.
        name: demo, cola or rte.
        given: the arguments of the command.
    """
    if (method, batching, name) in _FACTORIES:
        return _FACTORIES[method, batching, name]
    task, data = source(name, given)
    folder = folder_of(name, given)
    flags = {"method": method, "data.batching": batching, "student.layers": 3, "space.epochs": given.epochs}
    flags["space.learning_rate"] = LEARNING_RATE
    flags |= {"data.train_limit": given.limit} if given.limit else {}
    settings = loader.load(None, flags)
    inputs = load_inputs(settings, task, str(folder / "teacher"), data)
    # Batching is no part of teacher outputs and memory, so all runs of a task share those of fsd_ilg.
    stored = loader.load(None, flags | {"method": "fsd_ilg"})
    spec = MemorySpec.from_inputs(stored, inputs, folder / "memory", given.device)
    arrays = open_arrays(build_artifacts(spec, lambda *_: None), mapped=True)
    return _FACTORIES.setdefault((method, batching, name), DistillerFactory(settings, spec, arrays))


def score(job: pool.Job, name: str, given: argparse.Namespace) -> float:
    """Return the score of a run, in points of 100.

    Args:
        job: of `job`.
        name: demo, cola or rte.
        given: the arguments of the command.
    """
    factory = run_factory(job["method"], job["batching"], name, given)
    run = factory.distiller(resolve(factory.settings), _REPORTS, job["seed"])
    metric = run.setup.task.metric
    value = 0.0
    while not run.done:
        value = float(run.train_to_next_evaluation()[metric])
    return 100 * value


if __name__ == "__main__":
    command.run(main)
