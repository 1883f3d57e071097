"""The study as a Ray Tune searcher, which suggests trials to Tune and records how each trial ended.

Ray's OptunaSearch tells Optuna that a stopped trial is complete. This searcher distinguishes finished, stopped and
failed trials.
"""

from collections.abc import Mapping
from typing import Any

from ray.tune.search import Searcher

from fsd_tune.search.driver_only import DriverOnly
from fsd_tune.search.study import SearchStudy
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.retry import FolderWatch


class StudySearcher(DriverOnly, Searcher):  # type: ignore[misc]
    """A Ray Tune searcher that suggests the study's trials and tells the study how each trial ended.

    Args:
        study: the study of the search.
        metric: the metric that is reported.
        reports: the number of reports of a whole trial.
        workers: the number of trials that run at the same time at most.
        restarts: by trial number, the checkpoint (a folder or a URI) from which an unfinished trial continues.
        storage: a watch that waits while the search's folder is unavailable; None to never wait.
    """

    def __init__(
        self,
        study: SearchStudy,
        metric: str,
        reports: int,
        workers: int,
        restarts: Mapping[int, str] | None = None,
        storage: FolderWatch | None = None,
    ) -> None:
        super().__init__(metric=metric, mode="max")
        self._study = study
        self._metric_name = metric
        self._reports = reports
        self._max_workers = workers
        self._restarts = restarts or {}
        self._storage_watch = storage
        self._numbers: dict[str, int] = {}
        self._closed = False

    def close(self) -> None:
        """Suggest no other trial, because the search ends."""
        self._closed = True

    def back_off(self) -> int | None:
        """Lower the number of trials that run at the same time, because the GPU that they share ran out of memory.

        Returns:
            The new limit; None if it was 1 already, because then a single trial needs too much memory.
        """
        if self._max_workers <= 1:
            return None
        self._max_workers = max(1, min(self._max_workers, len(self._numbers)) - 1)
        return self._max_workers

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        """Return True without using Tune's settings, because this searcher has its metric and mode already.

        Args:
            metric: Tune's metric.
            mode: min or max.
            config: Tune's search space, which is empty.
            **spec: other arguments of Tune.
        """
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial.

        Args:
            trial_id: Tune's id of the trial.

        Returns:
            A mapping with `trial`, the number in the study; `config`, the flat configuration; and `restart`, the
            checkpoint from which the trial continues, or "". With CMA-ES also `generation`, which a resumed search
            needs; and for a configuration of an earlier search `origin`, its trial there. None if no trial can start
            now; FINISHED if there is no other trial.
        """
        if self._closed:
            return str(Searcher.FINISHED)
        if len(self._numbers) >= self._max_workers:
            return None
        self._await_storage()
        next_trial = self._study.ask()
        if next_trial is None:
            return str(Searcher.FINISHED)
        number, config = next_trial
        self._numbers[trial_id] = number
        suggestion = {"trial": number, "config": config, "restart": self._restarts.get(number, "")}
        record = self._study.trials[number]
        suggestion |= {} if record.generation is None else {"generation": record.generation}
        return suggestion | ({"origin": record.origin} if record.origin else {})

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record a report of a running trial.

        Args:
            trial_id: Tune's id of the trial.
            result: the report, or the note that a trial has paused for a checkpoint.
        """
        if "report" not in result:
            return
        self._await_storage()
        self._study.report(self._numbers[trial_id], result["report"], result[self._metric_name])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record that a trial ended.

        Args:
            trial_id: Tune's id of the trial.
            result: the trial's last report, which Tune passes to no other method.
            error: true if the trial crashed.
        """
        self._await_storage()
        number = self._numbers.pop(trial_id)
        if result and "report" in result:
            self._study.report(number, result["report"], result[self._metric_name])
        self._study.tell(number, state_at_end(result, error, self._reports))

    def _await_storage(self) -> None:
        """Wait until the study's folder is available, because Optuna cannot repeat a failed write of a trial."""
        if self._storage_watch is not None:
            self._storage_watch.wait()

    def save(self, checkpoint_path: str) -> None:
        """Save nothing, because the study is rebuilt from the results on disk.

        Args:
            checkpoint_path: not used.
        """

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing; see `save`.

        Args:
            checkpoint_path: not used.
        """


def state_at_end(result: dict[str, Any] | None, error: bool, reports: int) -> TrialState:
    """Return the state in which a trial ended: failed (crashed or diverged), finished (made all reports) or stopped.

    Args:
        result: the last report of the trial; None if there is none.
        error: true if the trial crashed.
        reports: the number of reports of a whole trial.
    """
    if error or not result or "report" not in result or "diverged" in result:
        return TrialState.FAILED
    return TrialState.FINISHED if result["report"] >= reports else TrialState.STOPPED
