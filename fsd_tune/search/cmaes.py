"""CMA-ES without stored state: each suggestion replays the evolution from the known trials.

Optuna's CmaEsSampler keeps its pickled state in the study's trials. Here each suggestion builds its own study, and a
search can continue from its folder alone. A replay in the same order leads to the same distribution, so each trial only
records the generation in which it was drawn.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution


class EndedTrial(NamedTuple):
    """An ended trial: the generation in which it was drawn, its parameters and its score (higher is better)."""

    generation: int
    params: Mapping[str, Any]
    score: float


def usable(distributions: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """Return the parameters that CMA-ES can draw: numbers with more than one value.

    Args:
        distributions: the searched parameters by name.
    """
    return {
        name: distribution
        for name, distribution in distributions.items()
        if isinstance(distribution, FloatDistribution | IntDistribution) and not distribution.single()
    }


def draw(space: Mapping[str, BaseDistribution], ended: Sequence[EndedTrial], seed: int) -> tuple[dict[str, Any], int]:
    """Return the parameters of a new trial and its generation; they depend on the arguments alone.

    Args:
        space: the parameters, as `usable` returns them; at least one.
        ended: ended trials in the order of their numbers. A generation is over when as many of its trials have ended
            as the population has members; its later trials are ignored.
        seed: the seed of the draw.
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
        members = [trial for trial in ended if trial.generation == optimizer.generation]
        if len(members) < optimizer.population_size:
            break
        optimizer.tell([(_to_unit(space, m.params), -m.score) for m in members[: optimizer.population_size]])
    position = optimizer.ask()
    params = {name: _from_unit(space[name], float(position[index])) for index, name in enumerate(names)}
    return params, optimizer.generation


def _ends(distribution: Any) -> tuple[float, float]:
    """Return the ends of a range, widened by half a step so that all steps are equally wide; logarithms if `log`."""
    half = 0.5 * distribution.step if distribution.step is not None else 0.0
    low, high = distribution.low - half, distribution.high + half
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def _to_unit(space: Mapping[str, BaseDistribution], params: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the position of parameters in the unit cube, float64 [parameters]."""
    position: list[float] = []
    for name, distribution in space.items():
        low, high = _ends(distribution)
        value = float(params[name])
        position.append(((math.log(value) if distribution.log else value) - low) / (high - low))
    return np.asarray(position, np.float64).clip(0.0, 1.0)


def _from_unit(distribution: Any, position: float) -> float | int:
    """Return the value of a range at a position from 0 to 1."""
    low, high = _ends(distribution)
    value = low + position * (high - low)
    value = math.exp(value) if distribution.log else value
    if distribution.step is not None:
        value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
    value = float(min(max(value, distribution.low), distribution.high))
    return round(value) if isinstance(distribution, IntDistribution) else value
