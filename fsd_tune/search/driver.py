"""What a search does on a connected cluster: the memory, the trials on Ray Tune, and its folder in order afterwards."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fsd_tune.cluster import connection, nodes
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.memory.actor import build, leave, start
from fsd_tune.memory.build import BuiltMemory
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.models import inference, layer_cka
from fsd_tune.models.folder import record_of
from fsd_tune.models.loading import load_finished
from fsd_tune.progress import Display, duration
from fsd_tune.report import html_report
from fsd_tune.report.results import load
from fsd_tune.search import best_student, budget
from fsd_tune.search.folder import clear
from fsd_tune.search.progress import SearchProgress
from fsd_tune.search.resume import ResumeState
from fsd_tune.search.study import SearchStudy
from fsd_tune.search.wandb_logger import WandbSearchLogger
from fsd_tune.settings.configuration import distributions
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import USES_TEACHER
from fsd_tune.storage import artifacts
from fsd_tune.storage.artifacts import write_json
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.retry import FolderWatch, StorageUnavailableError
from fsd_tune.training.inputs import Inputs

_FAILURES_PER_TRIAL = 2


def conclude(where: ExperimentFolder, inputs: Inputs, spec: MemorySpec, done: bool, tracked: WandbSearchLogger) -> None:
    """Best student, leaderboard and report from what is on disk; after a holdout's search dev's only figure.

    What the tracking still lacks is written, and it is closed; everything is stored.
    """
    folder = where.folder
    results = load(folder)
    if results.best is not None:
        where.download_checkpoint(str(results.best["folder"]))
    best = best_student.export_best(results, spec.teacher.path)
    if done and best is not None and inputs.final is not None:
        figure = inference.score_on_dev(best, inputs.task, inputs.final, spec.precision, spec.device)
        write_json(folder / "summary.json", results.summary | {"dev": figure})
        write_json(best / artifacts.MODEL_RECORD, record_of(best) | {"dev": figure})
        results = load(folder)
    if done and best is not None:
        alike = layer_cka.of_teacher(spec.teacher.path, load_finished(best), spec.dev, spec.device)
        write_json(folder / "summary.json", results.summary | {"layer_cka": alike})
        results = load(folder)
    html_report.write(results)
    tracked.conclude(results)
    tracked.close()
    where.sync_all()


@dataclass
class SearchDriver:
    """A search on a connected cluster: `run` leaves the folder in order however it ends.

    Attributes:
        settings, inputs, spec: what is searched.
        where: the search's folder.
        summary: what `summary.json` holds.
        gpus: of a trial.
        workers: trials side by side.
        past: trials of an earlier part of the search.
        to_do: trials still to run.
        display: where progress goes.
        needs: what every node must have.
    """

    settings: Settings
    inputs: Inputs
    spec: MemorySpec
    where: ExperimentFolder
    summary: dict[str, Any]
    gpus: float
    workers: int
    past: ResumeState
    to_do: int
    display: Display
    needs: nodes.Needs

    @property
    def folder(self) -> Path:
        """Where the search's files are written here."""
        return self.where.folder

    def run(self) -> None:
        """Memory, trials, and then, whatever happened, summary, best student and report."""
        self._began, self._before = time.monotonic(), float(self.summary.get("wall_seconds", 0.0))
        state = "failed"
        self._tracked = WandbSearchLogger(self.settings.wandb, self.folder, self.summary, self.display)
        self._patience = FolderWatch(self.folder, self.display.line)
        try:
            self._write(workers=self.workers)
            with self._memory() as memory:
                if self.settings.resources.gpus_per_trial == "auto" and self.gpus:
                    self._share(memory)
                self._tune(memory)
            state = "done"
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        except InputError:
            # The teacher's predictions showed it: no trial has begun, so nothing of a new search stays.
            state = "failed" if self.past.trials else "refused"
            raise
        except StorageUnavailableError:
            state = "away"
            raise
        finally:
            self.display.close()
            if state == "away":
                self._tracked.close()
            elif state == "refused":
                self._tracked.close()
                clear(self.where)
            else:
                self._write(state=state)
                conclude(self.where, self.inputs, self.spec, state == "done", self._tracked)

    def _write(self, **news: Any) -> None:
        self._patience.wait()
        wall = self._before + time.monotonic() - self._began
        self.summary.update(news, wall_seconds=round(wall, 2))
        write_json(self.folder / "summary.json", self.summary)
        self.where.upload(self.folder / "summary.json")

    @contextmanager
    def _memory(self) -> Iterator[tuple[Any, BuiltMemory] | None]:
        """The memory's actor and what it has prepared; None for a search of `ce` alone."""
        if not set(self.settings.methods) & USES_TEACHER:
            yield None
            return
        user = str(self.folder.resolve())
        actor = start(self.spec, user)
        try:
            gpus = 1 if self.spec.device == "cuda" else 0
            prepared = build(actor, self.spec, connection.build_cpus(gpus), gpus, self.display.stage)
            self._say(prepared)
            yield actor, prepared
        finally:
            leave(actor, user)

    def _say(self, prepared: BuiltMemory) -> None:
        facts, scores = prepared.facts.to_json(), prepared.teacher_metrics
        kept = f"{facts['centroids']} centroids" if "centroids" in facts else "no centroids needed"
        examples = f"{facts['examples']:,} examples"
        how = (
            f"made in {duration(facts['build_seconds'])} from {examples}; the teacher runs live"
            if facts["live"]
            else f"built in {duration(facts['build_seconds'])} with one teacher pass over {examples}"
            if prepared.passes
            else f"reused ({prepared.passes_ever} teacher pass was paid for it before)"
        )
        self.display.line(f"teacher memory {facts['fingerprint']}: {how}, {kept}")
        # A continued search adds no pass; the one that it paid before stays counted.
        paid = prepared.passes + ((self.summary["memory"] or {}).get("passes") or 0)
        where = {"passes": paid, "passes_ever": prepared.passes_ever, "path": str(prepared.memory or prepared.outputs)}
        score = scores[self.inputs.task.metric]
        teacher = {"name": self.spec.teacher.path, "score": score, "metrics": scores}
        self._tracked.teacher(facts["fingerprint"], score)
        self._write(memory=facts | where, teacher=teacher)

    def _share(self, memory: tuple[Any, BuiltMemory] | None) -> None:
        """Choose how many trials share a GPU, by what the dearest of them takes."""
        import ray

        from fsd_tune.search import gpu_packing
        from fsd_tune.search.trial import probe

        self.display.line("GPU memory: probing a trial's peak")
        taken, total = ray.get(probe.remote(self.settings, self.spec, memory))
        self.gpus = gpu_packing.share(taken, total)
        self.workers = connection.workers(self.settings, self.gpus)
        self.display.line(
            f"GPU memory: a trial takes {taken / 1e9:.1f} of {total / 1e9:.1f} GB, so {round(1 / self.gpus)} share one"
        )
        self._write(workers=self.workers, gpus_per_trial=self.gpus)

    def _tune(self, memory: tuple[Any, BuiltMemory] | None) -> None:
        from ray import tune

        from fsd_tune.cluster import placement
        from fsd_tune.search.searcher import ResumableAsha, StudySearcher
        from fsd_tune.search.trial import DistillTrial
        from fsd_tune.search.trial_logger import TrialLogger

        settings, spec, asha = self.settings, self.spec, self.settings.asha
        metric, reports = self.inputs.task.metric, self.summary["reports"]
        past = self.past.trials
        record = SearchStudy(settings, self.folder / "study.db", self.summary["name"], past)
        scheduler = ResumableAsha(metric, reports, asha.grace, asha.reduction_factor, past) if asha else None
        planned = budget.planned(settings)
        rungs = scheduler.table if scheduler else tuple
        progress = SearchProgress(self.display, planned, metric, reports, list(distributions(settings)), rungs)
        results = load(self.folder)
        progress.past(dict(results.trials["state"].value_counts()), results.best)
        interrupted = threading.Event()
        restarts = {number: self.where.path_for_workers(path) for number, path in self.past.restarts.items()}
        searcher = StudySearcher(record, metric, reports, self.workers, restarts, self._patience)
        judge_by = settings.search.judge_by
        folders = {number: restart.parent.name for number, restart in self.past.restarts.items()}
        earlier = {number: trial.values for number, trial in past.items()}
        scribe = TrialLogger(
            self.where,
            metric,
            reports,
            judge_by,
            scheduler,
            searcher,
            earlier,
            progress,
            interrupted,
            self._tracked,
            self._patience,
            nodes.NewNodeWatcher(self.where, self.needs),
        )
        trainable = tune.with_parameters(
            DistillTrial,
            settings=settings,
            spec=spec,
            memory=memory,
            reports=reports,
            checkpoints=(*self.summary["rungs"], reports),
        )
        resources = settings.resources
        asked = placement.request(resources.placement, resources.cpus_per_trial, self.gpus)
        budget_s = settings.search.time_budget_seconds
        if settings.wandb.mode == "off":
            self.display.line("Weights & Biases: off; --wandb offline or online tracks a search")
        self.display.line(
            f"search: {self.to_do} trials, {self.workers} at a time on {spec.device} in {spec.precision}, "
            f"{len(self.inputs.train)} training and {len(self.inputs.dev)} "
            f"{'dev' if self.inputs.final is None else 'held-out'} examples"
        )
        try:
            tuner = tune.Tuner(
                tune.with_resources(trainable, asked),
                tune_config=tune.TuneConfig(
                    num_samples=self.to_do,
                    search_alg=searcher,
                    scheduler=scheduler,
                    max_concurrent_trials=self.workers,
                    reuse_actors=True,
                    time_budget_s=None if budget_s is None else max(1, budget_s - self._before),
                    trial_dirname_creator=partial(_trial_folder, folders),
                ),
                run_config=tune.RunConfig(
                    name="results",
                    **self.where.ray_storage(),
                    callbacks=[scribe],
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=_FAILURES_PER_TRIAL),
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                ),
            )
            with _signals(interrupted):
                tuner.fit()
        except tune.TuneError as error:
            if self._patience.lost is not None:
                raise self._patience.lost from None
            reason = [line for line in str(error).splitlines() if line.strip()][-1]
            raise FsdTuneError(f"Ray Tune stopped the search: {reason.strip()}") from error
        finally:
            if self._patience.lost is None:
                record.close()
        if interrupted.is_set():
            raise KeyboardInterrupt
        states = load(self.folder).trials["state"]
        broken_off = int((states == "running").sum())
        self._write(ended_by=budget.ended_by(settings, len(states), broken_off, record.stalled))


def _trial_folder(taken_up: Mapping[int, str], trial: Any) -> str:
    """The name of a trial's folder; one that goes on does so in the folder that it has."""
    number = trial.config["trial"]
    return taken_up.get(number, f"{number:04d}_{trial.trial_id}")


@contextmanager
def _signals(interrupted: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set `interrupted`; a second one ends at once. Handlers exist in the main thread only."""

    def note(number: int, frame: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
