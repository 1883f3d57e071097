"""A Ray Tune callback that writes each report and each trial's end to disk at once, and shows them.

Ray keeps its own result files in a staging folder and copies them periodically, so a killed driver would lose rows or
leave a partial copy. This callback therefore appends each report to the trial's folder under `results/`. The project
reads no file with the name of one of Ray's (`params.json`, `result.json`).
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune import Callback

from fsd_tune.cluster import connection
from fsd_tune.cluster.nodes import NewNodeWatcher
from fsd_tune.errors import DamagedError
from fsd_tune.search.asha import ResumableAsha
from fsd_tune.search.driver_only import DriverOnly
from fsd_tune.search.ending import SAVED, Ending
from fsd_tune.search.kept_students import KeptStudents
from fsd_tune.search.leader import BestStopped
from fsd_tune.search.progress import SearchProgress
from fsd_tune.search.searcher import StudySearcher, state_at_end
from fsd_tune.search.wandb_logger import WandbSearchLogger
from fsd_tune.settings.judging import JUDGE_BY, judge
from fsd_tune.storage import artifacts, checkpoints, files, layout
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.retry import FolderWatch

# Ray reports a dead host only after a timeout. Until then its trials seem to fail by themselves.
_SUSPECTED_SECONDS = 120.0
_CLUSTER_CHECK_SECONDS = 2.0
_ADDED_BY_RAY = ("config", "hist_stats", "should_checkpoint", "done", "training_iteration")


@dataclass(frozen=True)
class LoggedSearch:
    """The facts of a search that its trial logger needs.

    Attributes:
        experiment: the search's folder.
        metric: the metric that is reported.
        reports: the number of reports of a whole trial.
        earlier: the values of trials of an earlier part of the search, by number and report.
    """

    experiment: ExperimentFolder
    metric: str
    reports: int
    earlier: Mapping[int, dict[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Collaborators:
    """The parts of a search that the callback uses.

    Attributes:
        progress: shows reports and ends of trials to the user.
        tracker: sends them to Weights & Biases.
        searcher: lowers the number of trials that run at the same time when GPU memory runs out.
        asha: knows the report at which it stopped a trial; None without ASHA.
        ending: ends the search early; None if it cannot.
        students: the finished trials that keep their students.
        stopped: the stopped trial that keeps its checkpoint; None if all are deleted.
        storage: waits while the search's folder is unavailable; None to never wait.
        new_nodes: checks nodes that join the cluster; None to check none.
    """

    progress: SearchProgress
    tracker: WandbSearchLogger
    searcher: StudySearcher
    asha: ResumableAsha | None = None
    ending: Ending | None = None
    students: KeptStudents = field(default_factory=lambda: KeptStudents({}))
    stopped: BestStopped | None = None
    storage: FolderWatch | None = None
    new_nodes: NewNodeWatcher | None = None


class TrialLogger(DriverOnly, Callback):  # type: ignore[misc]
    """A Ray Tune callback that writes `config.json`, `reports.jsonl` and `trial.json` of each trial.

    A trial that the time budget interrupts gets no `trial.json`, because Tune reports no end; `resume` continues it.

    Args:
        search: the search whose trials are logged.
        collaborators: the parts of the search that the callback uses.
    """

    def __init__(self, search: LoggedSearch, collaborators: Collaborators) -> None:
        self._search = search
        self._experiment = search.experiment
        self._others = collaborators
        self._progress = collaborators.progress
        self._tracker = collaborators.tracker
        self._values: dict[str, dict[int, float]] = {}
        # By Tune's trial id: a failed trial, the address of its host, which may have died, and the time (monotonic)
        # until which to check the host.
        self._suspected: dict[str, tuple[Any, str, float]] = {}
        self._last_cluster_check = 0.0

    def _folder(self, trial: Any) -> Path:
        return self._experiment.folder / layout.RESULTS / str(trial.storage.trial_dir_name)

    def _write(self, path: Path, value: Any) -> None:
        artifacts.write_json(path, value)
        self._experiment.upload(path)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End the search if it is due, sync the search's folder if it is due, and check the cluster.

        An interrupt is raised here, between two steps of Tune's loop, because Ray's own code could swallow it.

        Args:
            iteration: the iteration of Tune's loop.
            trials: all of Tune's trials.
            **info: not used.
        """
        if self._others.ending is not None:
            self._end_if_due(self._others.ending, trials)
        self._experiment.sync_if_due()
        if time.monotonic() > self._last_cluster_check + _CLUSTER_CHECK_SECONDS:
            self._last_cluster_check = time.monotonic()
            if self._suspected:
                self._take_back_failures(connection.dead_hosts())
            if self._others.new_nodes is not None:
                self._await_storage()
                self._others.new_nodes.require()

    def _end_if_due(self, ending: Ending, trials: list[Any]) -> None:
        """Let the running trials save their state when the search is to end, and then end it."""
        if not ending.due:
            return
        if not ending.asked:
            self._others.searcher.close()
            ending.ask()
        if ending.wait_is_over([trial.trial_id for trial in trials if trial.status == "RUNNING"]):
            ending.stop()

    def _take_back_failures(self, dead_hosts: set[str]) -> None:
        """Do not count failures whose host has died, because the trial did not cause them."""
        for trial_id, (trial, address, deadline) in list(self._suspected.items()):
            if address in dead_hosts:
                trial.run_metadata.num_failures -= 1
                self._progress.note(
                    f"trial {trial.config['trial']}: its host {address} has died; it continues elsewhere"
                )
            if address in dead_hosts or time.monotonic() > deadline:
                del self._suspected[trial_id]

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when a trial starts, continues from an earlier part of the search, or restarts after a crash.

        Args:
            iteration: the iteration of Tune's loop.
            trials: all of Tune's trials.
            trial: the trial that starts.
            **info: not used.
        """
        self._await_storage()
        number = trial.config["trial"]
        self._values.setdefault(trial.trial_id, dict(self._search.earlier.get(number, {})))
        self._write_config(trial)
        self._progress.started(number, trial.config["config"], trial.config.get("origin", ""))
        self._tracker.started(number, trial.config["config"], self._folder(trial))

    def _write_config(self, trial: Any) -> None:
        config = {name: value for name, value in trial.config.items() if name != "restart"}
        self._write(self._folder(trial) / layout.TRIAL_CONFIG, config)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Called with each report. A restarted trial repeats some reports with the same values; these are skipped.

        Args:
            iteration: the iteration of Tune's loop.
            trials: all of Tune's trials.
            trial: the trial that reports.
            result: the report.
            **info: not used.
        """
        if "report" not in result:
            if result[SAVED] and self._others.ending is not None:
                self._others.ending.saved(trial.trial_id)
            return
        if result["done"]:
            # Tune reads this key after its callbacks.
            result["should_checkpoint"] = self._is_kept(trial, result)
        if result["report"] in self._values[trial.trial_id]:
            return
        self._await_storage()
        row = {
            name: value
            for name, value in result.items()
            if name not in _ADDED_BY_RAY and isinstance(value, bool | int | float | str)
        }
        path = self._folder(trial) / layout.TRIAL_REPORTS
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        # Tune stores the checkpoint of this report next. Upload first, so that no checkpoint lacks its reports.
        self._experiment.upload(path)
        self._values[trial.trial_id][result["report"]] = result[self._search.metric]
        self._tracker.reported(trial.config["trial"], row)
        self._progress.reported(trial.config["trial"], row)

    def _is_kept(self, trial: Any, result: dict[str, Any]) -> bool:
        """Return whether a trial that ends with this report keeps a checkpoint."""
        if "diverged" in result:
            return False
        if result["report"] < self._search.reports:
            stopped = self._others.stopped
            return stopped is not None and stopped.admits(trial.config["trial"], result[self._search.metric])
        values = self._values[trial.trial_id] | {result["report"]: result[self._search.metric]}
        return self._others.students.admits(trial.config["trial"], self._score(values))

    def _score(self, values: Mapping[int, float]) -> float:
        return judge([values[report] for report in sorted(values)], JUDGE_BY)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when a trial ended by itself or was stopped by ASHA.

        Args:
            iteration: the iteration of Tune's loop.
            trials: all of Tune's trials.
            trial: the trial that ended.
            **info: not used.
        """
        result = trial.last_result or {}
        state = state_at_end(result, False, self._search.reports)
        reason = ""
        if state == TrialState.FAILED:
            reason = f"diverged: {result['diverged']}" if "diverged" in result else "ended without a report"
        elif state == TrialState.STOPPED:
            assert self._others.asha is not None
            reason = f"ASHA at report {self._others.asha.stopped[trial.trial_id]}"
        number = trial.config["trial"]
        dropped = [number]
        if state == TrialState.FINISHED:
            dropped = self._others.students.add(number, self._score(self._values[trial.trial_id]))
        elif state == TrialState.STOPPED and self._others.stopped is not None:
            dropped = self._others.stopped.add(number)
        if number in dropped:
            # The trial is neither continued nor exported, so its checkpoints would only fill the disk.
            self._experiment.delete_checkpoints(self._folder(trial))
        self._end(trial, state, reason)
        for number in dropped:
            for folder in (self._experiment.folder / layout.RESULTS).glob(f"{number:04d}_*"):
                self._experiment.delete_checkpoints(folder)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when Tune retries a failed trial.

        Host deaths and GPU out-of-memory errors do not count against its retries. A damaged teacher memory ends the
        search, because no trial could continue.

        Args:
            iteration: the iteration of Tune's loop.
            trials: all of Tune's trials.
            trial: the trial that failed.
            **info: not used.
        """
        if self._is_memory_damaged(trial):
            return
        if "OutOfMemoryError" not in _last_error_line(trial):
            address = (trial.last_result or {}).get("node_ip")
            if address:
                self._suspected[trial.trial_id] = (trial, str(address), time.monotonic() + _SUSPECTED_SECONDS)
            return
        workers = self._others.searcher.back_off()
        if workers is not None:
            trial.run_metadata.num_failures -= 1
            self._progress.note(f"GPU memory ran out: at most {workers} trials at the same time from now on")

    def _is_memory_damaged(self, trial: Any) -> bool:
        """Return whether a trial failed because the teacher memory is damaged, and let the search end if so."""
        _, is_damaged, message = _last_error_line(trial).partition(f"{DamagedError.__name__}: ")
        if is_damaged and self._others.ending is not None:
            self._others.ending.failure = DamagedError(message, hint="`fsd-tune resume` builds it again and continues.")
        return bool(is_damaged)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when a trial failed and has no retries left.

        Args:
            iteration: the iteration of Tune's loop.
            trials: all of Tune's trials.
            trial: the trial that failed.
            **info: not used.
        """
        self._end(trial, TrialState.FAILED, _last_error_line(trial) or "its worker died")

    def _await_storage(self) -> None:
        if self._others.storage is not None:
            self._others.storage.wait()

    def _end(self, trial: Any, state: TrialState, reason: str) -> None:
        self._await_storage()
        folder = self._folder(trial)
        self._experiment.delete(folder / checkpoints.RESTART)
        if not (folder / layout.TRIAL_CONFIG).exists():
            # The worker died before the trial could start. Without this file the results would lack the trial.
            self._write_config(trial)
        values = self._values.get(trial.trial_id, {})
        score = None
        if state == TrialState.FINISHED:
            # The file that declares the trial finished must not outlive its checkpoint and reports in a loss of power.
            files.sync(folder)
            score = self._score(values)
        ending = {"state": str(state), "reason": reason, "score": score, "time": time.time()}
        self._write(folder / layout.TRIAL_ENDING, ending)
        self._progress.ended(trial.config["trial"], state, reason, score)
        self._tracker.ended(trial.config["trial"], ending, list(values.values()))


def _last_error_line(trial: Any) -> str:
    """Return the last line of a trial's latest error."""
    lines = [line for line in str(trial.get_error() or "").splitlines() if line.strip()]
    return lines[-1].strip()[:500] if lines else ""
