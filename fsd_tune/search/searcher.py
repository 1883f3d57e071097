"""The study as Tune's searcher: Tune asks it for trials, and each trial's true end is recorded.

Ray's OptunaSearch tells Optuna that a stopped trial is complete; this searcher tells it stopped and failed ones apart.
"""

from collections.abc import Mapping
from typing import Any

from ray.tune.search import Searcher

from fsd_tune.search.driver_only import DriverOnly
from fsd_tune.search.study import SearchStudy
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.retry import FolderWatch


class StudySearcher(DriverOnly, Searcher):  # type: ignore[misc]
    """Hands out the study's trials to Tune and tells the study how each ended.

    Args:
        study: of the search.
        metric: the metric that is reported.
        reports: the number of reports of a whole trial.
        workers: the number of trials that run at the same time at most.
        restarts: by trial number, the checkpoint (a folder or a URI) from which an unfinished trial continues.
        storage: waits while the search's folder cannot be reached.
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

    def back_off(self) -> int | None:
        """Run fewer trials side by side from now on, because the GPU that they share ran out of memory.

        Returns:
            The new limit; None when it was one already, so that the trial by itself needs too much memory.
        """
        if self._max_workers <= 1:
            return None
        self._max_workers = max(1, min(self._max_workers, len(self._numbers)) - 1)
        return self._max_workers

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        """Accept Tune's metric and mode, which this searcher has already.

        Args:
            metric: that Tune names.
            mode: min or max.
            config: Tune's search space, which is empty.
            **spec: whatever else Tune passes.
        """
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial.

        Args:
            trial_id: Tune's id of the trial.

        Returns:
            `trial`, its number in the study, `config`, flat, and `restart`, the checkpoint from which it continues or
            ""; with CMA-ES also `generation`, which a continued search needs. None for not now, FINISHED when there
            is no other trial.
        """
        if len(self._numbers) >= self._max_workers:
            return None
        self._await_storage()
        asked = self._study.ask()
        if asked is None:
            return str(Searcher.FINISHED)
        number, config = asked
        self._numbers[trial_id] = number
        suggestion = {"trial": number, "config": config, "restart": self._restarts.get(number, "")}
        generation = self._study.trials[number].generation
        return suggestion | ({} if generation is None else {"generation": generation})

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record a report of a running trial.

        Args:
            trial_id: Tune's id of the trial.
            result: the report.
        """
        self._await_storage()
        self._study.report(self._numbers[trial_id], result["report"], result[self._metric_name])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record that a trial ended.

        Args:
            trial_id: Tune's id of the trial.
            result: the trial's last report, which Tune passes to no other method.
            error: whether the trial crashed.
        """
        self._await_storage()
        number = self._numbers.pop(trial_id)
        if result and "report" in result:
            self._study.report(number, result["report"], result[self._metric_name])
        self._study.tell(number, state_at_end(result, error, self._reports))

    def _await_storage(self) -> None:
        """Wait for the folder of the study's file: Optuna cannot repeat a trial that it failed to write."""
        if self._storage_watch is not None:
            self._storage_watch.wait()

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is rebuilt from the results on disk.

        Args:
            checkpoint_path: not used.
        """

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing; see `save`.

        Args:
            checkpoint_path: not used.
        """


def state_at_end(result: dict[str, Any] | None, error: bool, reports: int) -> TrialState:
    """Return how a trial ended: failed (crashed or diverged), finished (made all its reports) or stopped.

    Args:
        result: its last report, if there is one.
        error: whether it crashed.
        reports: the number of reports of a whole trial.
    """
    if error or not result or "report" not in result or "diverged" in result:
        return TrialState.FAILED
    return TrialState.FINISHED if result["report"] >= reports else TrialState.STOPPED
