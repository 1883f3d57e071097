"""The scores and states that a sampler learns, and the studies that hold them.

Ended trials do not change, so their parts are kept from one suggestion to the next. With thousands of trials it
would take seconds to build them again.
"""

import bisect
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from fsd_tune.search.costs import TrialCosts
from fsd_tune.search.trial_record import TrialRecord, final_score, frozen_trial
from fsd_tune.storage.known_trials import study_of
from fsd_tune.storage.layout import TrialState


class Belief(NamedTuple):
    """A trial, with the score and the state that the sampler learns; the score is None if there is none to learn."""

    trial: TrialRecord
    score: float | None
    state: str


class FinishedTrials:
    """What the sampler learns of the finished trials, and their median gain from each report to the score.

    Attributes:
        beliefs: by the trial's number.
        median_gains: by report, over the finished trials that made it.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._gains: dict[int, list[float]] = {}  # by report, sorted
        self.beliefs: dict[int, Belief] = {}
        self.median_gains: dict[int, float] = {}

    def update(self, trials: Mapping[int, TrialRecord]) -> None:
        """Read the trials that have finished since the last call.

        Args:
            trials: the known trials by number. If one that was read is no longer among them, all are read again.
        """
        if any(trials.get(number) is not belief.trial for number, belief in self.beliefs.items()):
            self._forget()
        changed: set[int] = set()
        for number, trial in trials.items():
            if number in self.beliefs or trial.state != TrialState.FINISHED:
                continue
            score = final_score(trial)
            assert score is not None
            self.beliefs[number] = Belief(trial, score, trial.state)
            for report, value in trial.values.items():
                bisect.insort(self._gains.setdefault(report, []), score - value)
            changed |= trial.values.keys()
        self.median_gains |= {report: statistics.median(self._gains[report]) for report in changed}


def expected_end(trial: TrialRecord, median_gains: Mapping[int, float]) -> float | None:
    """Return the score that the sampler learns for a stopped trial; None if the trial has no value.

    It is the last value, plus the median gain of the finished trials from that report to their score, or 0 if none has
    finished.

    Args:
        trial: the stopped trial.
        median_gains: `FinishedTrials.median_gains`.
    """
    if not trial.values:
        return None
    report = max(trial.values)
    return trial.values[report] + median_gains.get(report, 0.0)


@dataclass
class _Made:
    """A trial's record in Optuna, with the values from which it was built.

    Attributes:
        belief: with the trial.
        reports: of the trial.
        frozen: the record.
        kind: names of the trial's parameters.
        numbers: the trial's row of `KnownTrials.numbers`.
    """

    belief: Belief
    reports: int
    frozen: FrozenTrial
    kind: tuple[str, ...]
    numbers: NDArray[np.float64]


@dataclass(frozen=True)
class KnownTrials:
    """The trials that a suggestion is made from.

    Attributes:
        study: holds them with the numbers 1, 2, ..., and is to be asked for one trial, whose number is 0.
        kinds: a study with the first ended trial of each set of parameters.
        parameters: names of the searched parameters.
        numbers: in Optuna's internal representation, float64 [trials, parameters], NaN where a trial lacks one.
    """

    study: optuna.Study
    kinds: optuna.Study
    parameters: tuple[str, ...]
    numbers: NDArray[np.float64]


class BeliefStudies:
    """Makes a study in memory for each suggestion. Optuna's records of the trials are shared by the studies.

    Args:
        distributions: of all searched parameters.
        costs: the costs of the trials. Those that are objectives are exact for each trial; None for the score alone.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution], costs: TrialCosts | None = None) -> None:
        self._distributions = distributions
        self._costs = costs
        self._directions = ["maximize", *(["minimize"] * len(costs.names) if costs else [])]
        self._made: dict[int, _Made] = {}

    def known(self, beliefs: Iterable[Belief]) -> KnownTrials:
        """Return the trials for one suggestion; those of the suggestion before change with it.

        Args:
            beliefs: what the sampler learns, by the trials' numbers.
        """
        # `_Made` keeps its trial alive, so that no other trial can have its id.
        self._made = {id(belief.trial): self._updated(belief) for belief in beliefs}
        kinds: dict[tuple[str, ...], FrozenTrial] = {}
        for number, made in enumerate(self._made.values(), start=1):
            if made.frozen.number != number:
                made.frozen.number = number
            if made.belief.state in (TrialState.FINISHED, TrialState.STOPPED) and made.kind not in kinds:
                kinds[made.kind] = made.frozen
        numbers = [np.empty(0), *(made.numbers for made in self._made.values())]
        return KnownTrials(
            study_of([made.frozen for made in self._made.values()], *self._directions),
            study_of(list(kinds.values()), *self._directions),
            tuple(self._distributions),
            np.concatenate(numbers).reshape(-1, len(self._distributions)),
        )

    def _updated(self, belief: Belief) -> _Made:
        trial, score, state = belief
        made = self._made.get(id(trial))
        if made is None or made.reports != len(trial.values) or made.belief.state != state:
            costs = self._costs.of(trial.params) if self._costs else ()
            frozen = frozen_trial(trial, score, state, self._distributions, costs)
            numbers = [
                distribution.to_internal_repr(trial.params[name]) if name in trial.params else math.nan
                for name, distribution in self._distributions.items()
            ]
            return _Made(belief, len(trial.values), frozen, tuple(trial.params), np.asarray(numbers, np.float64))
        if made.belief.score != score:
            # With each finished trial the expected ends of all stopped ones change.
            made.frozen.values = None if score is None else [score, *made.frozen.values[1:]]
            made.belief = belief
        return made
