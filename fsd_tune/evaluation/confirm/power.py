"""The differences that a number of seeds can show, and the number of seeds that a difference needs."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsd_tune.evaluation.confirm.comparison import degrees_of_freedom
from fsd_tune.report.intervals import LEVEL

# The probability with which a difference shall be found.
POWER = 0.8
POINT = 0.01


@dataclass(frozen=True)
class Spread:
    """How much scores vary.

    Attributes:
        seeds: standard deviation of a configuration's score over training seeds.
        examples: standard error of a difference of mean scores over dev examples; 0 if unknown.
        source: what it was estimated from, in words.
    """

    seeds: float
    examples: float
    source: str


def spread_of_runs(runs: Iterable[Mapping[str, Any]], source: str, examples: float = 0.0) -> Spread | None:
    """Return the spread over seeds within configurations, pooled over configurations.

    Args:
        runs: records with `config`, `seed` and `score`; those without a score are left out.
        source: what they are, in words.
        examples: standard error of a difference over dev examples.

    Returns:
        The spread; None for fewer than three degrees of freedom.
    """
    groups: dict[str, dict[int, float]] = defaultdict(dict)
    for run in runs:
        if isinstance(run.get("score"), float):
            groups[repr(sorted(run["config"].items()))][run["seed"]] = run["score"]
    squares, freedom = 0.0, 0
    for scores in groups.values():
        mean = math.fsum(scores.values()) / len(scores)
        squares += math.fsum((score - mean) ** 2 for score in scores.values())
        freedom += len(scores) - 1
    return Spread(math.sqrt(squares / freedom), examples, source) if freedom >= 3 else None


def spread_of_trials(scores: Sequence[float]) -> Spread | None:
    """Return a rough spread from the better half of a search's finished trials.

    Their hyperparameters differ, which widens it; being the better half narrows it.

    Args:
        scores: scores of finished trials, best first.

    Returns:
        The spread; None for fewer than eight trials.
    """
    best = scores[: len(scores) // 2]
    if len(best) < 4:
        return None
    mean = math.fsum(best) / len(best)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in best) / (len(best) - 1))
    return Spread(deviation, 0.0, f"the better half of the search's {len(scores)} finished trials, a rough guess")


def power(spread: Spread, seeds: int, difference: float) -> float:
    """Return the probability that a difference is found.

    Args:
        spread: of the scores. Two configurations on one seed are taken as independent.
        seeds: number of seeds, at least two.
        difference: the true difference, in the metric.
    """
    from scipy.stats import nct, t

    seed_error = math.sqrt(2 / seeds) * spread.seeds
    error = math.hypot(seed_error, spread.examples)
    if error == 0:
        return 1.0
    freedom = min(degrees_of_freedom(seeds, seed_error, spread.examples), 1e6)
    return float(nct.sf(t.ppf((1 + LEVEL) / 2, freedom), freedom, difference / error))


def detectable(spread: Spread, seeds: int) -> float:
    """Return the smallest difference that is found with probability `POWER`.

    Args:
        spread: of the scores.
        seeds: number of seeds, at least two.
    """
    low, high = 0.0, 100 * (spread.seeds + spread.examples) + 1e-9
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if power(spread, seeds, middle) >= POWER else (middle, high)
    return high


def seeds_needed(spread: Spread, difference: float, most: int) -> int | None:
    """Return the number of seeds that finds a difference with probability `POWER`.

    Args:
        spread: of the scores.
        difference: the true difference, in the metric.
        most: the largest number to consider.

    Returns:
        The smallest number; None if `most` are not enough.
    """
    if power(spread, most, difference) < POWER:
        return None
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(spread, middle, difference) >= POWER else (middle, high)
    return high


def power_line(spread: Spread, seeds: int) -> str:
    """Return a line on what a number of seeds can show.

    Args:
        spread: of the scores.
        seeds: number of fresh seeds.
    """
    examples = f", over dev examples {spread.examples / POINT:.1f}" if spread.examples else ""
    return (
        f"{seeds} fresh seeds show a difference of {detectable(spread, seeds) / POINT:.1f} points or more in "
        f"{POWER:.0%} of cases (spread over seeds {spread.seeds / POINT:.1f}{examples} points, from {spread.source})"
    )


def shortage(spread: Spread, seeds: int, difference: float, most: int) -> str:
    """Return why a number of seeds cannot show a difference; empty if it can.

    Args:
        spread: of the scores.
        seeds: number of fresh seeds.
        difference: the wanted difference, in the metric.
        most: the largest number of seeds that `confirm` takes.
    """
    if power(spread, seeds, difference) >= POWER:
        return ""
    needed = seeds_needed(spread, difference, most)
    advice = f"it needs {needed}" if needed else f"not even {most} seeds show it on these dev examples"
    return (
        f"{seeds} fresh seeds show {detectable(spread, seeds) / POINT:.1f} points or more, but found "
        f"{difference / POINT:g}; {advice} (spread over seeds {spread.seeds / POINT:.1f} points, from {spread.source})"
    )
