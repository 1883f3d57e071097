"""CMA-ES without a memory of its own: each suggestion replays the evolution from the trials that are known.

Optuna's CmaEsSampler keeps its state, pickled, in the study's trials; the study that a suggestion is made from is
built anew each time, and a search may continue from its folder alone. Told again in the same order the strategy comes
to the same distribution, and only the generation that each trial was drawn in has to be remembered.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution


class Told(NamedTuple):
    """An ended trial: the generation that it was drawn in, its parameters and its score (higher is better)."""

    generation: int
    params: Mapping[str, Any]
    score: float


def usable(distributions: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """The parameters that CMA-ES can draw: numbers with more than one value."""
    return {
        name: distribution
        for name, distribution in distributions.items()
        if isinstance(distribution, FloatDistribution | IntDistribution) and not distribution.single()
    }


def draw(space: Mapping[str, BaseDistribution], told: Sequence[Told], seed: int) -> tuple[dict[str, Any], int]:
    """Parameters of a new trial and its generation: a function of the arguments alone.

    Args:
        space: the parameters, as `usable` gives them; at least one.
        told: ended trials in the order of their numbers. A generation is over when as many of its trials have ended
            as the population has members; what ends later, from an earlier generation, is left aside.
        seed: of the draw.
    """
    from cmaes import CMA

    names = list(space)
    optimizer = CMA(
        mean=np.full(len(names), 0.5),
        sigma=1 / 6,
        bounds=np.tile([0.0, 1.0], (len(names), 1)),
        n_max_resampling=10 * len(names),
        seed=seed,
    )
    while True:
        members = [trial for trial in told if trial.generation == optimizer.generation]
        if len(members) < optimizer.population_size:
            break
        optimizer.tell([(_inside(space, m.params), -m.score) for m in members[: optimizer.population_size]])
    drawn = optimizer.ask()
    return {name: _outside(space[name], float(drawn[place])) for place, name in enumerate(names)}, optimizer.generation


def _ends(distribution: Any) -> tuple[float, float]:
    """Both ends of a range; half a step beyond it where values come in steps, so that all are equally wide."""
    half = 0.5 * distribution.step if distribution.step is not None else 0.0
    low, high = distribution.low - half, distribution.high + half
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def _inside(space: Mapping[str, BaseDistribution], params: Mapping[str, Any]) -> NDArray[np.float64]:
    """The place of parameters in the unit cube."""
    place: list[float] = []
    for name, distribution in space.items():
        low, high = _ends(distribution)
        value = float(params[name])
        place.append(((math.log(value) if distribution.log else value) - low) / (high - low))
    return np.asarray(place, np.float64).clip(0.0, 1.0)


def _outside(distribution: Any, place: float) -> float | int:
    """The value at a place from 0 to 1 of a range."""
    low, high = _ends(distribution)
    value = low + place * (high - low)
    value = math.exp(value) if distribution.log else value
    if distribution.step is not None:
        value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
    value = float(min(max(value, distribution.low), distribution.high))
    return round(value) if isinstance(distribution, IntDistribution) else value
