"""Rules that end a search before its last trial: `search.stop_after_stalled` and `search.stop_when`."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.search_space import intersection_search_space
from optuna.study import StudyDirection
from optuna.terminator import RegretBoundEvaluator
from optuna.trial import FrozenTrial

from fsd_tune.data.metrics import standard_error
from fsd_tune.search.costs import TrialCosts
from fsd_tune.search.equal_methods import EqualMethods
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.trial_record import TrialRecord, final_score
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.layout import TrialState

# The number of ended trials at the first decision. Until then the model of the scores knows too little.
FIRST = 20
# A method with fewer ended trials is not decided yet.
_LEAST_OF_A_METHOD = 8


@dataclass(frozen=True)
class EndRule:
    """A rule of the settings that has ended a search before its last trial.

    Attributes:
        setting: its key in the section `search`.
        text: the reason as a clause.
    """

    setting: str
    text: str


class Stall:
    """A count of the trials in a row that ended without a better finished score (`search.stop_after_stalled`).

    With several objectives a trial counts as better if no earlier one is at least as good in all of them.

    Args:
        limit: the number of such trials after which no new trial begins; None for no limit.
        costs: the costs of the trials; None if the score is the only objective.
    """

    def __init__(self, limit: int | None, costs: TrialCosts | None = None) -> None:
        self._limit = limit
        self._costs = costs if costs and costs.names else None
        self._front: list[tuple[float, ...]] = []
        self._without_better = 0

    def ended(self, score: float | None, params: Mapping[str, Any]) -> None:
        """Count a trial that has ended.

        Args:
            score: the score of the trial; None if it has not finished.
            params: its searched parameters.
        """
        costs = self._costs.of(params) if self._costs else ()
        point = (math.nan if score is None else score, *(-cost for cost in costs))
        if math.isnan(point[0]) or any(_at_least(known, point) for known in self._front):
            self._without_better += 1
        else:
            self._front = [known for known in self._front if not _at_least(point, known)] + [point]
            self._without_better = 0

    @property
    def rule(self) -> EndRule | None:
        """The reason to begin no new trial; None to go on."""
        if self._limit is None or self._without_better < self._limit:
            return None
        better = "one that adds to the front" if self._costs else "a better one"
        return EndRule("stop_after_stalled", f"stopped after {self._limit} trials without {better}")


def _at_least(point: Sequence[float], other: Sequence[float]) -> bool:
    return all(own >= of_other for own, of_other in zip(point, other, strict=True))


class NoiseRule:
    """A rule that ends a search once a better configuration would gain less than the standard error of a score.

    The gain is bounded by a Gaussian process over the scores of the trials, as in Makarova et al., "Automatic
    termination for hyperparameter optimization", AutoML 2022, arXiv 2104.08166: the upper confidence bound of all
    configurations minus the best lower confidence bound of the tried ones (`optuna.terminator`). A stopped trial counts
    with the score that the sampler expects of it.

    The rule decides when the search begins or continues, and each time a tenth more trials have ended, because the
    process takes longer the more trials there are.

    Args:
        suggester: the source of the search's trials.
        metric: the metric that trials are selected by.
        examples: the number of examples that they are selected on.
    """

    def __init__(self, suggester: Suggester | EqualMethods, metric: str, examples: int) -> None:
        self._suggester = suggester
        self._metric = metric
        self._examples = examples
        self._next = FIRST
        self._rule: EndRule | None = None

    def decide(self, trials: Mapping[int, TrialRecord]) -> EndRule | None:
        """Return the reason to end the search; None to go on.

        Args:
            trials: the known trials by number.
        """
        ended = sum(trial.state != TrialState.RUNNING for trial in trials.values())
        if self._rule is None and ended >= self._next:
            self._next = math.ceil(1.1 * ended)
            self._rule = self._decide(trials)
        return self._rule

    def _decide(self, trials: Mapping[int, TrialRecord]) -> EndRule | None:
        scores = [score for trial in trials.values() if (score := final_score(trial)) is not None]
        if not scores:
            return None
        gains = [gain_bound(known) for known in self._suggester.believed(trials)]
        if None in gains or not gains:
            return None
        gain = max(gain for gain in gains if gain is not None)
        error = standard_error(self._metric, max(scores), self._examples)
        if error is None or gain >= error:
            return None
        return EndRule(
            "stop_when",
            f"stopped when little was left to win: a better configuration would gain at most {100 * gain:.2g} points, "
            f"and {self._examples:,} examples show a score to {100 * error:.2g} points",
        )


def gain_bound(trials: Sequence[FrozenTrial]) -> float | None:
    """Return the most that another configuration may gain over the best of the tried ones.

    Args:
        trials: ended trials with their scores.

    Returns:
        The bound in units of the score; 0 if nothing is searched, None with too few trials to tell.
    """
    if len(trials) < _LEAST_OF_A_METHOD:
        return None
    if all(distribution.single() for distribution in intersection_search_space(list(trials)).values()):
        return 0.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        return float(RegretBoundEvaluator(seed=0).evaluate(list(trials), StudyDirection.MAXIMIZE))


class EndRules:
    """The rules of a search.

    Args:
        settings: the settings of the search.
        past: the trials of its earlier parts by number; running trials do not count.
        suggester: the source of its trials.
        examples: the metric that selects and the number of examples that it is measured on; without it
            `search.stop_when` does not apply.

    Attributes:
        rule: the rule that has ended the search, so that no new trial begins; None to go on.
    """

    def __init__(
        self,
        settings: Settings,
        past: Mapping[int, TrialRecord],
        suggester: Suggester | EqualMethods,
        examples: tuple[str, int] | None,
    ) -> None:
        self._stall = Stall(settings.search.stop_after_stalled, suggester.costs)
        for _, trial in sorted(past.items(), key=lambda item: (item[1].ended_at, item[0])):
            if trial.state != TrialState.RUNNING:
                self._stall.ended(final_score(trial), trial.params)
        applies = settings.search.stop_when == "noise"
        self._noise = NoiseRule(suggester, *examples) if applies and examples else None
        self.rule = self._first_rule(past)

    def ended(self, trial: TrialRecord, trials: Mapping[int, TrialRecord]) -> None:
        """Count a trial that has ended.

        Args:
            trial: the trial.
            trials: all known trials by number.
        """
        self._stall.ended(final_score(trial), trial.params)
        self.rule = self.rule or self._first_rule(trials)

    def _first_rule(self, trials: Mapping[int, TrialRecord]) -> EndRule | None:
        if self._stall.rule is not None or self._noise is None:
            return self._stall.rule
        return self._noise.decide(trials)
