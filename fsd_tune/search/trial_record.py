"""A trial as the search records it, and as Optuna stores it. This module does not use Ray."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, create_trial

from fsd_tune.settings.judging import JUDGE_BY, judge
from fsd_tune.storage.layout import TrialState

# Optuna's states by the states of a trial.
OPTUNA_STATES: dict[str, optuna.trial.TrialState] = {
    TrialState.FINISHED: optuna.trial.TrialState.COMPLETE,
    TrialState.STOPPED: optuna.trial.TrialState.PRUNED,
    TrialState.FAILED: optuna.trial.TrialState.FAIL,
    TrialState.RUNNING: optuna.trial.TrialState.RUNNING,
    TrialState.INTERRUPTED: optuna.trial.TrialState.FAIL,
}


@dataclass
class TrialRecord:
    """A trial as the search records it.

    Attributes:
        params: the searched parameters.
        state: running, finished, stopped or failed; interrupted if it is not to run on in this process.
        values: the selection metric at each report, by report index.
        generation: the generation of CMA-ES in which the parameters were drawn; None for other samplers.
        origin: the trial of an earlier search whose configuration it has; empty if it has none.
        ended_at: the time when it ended, as `time.time()` returns it; 0 for a trial of this process.
    """

    params: dict[str, Any]
    state: str = TrialState.RUNNING
    values: dict[int, float] = field(default_factory=dict)
    generation: int | None = None
    origin: str = ""
    ended_at: float = 0.0

    def series(self, until: int | None = None) -> list[float]:
        """Return the values in the order of their reports.

        Args:
            until: the last report to include; None for all.
        """
        return [self.values[report] for report in sorted(self.values) if until is None or report <= until]


def final_score(trial: TrialRecord) -> float | None:
    """Return a trial's score, or None if it has not finished.

    Args:
        trial: the trial.
    """
    return judge(trial.series(), JUDGE_BY) if trial.state == TrialState.FINISHED else None


def finished_scores(trials: Mapping[int, TrialRecord]) -> dict[int, float]:
    """Return the scores of the finished trials by number.

    Args:
        trials: trials by number.
    """
    scores = {number: final_score(trial) for number, trial in trials.items()}
    return {number: score for number, score in scores.items() if score is not None}


def frozen_trial(
    trial: TrialRecord, score: float | None, state: str, distributions: Mapping[str, BaseDistribution]
) -> FrozenTrial:
    """Return a trial as Optuna stores an ended one.

    Args:
        trial: the trial.
        score: the score. A stopped trial gets its last value instead, as Optuna does with a pruned trial.
        state: the state in the study, which can differ from the trial's own in a sampler's study.
        distributions: the distributions of at least the trial's parameters.
    """
    finite = {report: value for report, value in trial.values.items() if math.isfinite(value)}
    if state == TrialState.STOPPED and finite:
        score = finite[max(finite)]
    return create_trial(
        state=OPTUNA_STATES[state],
        value=score,
        params=trial.params,
        distributions={name: distributions[name] for name in trial.params},
        intermediate_values=finite,
    )
