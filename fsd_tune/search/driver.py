"""Run a search on a connected cluster: build the memory, run the trials on Ray Tune, and complete the folder."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fsd_tune.cluster import connection, nodes
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.memory.actor import build, leave, start
from fsd_tune.memory.build import BuiltMemory
from fsd_tune.progress import Display
from fsd_tune.report.results import Results, load
from fsd_tune.search import budget
from fsd_tune.search.capacity import Capacity, share_of_a_gpu
from fsd_tune.search.conclusion import conclude, explained_interrupt
from fsd_tune.search.description import memory_line
from fsd_tune.search.end_rules import EndRule
from fsd_tune.search.equal_methods import new_suggester
from fsd_tune.search.folder import clear_folder
from fsd_tune.search.kept_students import KeptStudents
from fsd_tune.search.leader import BestStopped, reopen_leader
from fsd_tune.search.live import View
from fsd_tune.search.plan import SearchPlan
from fsd_tune.search.process_state import interrupt_flag
from fsd_tune.search.progress import SearchProgress
from fsd_tune.search.resume import ResumeState
from fsd_tune.search.study import SearchStudy
from fsd_tune.search.trial_shapes import TrialShapes
from fsd_tune.search.wandb_logger import WandbSearchLogger
from fsd_tune.settings.comparing import EQUAL
from fsd_tune.settings.configuration import distributions
from fsd_tune.settings.methods import USES_TEACHER
from fsd_tune.storage import layout
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.retry import FolderWatch, StorageUnavailableError
from fsd_tune.storage.search_summary import SearchSummary
from fsd_tune.storage.waiting import WaitedTooLongError

if TYPE_CHECKING:
    from fsd_tune.search.asha import ResumableAsha
    from fsd_tune.search.ending import Ending
    from fsd_tune.search.searcher import StudySearcher
    from fsd_tune.search.trial_logger import TrialLogger

# The memory's actor and the built memory; None for a search of `ce` alone.
Memory = tuple[Any, BuiltMemory] | None


class SearchDriver:
    """A search on a connected cluster; `run` leaves its folder in order however it ends."""

    def __init__(
        self,
        plan: SearchPlan,
        past: ResumeState,
        to_do: int,
        capacity: Capacity,
        summary: SearchSummary,
        display: Display,
    ) -> None:
        """Create the driver, without starting anything on the cluster.

        Args:
            plan: the plan of the search.
            past: the trials of an earlier part of the search.
            to_do: the number of trials that are still to run.
            capacity: the capacity of the cluster for trials.
            summary: the summary, as the folder holds it.
            display: the display of progress.
        """
        self.plan = plan
        self.settings = plan.settings
        self.past = past
        self.to_do = to_do
        self.capacity = capacity
        self.summary = summary
        self.display = display
        self._folder = plan.experiment.folder
        self._metric = plan.inputs.task.metric
        self._reports = summary.planned_reports
        self._shapes = TrialShapes(plan.settings, plan.shapes)
        self._start_time = time.monotonic()
        self._earlier_seconds = summary.wall_seconds or 0.0
        self._tracker = WandbSearchLogger(self.settings.wandb, self._folder, summary, display)
        self._storage = FolderWatch(self._folder, display.line)
        self._interrupted = threading.Event()
        self._is_out_of_time = False

    def run(self) -> Results:
        """Build the memory, run the trials, and write summary, best student and report, also after most errors.

        Returns:
            The results of all trials.
        """
        rule: EndRule | None = None
        try:
            self._write_summary(workers=self.capacity.workers)
            with self._memory() as memory:
                if self.settings.resources.gpus_per_trial == "auto" and self.capacity.gpus:
                    self._share_gpus(memory)
                rule = self._tune(memory)
                if self._is_out_of_time:
                    self._finish_leader(memory)
        except StorageUnavailableError:
            self._close()
            raise
        except KeyboardInterrupt:
            self._conclude("interrupted")
            raise
        except InputError:
            if self.past.trials:
                self._conclude("failed")
            else:
                # The teacher's predictions were refused before any trial began, so delete the files of the new search.
                self._close()
                clear_folder(self.plan.experiment)
            raise
        except BaseException:
            self._conclude("failed")
            raise
        return self._conclude("done", rule)

    def _close(self) -> None:
        self.display.close()
        self._tracker.close()

    def _conclude(self, state: str, rule: EndRule | None = None) -> Results:
        """Write the summary and everything that is made from the trials' files.

        Args:
            state: the state of the search.
            rule: the rule that ended a search that is done; None if none did.
        """
        self.display.close()
        with explained_interrupt(self.plan.experiment.name) as missing:
            self._write_summary(state=state)
            results = load(self._folder)
            if state == "done":
                unfinished = results.trials["state"].isin([TrialState.RUNNING, TrialState.INTERRUPTED])
                ending = budget.ended_by(self.settings, len(results.trials), int(unfinished.sum()), rule)
                results.summary.update(ended_by=ending)
                results.summary.write(self._folder)
            conclude(self.plan, results, self._tracker, state == "done", missing, self.display.line)
        return results

    def _write_summary(self, **changes: Any) -> None:
        self._storage.wait()
        seconds = self._earlier_seconds + time.monotonic() - self._start_time
        self.summary.update(**changes, wall_seconds=round(seconds, 2))
        self.summary.write(self._folder)
        self.plan.experiment.upload(self._folder / layout.SUMMARY)

    @contextmanager
    def _memory(self) -> Iterator[Memory]:
        """Yield the memory of the search, built or read from disk."""
        if not set(self.settings.methods) & USES_TEACHER:
            yield None
            return
        spec = self.plan.spec
        user = str(self._folder.resolve())
        self.display.stage("starting the workers", 0, 1)
        actor = start(spec, user)
        try:
            gpus = 1 if spec.device == "cuda" else 0
            prepared = build(actor, spec, connection.build_cpus(gpus), gpus, self.display.stage)
            self._record_memory(prepared)
            yield actor, prepared
        finally:
            leave(actor, user)

    def _record_memory(self, prepared: BuiltMemory) -> None:
        """Show the memory, its origin and its cost, and write them into the summary."""
        facts = prepared.facts.to_json()
        scores = prepared.teacher_metrics
        self.display.line(memory_line(prepared))
        # A resumed search adds no pass, but the pass of its earlier part still counts.
        passes = prepared.passes + (self.summary.memory.passes or 0)
        cost = {
            "passes": passes,
            "passes_ever": prepared.passes_ever,
            "path": str(prepared.memory or prepared.outputs),
        }
        score = scores[self._metric]
        teacher = {"name": self.plan.spec.teacher.path, "score": score, "metrics": scores}
        self._tracker.teacher(facts["fingerprint"], score)
        self._write_summary(memory=facts | cost, teacher=teacher)

    def _share_gpus(self, memory: Memory) -> None:
        """Choose how many trials share a GPU."""
        self.display.line("GPU: probing the largest trial")
        gpus, reason = share_of_a_gpu(self.settings, self.plan.spec, memory)
        self.capacity = replace(self.capacity, gpus=gpus, workers=connection.workers(self.settings, gpus))
        self.display.line(f"GPU: {reason}, so {round(1 / gpus)} to a GPU")
        self._write_summary(workers=self.capacity.workers, gpus_per_trial=gpus)

    def _finish_leader(self, memory: Memory) -> None:
        """Train the best trial to its end if it is one that has not finished."""
        found = reopen_leader(self.settings, self.plan.experiment)
        if found is not None:
            number, self.past = found
            self.to_do = 1
            self.display.line(f"time budget: spent; trial {number}, the best so far, is trained to its end")
            self._tune(memory, limited=False)

    def _tune(self, memory: Memory, limited: bool = True) -> EndRule | None:
        """Run the trials.

        Args:
            memory: of the search.
            limited: whether the time budget and ASHA may end them early.

        Returns:
            The rule that ended the search before its last trial; None if none did.
        """
        from ray import tune

        from fsd_tune.search.ending import Ending
        from fsd_tune.search.tuner import TunerParts, new_tuner

        study = SearchStudy(
            self.settings,
            self._folder / layout.STUDY,
            self.summary.name or self._folder.name,
            self.past.trials,
            new_suggester(self.settings, self.plan.warm_start.trials, self.plan.costs),
            examples=(self._metric, len(self.plan.spec.dev)),
            shapes=self._shapes,
        )
        seconds = self.settings.search.time_budget_seconds if limited else None
        ending = Ending(self._interrupted, None if seconds is None else max(1, seconds - self._earlier_seconds))
        try:
            searcher, scheduler = self._searcher_and_scheduler(study, limited)
            logger = self._callback(searcher, scheduler, ending)
            parts = TunerParts(searcher, scheduler, logger, ending)
            tuner = new_tuner(self.plan, self.past, self.to_do, self.capacity, memory, self._reports, parts)
            if limited:
                self._announce()
            with interrupt_flag(self._interrupted):
                tuner.fit()
        except tune.TuneError as error:
            if self._storage.lost is not None:
                raise self._storage.lost from None
            reason = [line for line in str(error).splitlines() if line.strip()][-1]
            raise FsdTuneError(f"Ray Tune stopped the search: {reason.strip()}") from error
        finally:
            ending.close()
            if self._storage.lost is None:
                # The study is made again from the trials' files, so its end must not hide another error.
                with suppress(WaitedTooLongError):
                    study.close()
        if self._interrupted.is_set():
            raise KeyboardInterrupt
        self._is_out_of_time = ending.asked
        if ending.failure is not None:
            raise ending.failure
        return study.rule

    def _searcher_and_scheduler(
        self, study: SearchStudy, limited: bool
    ) -> "tuple[StudySearcher, ResumableAsha | None]":
        from fsd_tune.search.asha import ResumableAsha
        from fsd_tune.search.searcher import StudySearcher

        asha = self.settings.asha
        scheduler = None
        if asha and limited:
            methods = self.settings.methods if self.settings.search.compare_methods == EQUAL else ()
            scheduler = ResumableAsha(
                self._metric, self._reports, asha.grace, asha.reduction_factor, self.past.trials, methods,
                costs=self.plan.costs,
            )  # fmt: skip
        restarts = {number: self.plan.experiment.path_for_workers(path) for number, path in self.past.restarts.items()}
        searcher = StudySearcher(study, self._metric, self._reports, self.capacity.workers, restarts, self._storage)
        return searcher, scheduler

    def _callback(
        self, searcher: "StudySearcher", scheduler: "ResumableAsha | None", ending: "Ending"
    ) -> "TrialLogger":
        from fsd_tune.search.trial_logger import Collaborators, LoggedSearch, TrialLogger

        progress = SearchProgress(
            self.display,
            budget.planned(self.settings),
            self._metric,
            self._reports,
            list(distributions(self.settings)),
            scheduler.table if scheduler else tuple,
            self._shapes.text,
        )
        progress.view = View(progress)
        progress.add_past(self.past.trials)
        earlier = {number: trial.values for number, trial in self.past.trials.items()}
        search = LoggedSearch(self.plan.experiment, self._metric, self._reports, self._shapes, earlier)
        collaborators = Collaborators(
            progress=progress,
            tracker=self._tracker,
            searcher=searcher,
            asha=scheduler,
            ending=ending,
            students=KeptStudents(self._shapes.points(self.past.trials)),
            stopped=BestStopped() if self.settings.search.time_budget else None,
            storage=self._storage,
            new_nodes=nodes.NewNodeWatcher(self.plan.experiment, self.capacity.needs),
        )
        return TrialLogger(search, collaborators)

    def _announce(self) -> None:
        if self.settings.wandb.mode == "off":
            self.display.line("Weights & Biases: off; --wandb offline or online tracks a search")
        spec, inputs = self.plan.spec, self.plan.inputs
        self.display.line(
            f"search: {self.to_do} trials, {self.capacity.workers} at a time on {spec.device} in {spec.precision}, "
            f"{len(inputs.train)} training and {len(inputs.dev)} "
            f"{'dev' if inputs.final is None else 'held-out'} examples"
        )
