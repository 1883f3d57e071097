"""ASHA as a Ray Tune scheduler that remembers which trials it stopped and continues from earlier trials.

Trials are judged among all others, or among those of their method if the methods are compared equally. With costs
among the objectives they are judged by front, so that a cheap trial has to be good for its cost only.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from fsd_tune.report.front import crowding, ranks
from fsd_tune.search.costs import TrialCosts
from fsd_tune.search.driver_only import DriverOnly
from fsd_tune.search.progress import Rung
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.storage.layout import TrialState

# Running trials count: a trial that continues from its checkpoint does not report again at the rungs it has passed.
_COUNTED_AT_RUNGS = (TrialState.FINISHED, TrialState.STOPPED, TrialState.RUNNING)
_ALL = ""  # The group of all trials.


def rungs(grace: int, reduction_factor: float, reports: int) -> list[int]:
    """Return the reports at which ASHA judges: grace, grace * factor, ... below `reports`, each rounded up, each once.

    Args:
        grace: the report of the first rung.
        reduction_factor: the factor from one rung to the next.
        reports: the number of reports of a whole trial.
    """
    if (reduction_factor - 1) * reports < 1:  # No report lies between two rungs, and there may be billions of them.
        return list(range(grace, reports))
    reports_at_rungs = set()
    rung = float(grace)
    # Round before taking the ceiling, because 10 * 1.1 is slightly more than 11 in floating point.
    while (report := math.ceil(round(rung, 9))) < reports:
        reports_at_rungs.add(report)
        rung *= reduction_factor
    return sorted(reports_at_rungs)


class ResumableAsha(DriverOnly, AsyncHyperBandScheduler):  # type: ignore[misc]
    """Ray's ASHA that remembers where it stopped each trial, and starts with the values of earlier trials.

    Attributes:
        stopped: the report at which each stopped trial was stopped, by Tune's trial id.
    """

    def __init__(
        self,
        metric: str,
        reports: int,
        grace: int,
        reduction_factor: float,
        past: Mapping[int, TrialRecord],
        methods: Sequence[str] = (),
        costs: TrialCosts | None = None,
    ) -> None:
        """Create the scheduler.

        Args:
            metric: the metric to maximise.
            reports: the number of reports of a whole trial.
            grace: the report of the first rung.
            reduction_factor: 1/reduction_factor of the trials continue at each rung.
            past: trials of an earlier part of the search, by number.
            methods: methods with rungs of their own; empty if all trials share the same.
            costs: the costs of the trials; None if the score is the only objective.
        """
        groups = tuple(methods) or (_ALL,)
        super().__init__(
            time_attr="report",
            metric=metric,
            mode="max",
            max_t=reports,
            grace_period=grace,
            reduction_factor=reduction_factor,
            brackets=len(groups),
        )
        self.stopped: dict[str, int] = {}
        self._costs = costs if costs and costs.names else None
        if self._costs:
            self._brackets = [_FrontBracket(reduction_factor) for _ in groups]
        self._own_bracket = dict(zip(groups, self._brackets, strict=True))
        # The reports at which trials of each group were stopped.
        self._stops: dict[str, list[int]] = {group: [] for group in groups}
        for group, bracket in self._own_bracket.items():
            own = {number: trial for number, trial in past.items() if group in (_ALL, trial.params.get("method"))}
            # With a fractional factor Ray's rungs are fractions, and several can lie between two reports. They would
            # judge trials at other reports than `rungs` returns, so replace them.
            own_rungs = [(rung, _past_values(rung, own)) for rung in rungs(grace, reduction_factor, reports)]
            bracket._rungs = own_rungs[::-1]
            if self._costs:
                bracket.costs |= {_past_id(number): self._costs.of(trial.params) for number, trial in own.items()}
            stopped = [trial for trial in own.values() if trial.state == TrialState.STOPPED]
            self._stops[group] += [max(trial.values, default=0) for trial in stopped]

    def table(self) -> list[Rung]:
        """Return the values, cutoff and stopped trials of each rung, the first rung of each group first.

        With several objectives no single value decides, so the cutoffs are NaN.
        """
        table = []
        for group, bracket in self._own_bracket.items():
            for rung, recorded in reversed(bracket._rungs):
                values = list(recorded.values())
                cutoff = float(bracket.cutoff(dict(enumerate(values)))) if values else math.nan
                table.append(Rung(rung, values, cutoff, self._stops[group].count(rung), group))
        return table

    def _group(self, trial: Any) -> str:
        return _ALL if _ALL in self._own_bracket else str(trial.config["config"]["method"])

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Choose the group of a new trial. Ray would draw it at random.

        Args:
            tune_controller: Tune's controller.
            trial: the trial.
        """
        bracket = self._own_bracket[self._group(trial)]
        self._trial_info[trial.trial_id] = bracket
        if self._costs:
            bracket.costs[trial.trial_id] = self._costs.of(trial.config["config"])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return ASHA's decision, and record the report if the trial is to stop.

        Args:
            tune_controller: Tune's controller.
            trial: the trial that reports.
            result: the report.
        """
        action: str = super().on_trial_result(tune_controller, trial, result)
        if action == TrialScheduler.STOP:
            self.stopped[trial.trial_id] = result["report"]
            self._stops[self._group(trial)].append(result["report"])
        return action

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Record that a trial ended; the values of a diverged trial no longer count at the rungs.

        Args:
            tune_controller: Tune's controller.
            trial: the trial that ended.
            result: the last report of the trial.
        """
        if "diverged" in result:
            self._forget(trial)
            self.on_trial_remove(tune_controller, trial)
        else:
            super().on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Forget the values of a crashed trial unless Tune retries it.

        Args:
            tune_controller: Tune's controller.
            trial: the trial whose worker died.
        """
        if not trial.should_recover():
            self._forget(trial)

    def _forget(self, trial: Any) -> None:
        for bracket in self._brackets:
            for _, recorded in bracket._rungs:
                recorded.pop(trial.trial_id, None)


class _FrontBracket:
    """Rungs that judge by score and costs, in the place of Ray's, which judge by one value.

    The trials at a rung are ordered by non-dominated rank, and those of one rank by crowding distance, the loneliest
    first, as in NSGA-II. A trial goes on if it is among the first 1/reduction_factor. Syne Tune's MOASHA (Schmucker et
    al., "Multi-objective Asynchronous Successive Halving", 2021, arXiv 2106.12639) orders a rank by an epsilon-net
    instead.

    Args:
        reduction_factor: 1/reduction_factor of the trials continue at each rung.

    Attributes:
        costs: the costs of each trial, by Tune's id or `_past_id`; lower is better.
    """

    def __init__(self, reduction_factor: float) -> None:
        self.costs: dict[str, tuple[float, ...]] = {}
        self._factor = reduction_factor
        self._rungs: list[tuple[int, dict[str, float]]] = []  # as Ray's: the last rung first

    def cutoff(self, recorded: Mapping[Any, float]) -> float:
        return math.nan

    def debug_str(self) -> str:
        return "judged by front: " + ", ".join(f"{rung}: {len(recorded)}" for rung, recorded in self._rungs)

    def on_result(self, trial: Any, cur_iter: int, cur_rew: float) -> str:
        for rung, recorded in self._rungs:
            if cur_iter >= rung and trial.trial_id not in recorded:
                recorded[trial.trial_id] = cur_rew
                return str(TrialScheduler.CONTINUE if self._goes_on(trial.trial_id, recorded) else TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def _goes_on(self, trial_id: str, recorded: Mapping[str, float]) -> bool:
        finite = [known for known, value in recorded.items() if math.isfinite(value)]
        if trial_id not in finite:
            return True
        points = np.asarray([[recorded[known], *(-cost for cost in self.costs[known])] for known in finite])
        rank = ranks(points)
        own = finite.index(trial_id)
        before = int((rank < rank[own]).sum())
        members = np.flatnonzero(rank == rank[own])
        distances = crowding(points[members])
        before += int((distances > distances[members == own]).sum())
        return before < len(finite) / self._factor


def _past_id(number: int) -> str:
    return f"past-{number}"


def _past_values(rung: int, past: Mapping[int, TrialRecord]) -> dict[str, float]:
    """Return the values of earlier trials at a rung."""
    return {
        _past_id(number): trial.values[rung]
        for number, trial in past.items()
        if trial.state in _COUNTED_AT_RUNGS and rung in trial.values
    }
