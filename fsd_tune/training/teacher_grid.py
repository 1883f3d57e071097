"""Train teachers with several learning rates and seeds side by side on Ray, and keep the best on dev.

A candidate is the same teacher that `teacher.fine_tune` trains with its learning rate and seed. The records of
finished candidates lie in `<output>.candidates/`, with the folder of the best one so far, so that the same command
continues the grid.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fsd_tune import device
from fsd_tune.cluster import destination
from fsd_tune.errors import FsdTuneError, ProblemCollector
from fsd_tune.memory.spec import fingerprint
from fsd_tune.progress import Display, duration
from fsd_tune.settings.wandb_section import Wandb
from fsd_tune.storage import artifacts, files, json_file
from fsd_tune.storage.artifacts import digest, write_json
from fsd_tune.storage.uri import local_path
from fsd_tune.tracking.tracker import Tracker
from fsd_tune.training.teacher import TeacherConfig, load_teacher_inputs
from fsd_tune.training.teacher_workers import Trained, Workers
from fsd_tune.training.unfinished import unfinished_folder

# Every folder of candidates contains this file.
_MARK = "grid.json"


@dataclass(frozen=True)
class Candidate:
    """A teacher of the grid.

    Attributes:
        name: identifies everything that it depends on; its files have this name.
        run: the settings of its training; its output lies in the folder of candidates.
    """

    name: str
    run: TeacherConfig

    @property
    def label(self) -> str:
        """The candidate's learning rate and seed in words."""
        return f"learning rate {self.run.config['learning_rate']:g}, seed {self.run.seed}"


def train(
    run: TeacherConfig,
    rates: Sequence[float],
    seeds: Sequence[int],
    *,
    cpus: float,
    gpus: float | None,
    overwrite: bool,
    address: str | None,
    ray_temporary: Path | None,
    display: Display,
) -> dict[str, Any]:
    """Train the missing candidates of the grid and write the best one's folder to `run.output`.

    Args:
        run: what the candidates have in common; its learning rate and seed are not used.
        rates: learning rates; every pair of a rate and a seed is a candidate.
        seeds: seeds.
        cpus: CPUs of a candidate.
        gpus: GPUs of a candidate; None takes one if there is any, unless the device is cpu.
        overwrite: replace a teacher in the output folder.
        address: of a Ray cluster, as for `connection.connect`.
        ray_temporary: folder of Ray's own files, as for `connection.connect`.
        display: shows progress.

    Returns:
        The contents of `fsd_tune.json`: the record of the best candidate, and `grid`, a row for each candidate with
        learning_rate, seed, score, seconds, state (finished or failed) and reason. The first of equal scores wins.

    Raises:
        InputError: with every problem of the inputs, or there are fewer resources than requested.
        FsdTuneError: every candidate has failed.
    """
    output = files.real_path(run.output)
    store = output.parent / f"{output.name}.candidates"
    problems = ProblemCollector()
    if store.exists() and not (store / _MARK).is_file():
        problems.add(f"--output: candidates would be kept in {store}, which holds something else; move it away.")
    with problems.collect():
        destination.check(address, ray_temporary)
    with problems.collect():
        inputs = load_teacher_inputs(run, overwrite)
    problems.raise_any()
    if gpus is None:
        gpus = 0 if run.device == "cpu" else float(device.select_device(run.device).type == "cuda")
    data = [[split.first, split.second, split.labels] for split in inputs.splits.values()]
    shared = replace(
        run, wandb=Wandb(), model=_absolute(run.model), data=None if run.data is None else run.data.absolute()
    )
    parts = (part for split in data for part in split)
    facts = [fingerprint(shared.model), run.task, inputs.holdout_record, cpus, *parts]
    candidates = [_candidate(shared, rate, seed, store.absolute(), facts) for rate in rates for seed in seeds]
    del inputs, data

    write_json(store / _MARK, {"output": str(run.output), "candidates": [candidate.name for candidate in candidates]})
    records = {
        candidate.name: record for candidate in candidates if (record := _read_record(store, candidate)) is not None
    }
    failed: dict[str, str] = {}
    best = _best(candidates, records)
    if best is not None and not (store / best.name / artifacts.MODEL_RECORD).is_file():
        del records[best.name]  # Only its record is left, so it is trained again.
    finished = f", {len(records)} of them there already" if records else ""
    display.line(f"teachers: {len(rates)} learning rates x {len(seeds)} seeds, {len(candidates)} candidates{finished}")
    missing = [candidate for candidate in candidates if candidate.name not in records]
    tracker = Tracker(run.wandb, output.parent, f"{output.name}-candidates", display.line)
    try:
        if missing:
            with Workers(cpus, gpus, len(missing), address, ray_temporary) as workers:
                workers.require(store, [shared.model, *([] if shared.data is None else [str(shared.data)])])
                runs = {candidate.name: candidate.run for candidate in missing}
                for trained in workers.train(runs, display, len(records)):
                    candidate = next(candidate for candidate in missing if candidate.name == trained.name)
                    _record_candidate(store, candidate, trained, records, failed, candidates)
                    _show(candidate, trained, display, tracker)
    finally:
        display.close()
        tracker.close()
        if not records and not any(unfinished_folder(candidate.run.output).exists() for candidate in candidates):
            _remove_files(store, candidates)
    best = _best(candidates, records)
    if best is None:
        reasons = [f"{candidate.label}: {failed[candidate.name]}" for candidate in candidates]
        raise FsdTuneError(f"all {len(candidates)} candidates. " + " ".join(reasons))
    if not (store / best.name / artifacts.MODEL_RECORD).is_file():
        raise FsdTuneError(f"{best.label} is the best, but its folder is gone: the same command trains it again.")
    rows = [_row(candidate, records.get(candidate.name), failed) for candidate in candidates]
    record = records[best.name] | {"grid": rows}
    _move_to_output(store, best, record, output, candidates)
    return record


