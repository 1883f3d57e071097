"""Decide a comparison seed by seed, with an interval that stays valid however often one looks at it."""

import math
from collections.abc import Sequence
from enum import Enum

from fsd_tune.report.intervals import LEVEL, Interval, mean_and_deviation

# Prior variance of the difference in standard deviations, in the mixture of the test. Simulated worlds (docs) stop
# after the fewest seeds with values around 1.
_PRIOR = 1.0
# A comparison ends undecided when the probability that its remaining seeds decide it is lower.
_HOPE = 0.1
# With fewer seeds the deviation is too uncertain to give up.
FIRST_SEEDS = 3


class Decision(Enum):
    """The state of a comparison."""

    OPEN = "open"
    DECIDED = "decided"
    HOPELESS = "cannot be decided any more"


def confidence_sequence(differences: Sequence[float], example_error: float, level: float = LEVEL) -> Interval:
    """Return the mean of paired differences with an interval that holds at all numbers of seeds at once.

    The interval over seeds inverts the t-test with a normal mixture over effect sizes. Its Bayes factor is a test
    martingale under the null hypothesis, so that Ville's inequality bounds the error at any stopping time (Lai, "On
    confidence sequences", 1976; Pérez-Ortiz et al., "E-statistics, group invariance and anytime-valid testing", 2024).
    The uncertainty over examples does not shrink with seeds. Each part has half of the error, and the half-widths are
    added, so that both hold together.

    Args:
        differences: differences of scores, one per seed, at least two.
        example_error: standard error of their mean over dev examples.
        level: the probability that all intervals contain the true difference.
    """
    mean, deviation = mean_and_deviation(differences)
    half = _half_width(len(differences), deviation, example_error, level)
    return Interval(mean, mean - half, mean + half)


def _half_width(seeds: int, deviation: float, example_error: float, level: float) -> float:
    from scipy.stats import norm

    error = (1 - level) / 2 if example_error else 1 - level
    bound = _bound(seeds, error)
    if math.isinf(bound):
        return math.inf
    return bound * deviation / math.sqrt(seeds) + float(norm.isf(error / 2)) * example_error


def _bound(seeds: int, error: float) -> float:
    """Return the t statistic from which on the Bayes factor is at least `1 / error`; infinite for too few seeds."""
    ratio = 1 + seeds * _PRIOR
    factor = (math.sqrt(ratio) / error) ** (2 / seeds)
    if factor >= ratio:
        return math.inf
    return math.sqrt((seeds - 1) * (factor - 1) / (1 - factor / ratio))


def decide(differences: Sequence[float], example_error: float, most: int, level: float = LEVEL) -> Decision:
    """Return whether a comparison is decided, or cannot be decided any more.

    Args:
        differences: differences of scores, one per seed.
        example_error: standard error of their mean over dev examples.
        most: the largest number of seeds.
        level: of the interval.
    """
    from scipy.stats import t

    seeds = len(differences)
    if seeds < FIRST_SEEDS:
        return Decision.OPEN if seeds < most else Decision.HOPELESS
    if not confidence_sequence(differences, example_error, level).contains_zero:
        return Decision.DECIDED
    if seeds >= most:
        return Decision.HOPELESS
    mean, deviation = mean_and_deviation(differences)
    needed = _half_width(most, deviation, example_error, level) - abs(mean)
    # Of the mean over all seeds, given those so far and a flat prior.
    error = deviation * math.sqrt((most - seeds) / (most * seeds))
    if error == 0:
        return Decision.OPEN if needed < 0 else Decision.HOPELESS
    return Decision.OPEN if float(t.sf(needed / error, seeds - 1)) >= _HOPE else Decision.HOPELESS
