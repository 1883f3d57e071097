"""Runs of a confirmation on Ray: each trained once, written to disk when it ends, and found there ever after.

Ray is started only when a run is missing. Workers are reused, so that each loads its models once.
"""

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune.cluster import connection
from fsd_tune.cluster.task_pool import ActorPool
from fsd_tune.errors import FsdTuneError
from fsd_tune.evaluation.confirm.inputs import Configuration
from fsd_tune.memory.actor import build, fetch, leave, start
from fsd_tune.memory.build import BuiltMemory, build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.models.folder import write_model
from fsd_tune.models.loading import load_tokenizer, quiet_transformers
from fsd_tune.progress import Display, duration
from fsd_tune.settings.judging import judge
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import USES_MEMORY, USES_TEACHER
from fsd_tune.storage import artifacts, remote
from fsd_tune.storage.artifacts import write_json
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.tracking.tracker import Tracker
from fsd_tune.training.factory import DistillerFactory

_TRIES = 3


@dataclass(frozen=True)
class Wanted:
    """One run: a configuration on a seed.

    Attributes:
        name: names its content, and its files.
        student: whether its student is to be written, too.
    """

    name: str
    configuration: Configuration
    seed: int
    student: bool = False


@dataclass(frozen=True)
class Finished:
    """A run that has ended.

    Attributes:
        record: what its file holds: config, seed, state (finished or failed), reason, score, last, metrics, seconds.
        logits: of the last evaluation, float32 [dev examples, C]; None for a failed run.
    """

    record: dict[str, Any]
    logits: NDArray[np.float32] | None

    @property
    def score(self) -> float | None:
        """The judged score; None when the run failed."""
        return float(self.record["score"]) if self.record["state"] == "finished" else None


class _Worker:
    """Trains one run after another."""

    def __init__(
        self, settings: Settings, spec: MemorySpec, memory: tuple[Any, BuiltMemory] | None, reports: int
    ) -> None:
        quiet_transformers()
        torch.set_num_threads(max(1, int(settings.resources.cpus_per_trial)))
        self._spec, self._settings, self._reports = spec, settings, reports
        self._bench = DistillerFactory(settings, spec, None if memory is None else fetch(*memory))
        self._memory_seed = spec.seed

    def train(
        self, config: dict[str, Any], seed: int, metric: str, student: tuple[str, dict[str, Any]] | None
    ) -> tuple[dict[str, Any], NDArray[np.float32] | None]:
        """One run from start to end; with `student`, (folder or URI, facts), its student is written, too."""
        self._match_memory(config["method"], seed)
        distiller = self._bench.distiller(config, self._reports, seed)
        rows: list[dict[str, Any]] = []
        while not distiller.done and not (rows and "diverged" in rows[-1]):
            rows.append(distiller.train_to_next_evaluation())
        last = rows[-1]
        record: dict[str, Any] = {"config": config, "seed": seed, "device": self._spec.device}
        record |= {"seconds": round(last["train_seconds"] + last["evaluation_seconds"], 3)}
        if "diverged" in last:
            return record | {"state": "failed", "reason": f"diverged: {last['diverged']}", "score": None}, None
        score = judge([row[metric] for row in rows], self._settings.search.judge_by)
        record |= {"state": "finished", "reason": "", "score": score, "last": last[metric]}
        record |= {"values": [row[metric] for row in rows]}
        if student is not None:
            made = student[1] | {"score": score, "config": config, "seed": seed, "last_report": last}
            tokenizer = load_tokenizer(self._spec.teacher.path)
            with remote.folder_to_fill(student[0]) as folder:
                write_model(folder, distiller.model, tokenizer, made)
        return record, distiller.logits

    def _match_memory(self, method: str, seed: int) -> None:
        """A random student differs by seed, and with it the features that its memory starts from."""
        student, arrays = self._settings.student, self._bench.arrays
        matched = student.start == "random" and student.memory_start == "matched"
        if arrays is None or not matched or method not in USES_MEMORY or seed == self._memory_seed:
            return
        prepared = build_artifacts(replace(self._spec, seed=seed), lambda *_: None)
        assert prepared.start is not None
        self._bench.arrays, self._memory_seed = replace(arrays, start=np.load(prepared.start / "start.npy")), seed


