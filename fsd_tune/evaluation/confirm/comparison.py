"""Compare two configurations by one interval over seeds and dev examples together.

A difference of mean scores varies with the training seeds and with the examples it is measured on. An interval for one
of them alone calls noise a result too often. Here the variances of both are added.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fsd_tune.report.intervals import LEVEL, Interval, mean_and_deviation


@dataclass(frozen=True)
class Comparison:
    """The difference between two configurations.

    Attributes:
        interval: estimate and 95% interval over seeds and examples.
        p: two-sided p-value of no difference.
        seed_error: standard error of the estimate over seeds.
        example_error: standard error of the estimate over dev examples.
    """

    interval: Interval
    p: float
    seed_error: float
    example_error: float


def compare(differences: Sequence[float], example_error: float) -> Comparison:
    """Return the mean of paired differences with an interval over seeds and examples.

    The two variances are added. The degrees of freedom are those of Satterthwaite, "An approximate distribution of
    estimates of variance components", 1946.

    Args:
        differences: differences of scores, one per seed, at least two.
        example_error: standard error of their mean over dev examples, such as that of a bootstrap.
    """
    from scipy.stats import t

    mean, deviation = mean_and_deviation(differences)
    seed_error = deviation / math.sqrt(len(differences))
    error = math.hypot(seed_error, example_error)
    if error == 0:
        return Comparison(Interval(mean, mean, mean), float(mean == 0), 0.0, 0.0)
    freedom = degrees_of_freedom(len(differences), seed_error, example_error)
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * error
    p = 2 * float(t.sf(abs(mean) / error, freedom))
    return Comparison(Interval(mean, mean - half, mean + half), p, seed_error, example_error)


def degrees_of_freedom(seeds: int, seed_error: float, example_error: float) -> float:
    """Return Satterthwaite's degrees of freedom of a sum of two variances; examples are many, so theirs are infinite.

    Args:
        seeds: number of seeds, at least two.
        seed_error: standard error over seeds.
        example_error: standard error over examples.
    """
    if seed_error == 0:
        return math.inf
    return (seeds - 1) * (1 + (example_error / seed_error) ** 2) ** 2


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for several comparisons.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Args:
        p_values: one per comparison.

    Returns:
        The adjusted p-values, in the same order.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def verdict(estimate: float, is_noise: bool) -> str:
    """Return the verdict on a difference in words.

    Args:
        estimate: winner minus baseline.
        is_noise: the difference is not significant.
    """
    if is_noise:
        return "within noise"
    return "better beyond noise" if estimate > 0 else "worse beyond noise"
