"""Writes what happens to the trials into the search's folder as it happens, and shows it.

Ray keeps its own result files in a staging folder and copies them now and then; a killed driver would lose rows, or
leave one of them half copied. So each report is appended here at once, to the trial's folder under `results/`, and no
file that is read again has the name of one of Ray's (`params.json`, `result.json`).
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

from ray.tune import Callback

from fsd_tune.cluster import connection
from fsd_tune.cluster.nodes import NewNodeWatcher
from fsd_tune.search.progress import SearchProgress
from fsd_tune.search.searcher import DriverOnly, ResumableAsha, StudySearcher, ended
from fsd_tune.search.wandb_logger import WandbSearchLogger
from fsd_tune.settings.judging import judge
from fsd_tune.storage import artifacts, checkpoints
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.retry import FolderWatch

# A host that goes at once is known to be gone only after its silence; until then its trials just seem to fail.
_SUSPECTED_SECONDS = 120.0
_LOOK_SECONDS = 2.0
_RAYS_OWN = ("config", "hist_stats", "should_checkpoint", "done", "training_iteration")


class TrialLogger(DriverOnly, Callback):  # type: ignore[misc]
    """Tune's callback in the driver: `config.json`, `reports.jsonl` and `trial.json` of each trial.

    A trial that the time budget breaks off gets no note of its end, for Tune tells nobody: `resume` goes on with it.
    """

    def __init__(
        self,
        where: ExperimentFolder,
        metric: str,
        reports: int,
        judge_by: str,
        asha: ResumableAsha | None,
        searcher: StudySearcher,
        earlier: Mapping[int, dict[int, float]],
        progress: SearchProgress,
        interrupted: Event,
        tracked: WandbSearchLogger,
        patience: FolderWatch | None = None,
        joining: NewNodeWatcher | None = None,
    ) -> None:
        self._where, self._metric, self._reports, self._judge_by = where, metric, reports, judge_by
        self._asha, self._searcher, self._earlier = asha, searcher, earlier
        self._progress, self._interrupted, self._tracked = progress, interrupted, tracked
        self._patience, self._joining = patience, joining
        self._values: dict[str, dict[int, float]] = {}
        self._suspected: dict[str, tuple[Any, str, float]] = {}
        self._looked = 0.0

    def _folder(self, trial: Any) -> Path:
        return self._where.folder / "results" / str(trial.storage.trial_dir_name)

    def _write(self, path: Path, value: Any) -> None:
        artifacts.write_json(path, value)
        self._where.upload(path)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Between two steps of Tune's loop an interrupt is safe: raised anywhere, Ray's own code may swallow it."""
        if self._interrupted.is_set():
            raise KeyboardInterrupt
        self._where.sync_if_due()
        if time.monotonic() > self._looked + _LOOK_SECONDS:
            self._looked = time.monotonic()
            if self._suspected:
                self._forgive(connection.dead_hosts())
            if self._joining is not None:
                self._await_storage()
                self._joining.require()

    def _forgive(self, dead: set[str]) -> None:
        """Failures whose host turns out to have died are taken back: they say nothing of the trial."""
        for name, (trial, address, until) in list(self._suspected.items()):
            if address in dead:
                trial.run_metadata.num_failures -= 1
                self._progress.note(f"trial {trial.config['trial']}: its host {address} has died; it goes on elsewhere")
            if address in dead or time.monotonic() > until:
                del self._suspected[name]

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts, goes on from an earlier part of the search, or starts again after a crash of its worker."""
        self._await_storage()
        number = trial.config["trial"]
        self._values.setdefault(trial.trial_id, dict(self._earlier.get(number, {})))
        self._describe(trial)
        self._progress.started(number, trial.config["config"])
        self._tracked.started(number, trial.config["config"], self._folder(trial))

    def _describe(self, trial: Any) -> None:
        described = {name: value for name, value in trial.config.items() if name != "restart"}
        self._write(self._folder(trial) / "config.json", described)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A report. After a crash a trial makes some again, with the same values: they stand there already."""
        if result["report"] in self._values[trial.trial_id]:
            return
        self._await_storage()
        row = {
            name: value
            for name, value in result.items()
            if name not in _RAYS_OWN and isinstance(value, bool | int | float | str)
        }
        path = self._folder(trial) / "reports.jsonl"
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        # Before the checkpoint of this report, which Tune asks for next: one is never stored without its reports.
        self._where.upload(path)
        self._values[trial.trial_id][result["report"]] = result[self._metric]
        self._tracked.reported(trial.config["trial"], row)
        self._progress.reported(trial.config["trial"], row)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended by itself or by ASHA."""
        result = trial.last_result or {}
        state = ended(result, False, self._reports)
        reason = ""
        if state == "failed":
            reason = f"diverged: {result['diverged']}" if "diverged" in result else "ended without a report"
        elif state == "stopped":
            assert self._asha is not None
            reason = f"ASHA at report {self._asha.stopped[trial.trial_id]}"
        if state != "finished":
            # It is never continued nor exported: its checkpoints would only fill the disk.
            self._where.delete_checkpoints(self._folder(trial))
        self._end(trial, state, reason)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed and is tried again. That its host died, or others filled its GPU, is not its own failure."""
        address = (trial.last_result or {}).get("node_ip")
        if address and "OutOfMemoryError" not in _last_line(trial):
            self._suspected[trial.trial_id] = (trial, str(address), time.monotonic() + _SUSPECTED_SECONDS)
        if "OutOfMemoryError" not in _last_line(trial):
            return
        most = self._searcher.back_off()
        if most is not None:
            trial.run_metadata.num_failures -= 1
            self._progress.note(f"GPU memory ran out: at most {most} trials side by side from now on")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed more often than it may be tried."""
        self._end(trial, "failed", _last_line(trial) or "its worker died")

    def _await_storage(self) -> None:
        if self._patience is not None:
            self._patience.wait()

    def _end(self, trial: Any, state: str, reason: str) -> None:
        self._await_storage()
        self._where.delete(self._folder(trial) / checkpoints.RESTART)
        if not (self._folder(trial) / "config.json").exists():
            self._describe(trial)  # its worker died before it could start
        values = self._values.get(trial.trial_id, {})
        score = judge([values[report] for report in sorted(values)], self._judge_by) if state == "finished" else None
        ending = {"state": state, "reason": reason, "score": score, "time": time.time()}
        self._write(self._folder(trial) / "trial.json", ending)
        self._progress.ended(trial.config["trial"], state, reason, score)
        self._tracked.ended(trial.config["trial"], ending, list(values.values()))


def _last_line(trial: Any) -> str:
    """What a trial's latest failure says in its last line."""
    lines = [line for line in str(trial.get_error() or "").splitlines() if line.strip()]
    return lines[-1].strip()[:500] if lines else ""