class Runs:
    """Gives runs by content: from the folder, or trained on Ray. A context manager, for what it starts must end.

    Attributes:
        passes: teacher passes that were paid here: 0 where the search's memory was found.
        trained: runs that were not there before.
    """

    def __init__(
        self,
        where: ExperimentFolder,
        settings: Settings,
        spec: MemorySpec,
        metric: str,
        reports: int,
        facts: dict[str, Any],
        display: Display,
        address: str | None = None,
        temporary: Path | None = None,
    ) -> None:
        """Nothing starts yet.

        Args:
            where: the search's folder; below `confirm/` in it runs lie in `runs/`, the student in `best/`.
            settings, spec: of the search.
            metric: that is judged.
            reports: evaluations of a run.
            facts: what `fsd_tune.json` beside the student says beyond the run.
            display: where progress goes.
            address, temporary: as for `cluster.connected`.
        """
        self._where, self._folder = where, where.folder / "confirm"
        self._settings, self._spec, self._metric = settings, spec, metric
        self._reports, self._facts, self._display = reports, facts, display
        self._connection = (address, temporary)
        self._stack = contextlib.ExitStack()
        self._memory: tuple[Any, BuiltMemory] | None = None
        self._pool: ActorPool[Wanted] | None = None
        self.passes = self.trained = 0
        self._tracker = Tracker(settings.wandb, self._folder, f"{facts['group']}-confirm", display.line)

    def __enter__(self) -> "Runs":
        return self

    def __exit__(self, *_: object) -> None:
        self._display.close()
        self._tracker.close()
        if self._pool is not None:
            self._pool.close()
        self._stack.close()

    def found(self, wanted: Wanted) -> Finished | None:
        """A run from disk; None when it was never finished, or its files are damaged, or its student is gone."""
        path = self._folder / "runs" / f"{wanted.name}.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["state"] == "failed":
                return Finished(record, None)
            logits = np.load(path.with_suffix(".npy"), allow_pickle=False)
            student = (
                json.loads((self._folder / "best" / artifacts.MODEL_RECORD).read_text("utf-8"))
                if wanted.student
                else {}
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None
        whole = record.get("score") is not None and logits.ndim == 2 and len(logits) == len(self._spec.dev)
        return Finished(record, logits) if whole and student.get("run", wanted.name) == wanted.name else None

    def finish(self, what: str, wanted: Sequence[Wanted]) -> dict[str, Finished]:
        """All of them by name: what is on disk, and the others trained, side by side.

        Args:
            what: the stage, for people.
            wanted: the runs, in the order in which they start.

        Raises:
            InputError: a run asks for more than the cluster has.
            FsdTuneError: a run could not be trained; those that ended are kept.
        """
        ended = {run.name: done for run in wanted if (done := self.found(run)) is not None}
        missing = [run for run in wanted if run.name not in ended]
        there = f", {len(ended)} of them there already" if ended else ""
        self._display.line(f"{what}: {len(wanted)} runs{there}")
        if not missing:
            return ended
        pool = self._connect(len(missing), any(run.configuration.config["method"] in USES_TEACHER for run in wanted))
        began, before = time.monotonic(), len(ended)
        for outcome in pool.run(
            [(run, self._arguments(run)) for run in missing],
            lambda running: self._show(what, len(ended), len(wanted), len(running), len(ended) - before, began),
        ):
            run = outcome.item
            if outcome.worker_died:  # For lack of memory, or with its node.
                raise FsdTuneError(f"{_name(run)}: its worker died {_TRIES} times.") from outcome.error
            if outcome.error is not None:
                raise FsdTuneError(f"{_name(run)}: {outcome.reason}") from outcome.error
            ended[run.name] = self._keep(run, *outcome.result)
        self._display.close()
        return ended

    def _arguments(self, run: Wanted) -> tuple[Any, ...]:
        """Return the arguments of `_Worker.train` for a run."""
        best = self._where.path_for_workers((self._folder / "best").absolute())
        student = (best, self._facts | {"run": run.name}) if run.student else None
        return run.configuration.config, run.seed, self._metric, student

    def _show(self, what: str, ended: int, total: int, running: int, here: int, began: float) -> None:
        left = f" · about {duration((time.monotonic() - began) / here * (total - ended))} left" if here else ""
        self._display.live(f"  {what}: {ended}/{total} runs ended · {running} running{left if ended < total else ''}")

    def _keep(self, run: Wanted, record: dict[str, Any], logits: NDArray[np.float32] | None) -> Finished:
        """Written at once: what has ended is never trained again."""
        self.trained += 1
        path = self._folder / "runs" / f"{run.name}.json"
        if logits is not None:
            with artifacts.atomic_file(path.with_suffix(".npy")) as stream:
                np.save(stream, logits)
            self._where.upload(path.with_suffix(".npy"))
        if run.student:
            self._where.download_folder(self._folder / "best")
        # Last, for it says that the run is whole.
        write_json(path, record)
        self._where.upload(path)
        track = {f"hp/{key}": value for key, value in record["config"].items()}
        track |= {"task": self._spec.task.id, "seed": run.seed, "configuration": run.configuration.label}
        rows = [{"report": i, self._metric: value} for i, value in enumerate(record.get("values", []), start=1)]
        figures = {key: record[key] for key in ("state", "score", "seconds") if record[key] is not None}
        self._tracker.write(run.name, "confirm", track, rows, figures, failed=logits is None)
        outcome = record["reason"] if logits is None else f"{self._metric} {record['score']:.4f}"
        self._display.line(f"  {_name(run)}: {outcome} ({duration(record['seconds'])})")
        return Finished(record, logits)

    def _connect(self, runs: int, teacher: bool) -> ActorPool[Wanted]:
        """Connect to Ray, provide the teacher memory if a method needs it, and return the workers.

        What an earlier call has connected, provided and started is reused.

        Args:
            runs: how many will run.
            teacher: whether a method needs the teacher memory.
        """
        self._stack.enter_context(connection.connect(*self._connection))
        search = self._settings.search.model_copy(update={"trials": runs})
        gpus = connection.gpus_for(self._settings, self._spec.device)
        limit = connection.workers(self._settings.model_copy(update={"search": search}), gpus)
        if self._pool is not None and teacher and self._memory is None:
            self._pool.close()  # Its workers were started without the memory.
            self._pool = None
        if teacher and self._memory is None:
            self._provide_memory()
        if self._pool is None:
            arguments = (self._settings, self._spec, self._memory, self._reports)
            cpus = self._settings.resources.cpus_per_trial
            self._pool = ActorPool(_Worker, arguments, "train", limit=limit, tries=_TRIES, cpus=cpus, gpus=gpus)
        self._pool.limit = limit
        return self._pool

    def _provide_memory(self) -> None:
        user = f"confirm {self._folder.resolve()}"
        self._spec = replace(self._spec, brought=self._where.upload_inputs(self._spec.model_folders))
        actor = start(self._spec, user)
        self._stack.callback(leave, actor, user)
        gpus = 1 if self._spec.device == "cuda" else 0
        prepared = build(actor, self._spec, connection.build_cpus(gpus), gpus, self._display.stage)
        self._memory = (actor, prepared)
        self.passes += prepared.passes
        how = "built with one teacher pass, for it was not there" if prepared.passes else "reused, no teacher pass"
        how = "the teacher runs live" if prepared.facts.live else how
        self._display.line(f"teacher memory {prepared.facts.fingerprint}: {how}")


def _name(run: Wanted) -> str:
    return f"{run.configuration.label}, seed {run.seed}"
