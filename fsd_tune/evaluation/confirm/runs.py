"""Provide the runs of a confirmation: read each from disk, or train it on Ray and write it when it ends.

Ray starts only if a run is missing. Workers are reused, so each loads its models once.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fsd_tune.cluster import accelerator, connection
from fsd_tune.cluster.task_pool import ActorPool
from fsd_tune.errors import FsdTuneError
from fsd_tune.evaluation.confirm.run_store import FinishedRun, RunRequest, RunStore
from fsd_tune.evaluation.confirm.run_worker import RunWorker
from fsd_tune.memory.actor import build, leave, start
from fsd_tune.memory.build import BuiltMemory
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.progress import Display, duration
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import USES_TEACHER
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.tracking.tracker import Tracker

_TRIES = 3


class ConfirmationRuns:
    """A context manager that reads runs from the search's folder and trains the missing ones on Ray.

    Its workers stop at the end of the context.

    Attributes:
        passes: number of teacher passes that were needed: 0 if the search's memory exists.
        trained: number of runs that were missing.
    """

    def __init__(
        self,
        experiment: ExperimentFolder,
        settings: Settings,
        spec: MemorySpec,
        metric: str,
        reports: int,
        facts: dict[str, Any],
        display: Display,
        address: str | None = None,
        temporary: Path | None = None,
    ) -> None:
        """Prepare the runs without starting anything.

        Args:
            experiment: the search's folder. Runs go to `confirm/runs/` in it, the student to `confirm/best/`.
            settings: the settings of the search.
            spec: the inputs of the search's teacher memory.
            metric: the metric that is judged.
            reports: number of evaluations of a run.
            facts: entries of the student's `fsd_tune.json` that do not depend on the run.
            display: shows progress.
            address: the address of a Ray cluster; None for a local instance.
            temporary: Ray's folder for sockets and logs; None for Ray's own.
        """
        self._experiment = experiment
        self._store = RunStore(experiment, len(spec.dev))
        self._settings = settings
        self._spec = spec
        self._metric = metric
        self._reports = reports
        self._facts = facts
        self._display = display
        self._connection = (address, temporary)
        self._stack = contextlib.ExitStack()
        self._memory: tuple[Any, BuiltMemory] | None = None
        self._pool: ActorPool[RunRequest] | None = None
        self._tracker = Tracker(settings.wandb, self._store.folder, f"{facts['group']}-confirm", display.line)
        self.passes = 0
        self.trained = 0

    def __enter__(self) -> "ConfirmationRuns":
        return self

    def __exit__(self, *_: object) -> None:
        self._display.close()
        self._tracker.close()
        if self._pool is not None:
            self._pool.close()
        self._stack.close()

    def finish(self, stage: str, requests: Sequence[RunRequest]) -> dict[str, FinishedRun]:
        """Return all runs, and train those that are missing on disk.

        Args:
            stage: name of the stage in messages.
            requests: the runs, in the order in which they start. Missing runs train side by side.

        Returns:
            The runs by name.

        Raises:
            InputError: a run needs more than the cluster has.
            FsdTuneError: a run could not be trained. Runs that have ended are kept.
        """
        finished_runs = {request.name: run for request in requests if (run := self._store.read(request)) is not None}
        missing = [request for request in requests if request.name not in finished_runs]
        reused = f", {len(finished_runs)} of them there already" if finished_runs else ""
        self._display.line(f"{stage}: {len(requests)} runs{reused}")
        if not missing:
            return finished_runs
        methods = {request.configuration.config["method"] for request in requests}
        pool = self._connect(len(missing), bool(methods & USES_TEACHER))
        started = time.monotonic()
        on_disk = len(finished_runs)
        for outcome in pool.run(
            [(request, self._arguments(request)) for request in missing],
            lambda running: self._show(
                stage, len(finished_runs), len(requests), len(running), len(finished_runs) - on_disk, started
            ),
        ):
            request = outcome.item
            if outcome.worker_died:  # It ran out of memory, or its node died.
                raise FsdTuneError(f"{request.label}: its worker died {_TRIES} times.") from outcome.error
            if outcome.error is not None:
                raise FsdTuneError(f"{request.label}: {outcome.reason}") from outcome.error
            finished_runs[request.name] = self._record(request, FinishedRun(*outcome.result))
        self._display.close()
        return finished_runs

    def _arguments(self, request: RunRequest) -> tuple[Any, ...]:
        """Return the arguments of `RunWorker.train` for a run."""
        folder = self._experiment.path_for_workers(self._store.student.absolute())
        student = (folder, self._facts | {"run": request.name}) if request.student else None
        return request.configuration.config, request.seed, self._metric, student

    def _show(self, stage: str, finished_count: int, total: int, running: int, trained: int, started: float) -> None:
        estimate = ""
        if trained and finished_count < total:
            estimate = f" · about {duration((time.monotonic() - started) / trained * (total - finished_count))} left"
        self._display.live(f"  {stage}: {finished_count}/{total} runs ended · {running} running{estimate}")

    def _record(self, request: RunRequest, run: FinishedRun) -> FinishedRun:
        """Write a run, log it, and show its outcome."""
        self.trained += 1
        self._store.write(request, run)
        self._track(request, run)
        outcome = run.record["reason"] if run.logits is None else f"{self._metric} {run.record['score']:.4f}"
        self._display.line(f"  {request.label}: {outcome} ({duration(run.record['seconds'])})")
        return run

    def _track(self, request: RunRequest, run: FinishedRun) -> None:
        """Log a run to Weights & Biases."""
        record = run.record
        config = {f"hp/{key}": value for key, value in record["config"].items()}
        config |= {"task": self._spec.task.id, "seed": request.seed, "configuration": request.configuration.label}
        rows = [{"report": i, self._metric: value} for i, value in enumerate(record.get("values", []), start=1)]
        figures = {key: record[key] for key in ("state", "score", "seconds") if record[key] is not None}
        self._tracker.write(request.name, "confirm", config, rows, figures, failed=run.logits is None)

    def _connect(self, runs: int, teacher: bool) -> ActorPool[RunRequest]:
        """Connect to Ray, provide the teacher memory if a method needs it, and return the workers.

        Later calls reuse the connection, the memory and the workers.

        Args:
            runs: number of runs to train.
            teacher: whether a method needs the teacher memory.
        """
        self._stack.enter_context(connection.connect(*self._connection))
        search = self._settings.search.model_copy(update={"trials": runs})
        gpus = accelerator.gpus_for(self._settings, self._spec.device)
        limit = connection.workers(self._settings.model_copy(update={"search": search}), gpus)
        if self._pool is not None and teacher and self._memory is None:
            self._pool.close()  # Its workers started without the memory.
            self._pool = None
        if teacher and self._memory is None:
            self._provide_memory()
        if self._pool is None:
            arguments = (self._settings, self._spec, self._memory, self._reports)
            cpus = self._settings.resources.cpus_per_trial
            self._pool = ActorPool(RunWorker, arguments, "train", limit=limit, tries=_TRIES, cpus=cpus, gpus=gpus)
        self._pool.limit = limit
        return self._pool

    def _provide_memory(self) -> None:
        """Build the teacher memory, or reuse the search's, and keep its actor until the runs end."""
        user = f"confirm {self._store.folder.resolve()}"
        self._spec = replace(self._spec, brought=self._experiment.upload_inputs(self._spec.model_folders))
        self._display.stage("starting the workers", 0, 1)
        actor = start(self._spec, user)
        self._stack.callback(leave, actor, user)
        gpus = 1 if self._spec.device == "cuda" else 0
        prepared = build(actor, self._spec, connection.build_cpus(gpus), gpus, self._display.stage)
        self._memory = (actor, prepared)
        self.passes += prepared.passes
        origin = "built with one teacher pass, because it was missing" if prepared.passes else "reused, no teacher pass"
        origin = "the teacher runs live" if prepared.facts.live else origin
        self._display.line(f"teacher memory {prepared.facts.fingerprint}: {origin}")
