"""CMA-ES without stored state: each suggestion replays the evolution from the known trials.

Optuna's CmaEsSampler keeps its pickled state in the study's trials. Here each suggestion builds its own study, and a
search can continue from its folder alone. A replay in the same order leads to the same distribution, so each trial only
records the generation in which it was drawn. Suggestions of one process share the generations that did not change.
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


class Replayed(NamedTuple):
    """A generation that was replayed: its members' parameters, best first, and CMA-ES after it."""

    members: list[Mapping[str, Any]]
    optimizer: Any


def draw(
    space: Mapping[str, BaseDistribution],
    ended: Sequence[EndedTrial],
    seed: int,
    replayed: list[Replayed] | None = None,
) -> tuple[dict[str, Any], int]:
    """Return the parameters of a new trial and its generation; they depend on `space`, `ended` and `seed` alone.

    Args:
        space: the parameters, as `usable` returns them; at least one.
        ended: ended trials in the order of their numbers. A generation is over when as many of its trials have ended
            as the population has members; its later trials are ignored.
        seed: the seed of the draw.
        replayed: the generations of the call before with the same space, which this one brings up to date; None replays
            all of them.
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
    replayed = [] if replayed is None else replayed
    drawn: dict[int, list[EndedTrial]] = {}
    for trial in ended:
        drawn.setdefault(trial.generation, []).append(trial)
    size = optimizer.population_size
    while len(members := drawn.get(optimizer.generation, [])[:size]) == size:
        # CMA-ES learns from the order of the members, not from their scores.
        best_first = [member.params for member in sorted(members, key=lambda member: -member.score)]
        generation = optimizer.generation
        if generation >= len(replayed) or replayed[generation].members != best_first:
            optimizer = _copy(optimizer)
            optimizer.tell([(_to_unit(space, params), float(rank)) for rank, params in enumerate(best_first)])
            replayed[generation:] = [Replayed(best_first, optimizer)]
        optimizer = replayed[generation].optimizer
    optimizer = _copy(optimizer)
    optimizer.reseed_rng(seed)
    position = optimizer.ask()
    params = {name: _from_unit(space[name], float(position[index])) for index, name in enumerate(names)}
    return params, optimizer.generation


def _copy(optimizer: Any) -> Any:
    """Return a copy with arrays of its own. Pickling, as the `copy` module does, would round the covariance."""
    copy = object.__new__(type(optimizer))
    own = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in vars(optimizer).items()}
    vars(copy).update(own)
    return copy


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
