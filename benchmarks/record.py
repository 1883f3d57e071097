"""`make bench-glue`: students on official GLUE tasks, each method from pretrained layers and from the teacher's.

For each task a teacher is fine-tuned with some learning rates, and the best one on dev is kept. Each system, which is a
method with a start, gets the same number of configurations: its defaults, and points of a Sobol sequence in the ranges
of its shipped space. The best one on a tenth of the training split, which no system trains on, is trained on fresh
seeds and scored on dev after each epoch. Each run is a line of a file, so the command continues where it was stopped.

`--recorded` shows the table of the runs that come with the project, without training: of the systems and seeds that are
complete. Other commands of the same size reuse the recorded scores; of the teachers they train the best one alone.
"""

import argparse
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from itertools import count, product, takewhile
from pathlib import Path
from typing import Any

from scipy.stats import qmc

import fsd_tune as fsd
from benchmarks import command, pool, record_table
from fsd_tune.data import demo_input
from fsd_tune.data.splits import get_task
from fsd_tune.errors import InputError
from fsd_tune.memory.arrays import Arrays, open_arrays
from fsd_tune.memory.build import build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.models.loading import quiet_transformers
from fsd_tune.settings import loader
from fsd_tune.settings.configuration import resolve
from fsd_tune.settings.domains import Range
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.shipped import shipped_space
from fsd_tune.training.factory import DistillerFactory
from fsd_tune.training.inputs import Inputs, load_inputs

# The folder of each task, and the share of its training split that is used: one line in so many.
TASKS = {"stsb": ("STS-B", 1), "mrpc": ("MRPC", 1), "rte": ("RTE", 1), "sst2": ("SST-2", 10)}
METHODS = ("ce", "kd", "fsd_il", "fsd_ilg", "gram", "procrustes")
STARTS = ("copy", "teacher")
TEACHER_RATES = (2e-5, 5e-5, 1e-4, 2e-4)
TEACHER_EPOCHS = 3
HOLDOUT = 0.1
# In the place of the shipped ranges, which are for BERT-base.
LEARNING_RATES = Range(low=5e-5, high=1e-3, log=True)
DEFAULT_RATE = 2e-4
# Runs of `EPOCHS` epochs over whole training splits.
RECORDED = Path(__file__).parent / "glue_runs.jsonl"
EPOCHS = 3


def main() -> None:
    """Make the missing runs of the chosen tasks, and write and print their tables."""
    parser = argparse.ArgumentParser(prog="make bench-glue", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where input, teachers and scores lie")
    parser.add_argument("--glue", type=Path, help="a folder in GLUE's layout; needed unless --recorded is given")
    parser.add_argument("--recorded", action="store_true", help="show the runs that come with the project")
    parser.add_argument("--tasks", help=f"some of {','.join(TASKS)}; default: all, or those that are recorded")
    parser.add_argument("--methods", help=f"some of {','.join(METHODS)}; default: all, or those that are recorded")
    parser.add_argument("--trials", type=int, default=8, help="configurations of each system")
    parser.add_argument("--seeds", type=int, default=6, help="fresh seeds of each winner, at least two")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of students")
    parser.add_argument("--one-in", type=int, default=1, help="use one training example in so many, for a trial run")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, default=2, help="runs at the same time, of one thread each")
    given = parser.parse_args()
    recorded = pool.results_in(RECORDED) if (given.epochs, given.one_in) == (EPOCHS, 1) else {}
    fresh = [job for job in map(json.loads, recorded) if job["kind"] == "dev"] if given.recorded else []
    tasks, methods = (
        chosen.split(",") if chosen else [name for name in known if not fresh or name in {job[kind] for job in fresh}]
        for chosen, known, kind in ((given.tasks, TASKS, "task"), (given.methods, METHODS, "method"))
    )
    for flag, names, known in (("--tasks", tasks, tuple(TASKS)), ("--methods", methods, METHODS)):
        if not set(names) <= set(known):
            raise InputError(f"{flag}: found {','.join(names)}, but must be some of {','.join(known)}.")
    if given.recorded:
        given.seeds = complete_seeds(fresh, tasks, methods)
        rows = measure(tasks, methods, given, lambda jobs: {pool.key(job): recorded[pool.key(job)] for job in jobs})
        folder_of(given).mkdir(parents=True, exist_ok=True)
    else:
        if given.glue is None:
            raise InputError("--glue: is missing: give a folder in GLUE's layout, or --recorded.")
        demo_input.fetch_demo_input(given.folder / "input")
        for task in tasks:
            write_data(given, task)
        file, work = folder_of(given) / "runs.jsonl", partial(run, given=given)
        with pool.Pool(given.workers) as processes:
            scores = {name: result for name, result in recorded.items() if json.loads(name)["kind"] != "memory"}
            rows = measure(tasks, methods, given, lambda jobs: processes.finish(file, jobs, work, scores))
    about = {name: getattr(given, name) for name in ("trials", "seeds", "epochs", "one_in")}
    text = json.dumps({"about": about, "rows": rows}, indent=1)
    (folder_of(given) / "record.json").write_text(text, encoding="utf-8")
    record_table.show(rows, folder_of(given))


