"""Optuna as Tune's searcher and ASHA as its scheduler, told the truth about stopped and failed trials."""

import math
from collections.abc import Mapping
from typing import Any, Self

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search import Searcher

from fsd_tune.search.progress import Rung
from fsd_tune.search.study import SearchStudy, TrialRecord
from fsd_tune.storage.retry import FolderWatch

# A trial that goes on from its checkpoint does not report again at the rungs that it has passed.
_SETS_BARS = ("finished", "stopped", "running")


def rungs(grace: int, reduction_factor: float, reports: int) -> list[int]:
    """The reports at which ASHA judges: grace, grace * factor, ... below `reports`, each rounded up, each once."""
    found, rung = [], float(grace)
    # Rounded first: 10 * 1.1 is 11, whatever floats make of it.
    while (report := math.ceil(round(rung, 9))) < reports:
        found.append(report)
        rung *= reduction_factor
    return sorted(set(found))


class DriverOnly:
    """Lives in the driver: Tune's copies of it are itself, and its snapshots are empty (the truth is on disk)."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class ResumableAsha(DriverOnly, AsyncHyperBandScheduler):  # type: ignore[misc]
    """Ray's ASHA that remembers whom it stopped where, and that knows the trials of an earlier part of the search.

    Attributes:
        stopped: the report at which each stopped trial was stopped, by Tune's trial id.
    """

    def __init__(
        self, metric: str, reports: int, grace: int, reduction_factor: float, past: dict[int, TrialRecord]
    ) -> None:
        super().__init__(
            time_attr="report",
            metric=metric,
            mode="max",
            max_t=reports,
            grace_period=grace,
            reduction_factor=reduction_factor,
        )
        self.stopped: dict[str, int] = {}
        # Ray's own rungs are fractions for a fractional factor, several of them between two reports: the ones left
        # over there would judge trials at other reports than `rungs` says.
        own = [(rung, self._bars(rung, past)) for rung in rungs(grace, reduction_factor, reports)]
        self._brackets[0]._rungs = own[::-1]
        self._stopped_before = [max(trial.values, default=0) for trial in past.values() if trial.state == "stopped"]

    def table(self) -> list[Rung]:
        """What has been judged at each rung, the first rung first."""
        stopped = [*list(self.stopped.values()), *self._stopped_before]
        bracket, found = self._brackets[0], []
        for rung, recorded in reversed(bracket._rungs):
            values = list(recorded.values())
            bar = float(bracket.cutoff(dict(enumerate(values)))) if values else math.nan
            found.append(Rung(rung, values, bar, stopped.count(rung)))
        return found

    @staticmethod
    def _bars(rung: int, past: dict[int, TrialRecord]) -> dict[str, float]:
        """What earlier trials had at a rung."""
        ended = {f"past-{number}": trial.values for number, trial in past.items() if trial.state in _SETS_BARS}
        return {name: values[rung] for name, values in ended.items() if rung in values}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """ASHA's decision, remembered when it is to stop a trial."""
        action: str = super().on_trial_result(tune_controller, trial, result)
        if action == TrialScheduler.STOP:
            self.stopped[trial.trial_id] = result["report"]
        return action

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial ended by itself or was stopped; a diverged one sets no bar for the others."""
        if "diverged" in result:
            self._forget(trial)
            self.on_trial_remove(tune_controller, trial)
        else:
            super().on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A worker died; a trial that is not tried again sets no bar for the others."""
        if not trial.should_recover():
            self._forget(trial)

    def _forget(self, trial: Any) -> None:
        for _, recorded in self._brackets[0]._rungs:
            recorded.pop(trial.trial_id, None)


class StudySearcher(DriverOnly, Searcher):  # type: ignore[misc]
    """Hands out the record's trials and tells it how each ended."""

    def __init__(
        self,
        record: SearchStudy,
        metric: str,
        reports: int,
        workers: int,
        restarts: Mapping[int, str] | None = None,
        patience: FolderWatch | None = None,
    ) -> None:
        super().__init__(metric=metric, mode="max")
        self._restarts, self._patience = restarts or {}, patience
        self._record, self._name, self._reports, self._most = record, metric, reports, workers
        self._numbers: dict[str, int] = {}

    def back_off(self) -> int | None:
        """Fewer trials side by side from now on, for a GPU that they share ran out of memory.

        Returns:
            How many; None when it was one already, so that the trial by itself takes too much.
        """
        if self._most <= 1:
            return None
        self._most = max(1, min(self._most, len(self._numbers)) - 1)
        return self._most

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        """Metric and mode are this searcher's already; Tune may say them again."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial; None for not now, FINISHED when there is none left.

        Returns:
            `trial`, its number in the study, `config`, flat, and `restart`, the checkpoint that it goes on from or "";
            with CMA-ES also `generation`, which a continued search needs.
        """
        if len(self._numbers) >= self._most:
            return None
        self._await_storage()
        asked = self._record.ask()
        if asked is None:
            return str(Searcher.FINISHED)
        number, config = asked
        self._numbers[trial_id] = number
        suggestion = {"trial": number, "config": config, "restart": self._restarts.get(number, "")}
        generation = self._record.trials[number].generation
        return suggestion | ({} if generation is None else {"generation": generation})

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A report of a running trial."""
        self._await_storage()
        self._record.report(self._numbers[trial_id], result["report"], result[self._name])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The trial ended; its last report arrives here and nowhere else."""
        self._await_storage()
        number = self._numbers.pop(trial_id)
        if result and "report" in result:
            self._record.report(number, result["report"], result[self._name])
        self._record.tell(number, ended(result, error, self._reports))

    def _await_storage(self) -> None:
        """The study's file lies there; what Optuna begins it could not begin again."""
        if self._patience is not None:
            self._patience.wait()

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is rebuilt from the results on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


def ended(result: dict[str, Any] | None, error: bool, reports: int) -> str:
    """How a trial ended: `failed` (crashed or diverged), `finished` (all its reports made) or `stopped`."""
    if error or not result or "report" not in result or "diverged" in result:
        return "failed"
    return "finished" if result["report"] >= reports else "stopped"