def grid_lines(record: dict[str, Any]) -> list[str]:
    """Return a grid's scores as the lines of a table.

    Args:
        record: the record of the best teacher, `fsd_tune.json`, with its `metric`, `grid`, `config` and `seed`.
    """
    width = max(len(record["metric"]), 6)
    table = [f"  learning rate  seed  {record['metric']:>{width}}      time"]
    for row in record["grid"]:
        chosen = (row["learning_rate"], row["seed"]) == (record["config"]["learning_rate"], record["seed"])
        start = f"  {row['learning_rate']:>13g}  {row['seed']:>4}  "
        if row["state"] == "failed":
            table.append(f"{start}{'failed':>{width}}  {row['reason']}")
        else:
            end = "  <- best" if chosen else ""
            table.append(f"{start}{row['score']:>{width}.4f}  {duration(row['seconds']):>8}{end}")
    return table


def _absolute(model: str) -> str:
    folder = local_path(model)
    return str(folder.resolve()) if folder.is_dir() else model


def _candidate(run: TeacherConfig, rate: float, seed: int, store: Path, facts: Sequence[Any]) -> Candidate:
    config = dict(run.config) | {"learning_rate": rate}
    common = [run.max_length, run.freeze_embeddings, run.reports, run.holdout, run.device, run.precision]
    name = f"lr{rate:g}-seed{seed}-{digest(config, seed, common, *facts)}"
    return Candidate(name, replace(run, config=config, seed=seed, output=store / name))


def _read_record(store: Path, candidate: Candidate) -> dict[str, Any] | None:
    """Return the record of a finished candidate; the best one's folder has a copy."""
    for path in (store / f"{candidate.name}.json", store / candidate.name / artifacts.MODEL_RECORD):
        try:
            record = json_file.read_mapping(path)
        except (OSError, ValueError):
            continue
        if isinstance(record.get("score"), float) and record.get("reports"):
            return record
    return None


def _best(candidates: Sequence[Candidate], records: dict[str, dict[str, Any]]) -> Candidate | None:
    finished = [candidate for candidate in candidates if candidate.name in records]
    return max(finished, key=lambda candidate: float(records[candidate.name]["score"]), default=None)


def _record_candidate(
    store: Path,
    candidate: Candidate,
    trained: Trained,
    records: dict[str, dict[str, Any]],
    failed: dict[str, str],
    candidates: Sequence[Candidate],
) -> None:
    """Record an ended candidate at once, so that it is not trained again, and keep only the best one's folder."""
    if trained.record is None:
        failed[candidate.name] = trained.reason
        return
    write_json(store / f"{candidate.name}.json", trained.record)
    records[candidate.name] = trained.record
    best = _best(candidates, records)
    for other in candidates:
        if other.name in records and other is not best:
            shutil.rmtree(store / other.name, ignore_errors=True)


def _show(candidate: Candidate, trained: Trained, display: Display, tracker: Tracker) -> None:
    config = {f"hp/{key}": value for key, value in candidate.run.config.items()} | {"seed": candidate.run.seed}
    config |= {"task": candidate.run.task, "model": candidate.run.model}
    if trained.record is None:
        display.line(f"  {candidate.label}: failed: {trained.reason}")
        tracker.write(candidate.name, "teacher", config, [], {"state": "failed", "reason": trained.reason}, failed=True)
        return
    record = trained.record
    row = _row(candidate, record, {})
    display.line(f"  {candidate.label}: {record['metric']} {record['score']:.4f} ({duration(row['seconds'])})")
    figures = {"state": "finished", "score": record["score"], "seconds": row["seconds"]}
    tracker.write(candidate.name, "teacher", config, record["reports"], figures)


def _row(candidate: Candidate, record: dict[str, Any] | None, failed: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"learning_rate": candidate.run.config["learning_rate"], "seed": candidate.run.seed}
    if record is None:
        return row | {"score": None, "seconds": None, "state": "failed", "reason": failed[candidate.name]}
    last = record["reports"][-1]
    seconds = round(last["train_seconds"] + last["evaluation_seconds"], 3)
    return row | {"score": record["score"], "seconds": seconds, "state": "finished", "reason": ""}


def _move_to_output(
    store: Path, best: Candidate, record: dict[str, Any], output: Path, candidates: Sequence[Candidate]
) -> None:
    """Copy the best candidate's folder to the output, which may be on another disk, and delete the candidates."""
    with artifacts.atomic_folder(output) as temporary:
        shutil.copytree(store / best.name, temporary, dirs_exist_ok=True)
        write_json(temporary / artifacts.MODEL_RECORD, record)
    shutil.rmtree(store / best.name, ignore_errors=True)
    _remove_files(store, candidates)


def _remove_files(store: Path, candidates: Sequence[Candidate]) -> None:
    """Delete this grid's files. Candidates of other grids are kept so that those can resume."""
    for candidate in candidates:
        (store / f"{candidate.name}.json").unlink(missing_ok=True)
        shutil.rmtree(unfinished_folder(candidate.run.output), ignore_errors=True)
    if store.exists() and all(path.name == _MARK or path.name.startswith(".") for path in store.iterdir()):
        shutil.rmtree(store)