def complete_seeds(fresh: Sequence[pool.Job], tasks: Sequence[str], methods: Sequence[str]) -> int:
    """Return up to which seed all systems were scored on dev.

    Args:
        fresh: jobs of `seed_job` that have a result.
        tasks: keys of `TASKS`.
        methods: some of `METHODS`.

    Raises:
        InputError: a system has fewer than two seeds.
    """
    made = {(job["task"], job["method"], job["start"], job["seed"]) for job in fresh}
    seeds = takewhile(lambda seed: set(product(tasks, methods, STARTS, (seed,))) <= made, count(1))
    complete = len(list(seeds))
    if complete < 2:
        raise InputError("--recorded: some of these tasks and methods were not recorded on two seeds.")
    return complete


def measure(
    tasks: Sequence[str],
    methods: Sequence[str],
    given: argparse.Namespace,
    finish: Callable[[Sequence[pool.Job]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return a row for each system: its teacher, tuned configuration and curves on dev.

    Args:
        tasks: keys of `TASKS`.
        methods: some of `METHODS`.
        given: the arguments of the command.
        finish: makes runs, and returns their results by `pool.key`.
    """
    made = finish([teacher_job(task, rate) for task in tasks for rate in TEACHER_RATES])
    rates = {
        task: max(TEACHER_RATES, key=lambda rate, task=task: made[pool.key(teacher_job(task, rate))])  # type: ignore[misc]
        for task in tasks
    }
    finish([teacher_job(task, rates[task], "memory") for task in tasks])
    systems = list(product(tasks, methods, STARTS))
    tuned = finish([job for system in systems for job in trial_jobs(*system, rates[system[0]], given.trials)])
    best = {}
    for system in systems:
        jobs = list(trial_jobs(*system, rates[system[0]], given.trials))
        best[system] = max(jobs, key=lambda job: last_score(tuned[pool.key(job)]))
    # Seed by seed, so that a stopped measurement has whole seeds of all systems.
    fresh = [seed_job(best[system], seed) for seed in range(1, given.seeds + 1) for system in systems]
    scored = finish(fresh)
    rows = []
    for system in systems:
        curves = [scored[pool.key(seed_job(best[system], seed))] for seed in range(1, given.seeds + 1)]
        rows.append(
            {
                "task": system[0],
                "metric": get_task(system[0]).metric,
                "method": system[1],
                "start": system[2],
                "teacher": 100 * made[pool.key(teacher_job(system[0], rates[system[0]]))],
                "teacher_rate": rates[system[0]],
                "config": best[system]["config"],
                "holdout": 100 * last_score(tuned[pool.key(best[system])]),
                "dev": [[100 * value for value in curve] for curve in curves],
            }
        )
    return rows


def folder_of(given: argparse.Namespace) -> Path:
    """Return the folder of all runs of one size.

    Args:
        given: the arguments of the command.
    """
    folder: Path = given.folder / "glue" / f"{given.epochs}-epochs-one-in-{given.one_in}"
    return folder


def write_data(given: argparse.Namespace, task: str) -> None:
    """Write the part of a task's training split that is used, and its dev split, below `folder_of`.

    Args:
        given: the arguments of the command.
        task: a key of `TASKS`.
    """
    name, one_in = TASKS[task]
    target = folder_of(given) / "data" / name
    if not target.exists():
        shutil.copytree(given.glue / name, target)
        for path in target.glob("*train*"):
            # As bytes: the sentences hold characters that end a line of text.
            header, *lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join([header, *lines[:: one_in * given.one_in]]))


def teacher_job(task: str, rate: float, kind: str = "teacher") -> pool.Job:
    """Return the job of a teacher.

    Args:
        task: a key of `TASKS`.
        rate: its learning rate.
        kind: `teacher` to fine-tune it; `memory` to store its outputs and memory before the runs that share them.
    """
    return {"kind": kind, "task": task, "rate": rate}


def trial_jobs(task: str, method: str, start: str, rate: float, trials: int) -> Iterator[pool.Job]:
    """Yield the jobs that tune a system, all with seed 0.

    Args:
        task: a key of `TASKS`.
        method: one of `METHODS`.
        start: one of `STARTS`.
        rate: the learning rate of the task's teacher.
        trials: number of configurations.
    """
    for config in configurations(method, trials):
        yield {
            "kind": "trial", "task": task, "method": method, "start": start, "rate": rate, "config": config, "seed": 0,
        }  # fmt: skip


def seed_job(best: pool.Job, seed: int) -> pool.Job:
    """Return the job of a winner on a fresh seed, which is scored on dev.

    Args:
        best: its job of `trial_jobs`.
        seed: the seed, above 0.
    """
    return best | {"kind": "dev", "seed": seed}


def last_score(curve: Sequence[float]) -> float:
    """Return the last value of a curve; minus infinity for a run that diverged.

    Args:
        curve: a score for each epoch, NaN after a divergence.
    """
    return curve[-1] if math.isfinite(curve[-1]) else -math.inf


def configurations(method: str, count: int) -> list[dict[str, float]]:
    """Return the searched values of each configuration of a method.

    Learning rate, alpha and temperature are the same for all methods that have them.

    Args:
        method: one of `METHODS`.
        count: number of configurations.
    """
    ranges = searched_ranges(method)
    first = {name: resolve(_settings(method, "copy"))[name] for name in ranges}
    drawn = qmc.Sobol(8, seed=0).random(2 ** math.ceil(math.log2(max(count, 2))))
    rows: list[dict[str, float]] = [first]
    for point in drawn[: count - 1]:
        row = {}
        for (name, entry), place in zip(ranges.items(), point, strict=False):
            low, high = entry.low, entry.high
            value = low * (high / low) ** place if entry.log else low + place * (high - low)
            row[name] = float(f"{value:.4g}")
        rows.append(row)
    return rows


def searched_ranges(method: str) -> dict[str, Range]:
    """Return the searched ranges of a method: `LEARNING_RATES`, and those of its shipped space.

    Args:
        method: one of `METHODS`.
    """
    ranges = {"learning_rate": LEARNING_RATES}
    if method == "ce":
        return ranges
    space = loader.load(shipped_space(method)).space
    found = {name: entry for name, entry in space.items() if isinstance(entry, Range) and name != "learning_rate"}
    common = {name: found.pop(name) for name in ("alpha", "temperature")}
    return ranges | common | found


def run(job: pool.Job, given: argparse.Namespace) -> Any:
    """Make a run.

    Args:
        job: of `teacher_job`, `trial_jobs` or `seed_job`.
        given: the arguments of the command.

    Returns:
        The score of a teacher on dev, or the score after each epoch of a student; None for outputs and memory.
    """
    quiet_transformers()
    folder, task = folder_of(given), job["task"]
    teacher = folder / f"{task}-teacher-{job['rate']:g}"
    if job["kind"] == "teacher":
        return _train_teacher(job, teacher, given)
    on_dev = job["kind"] == "dev"
    if job["kind"] == "memory":
        # The score of a recorded teacher came without its model.
        if not (teacher / "fsd_tune.json").is_file():
            _train_teacher(job, teacher, given)
        for start in STARTS:
            _arrays(task, start, teacher, given.device)
        return None
    factory = _factory(job["method"], task, job["start"], on_dev, teacher, given.device)
    epochs = given.epochs
    config = resolve(factory.settings) | job["config"] | {"epochs": epochs}
    student = factory.distiller(config, epochs, job["seed"])
    metric, curve = student.setup.task.metric, [math.nan] * epochs
    for epoch in range(epochs):
        report = student.train_to_next_evaluation()
        if "diverged" in report:
            break
        curve[epoch] = float(report[metric])
    return curve


def _train_teacher(job: pool.Job, teacher: Path, given: argparse.Namespace) -> float:
    found = fsd.fine_tune_teacher(
        job["task"], model=given.folder / "input" / "model", output=teacher, data=folder_of(given) / "data",
        epochs=TEACHER_EPOCHS, batch_size=16, learning_rate=job["rate"], max_length=64, holdout=HOLDOUT,
        device=given.device, overwrite=True,
    )  # fmt: skip
    return float(found["score"])


def _settings(method: str, start: str) -> Settings:
    flags: dict[str, Any] = {
        "method": method,
        "precision": "float32",
        "student.layers": 3,
        "student.start": start,
        "data.max_length": 64,
        "search.select_on": {"holdout": HOLDOUT},
        "space.learning_rate": DEFAULT_RATE,
    }
    return loader.load(None, flags)


@cache
def _inputs(task: str, teacher: Path) -> Inputs:
    return load_inputs(_settings("fsd_ilg", "copy"), task, str(teacher), teacher.parent / "data")


@cache
def _arrays(task: str, start: str, teacher: Path, device: str) -> tuple[MemorySpec, Arrays]:
    """Return the teacher's outputs and memory, which all methods of a task share."""
    settings = _settings("fsd_ilg", start)
    spec = MemorySpec.from_inputs(settings, _inputs(task, teacher), teacher.parent / f"{task}-memory", device)
    return spec, open_arrays(build_artifacts(spec, lambda *_: None), mapped=True)


# Each factory keeps a copy of its task's data on a GPU.
@lru_cache(maxsize=8)
def _factory(method: str, task: str, start: str, on_dev: bool, teacher: Path, device: str) -> DistillerFactory:
    spec, arrays = _arrays(task, start, teacher, device)
    final = _inputs(task, teacher).final
    assert final is not None
    return DistillerFactory(_settings(method, start), replace(spec, dev=final) if on_dev else spec, arrays)


if __name__ == "__main__":
    command.run(main)
