"""All combinations of a space's discrete values in a fixed order, for `search.sampler: grid`."""

import itertools
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from fsd_tune.settings.configuration import configure
from fsd_tune.settings.domains import Choice, Range, last
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import HYPERPARAMETERS

# Counting stops here, because nobody runs so many trials and a space of six choices may have a billion points.
MOST = 10_000

Point = dict[str, Any]


def points(settings: Settings, given: Mapping[str, Any] | None = None) -> Iterator[Point]:
    """Yield the grid's points, {searched parameter: value}, each once. The last parameter changes fastest.

    A conditional parameter is part of a point only if its condition holds.

    Args:
        settings: the settings of the search.
        given: values that restrict the grid, by parameter.
    """
    given = given or {}
    path: list[int] = []
    values: dict[str, list[Any]] = {}
    while True:
        # Build one configuration for each path of choices, as a define-by-run sampler does, because the next
        # parameter may depend on the values of earlier ones.
        sizes: list[int] = []

        def pick(name: str, entry: Range | Choice, sizes: list[int] = sizes) -> Any:
            if name not in values:
                all_values = _values(name, entry)
                matching = [value for value in all_values if name in given and _same(value, given[name])]
                values[name] = matching or all_values
            depth = len(sizes)
            if depth == len(path):
                path.append(0)
            sizes.append(len(values[name]))
            return values[name][path[depth]]

        yield configure(settings, pick, only_picked=True)
        while path and path[-1] + 1 == sizes[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1


def size(settings: Settings) -> int:
    """Return the number of points of the grid; the count stops at `MOST` + 1.

    Args:
        settings: the settings of the search.
    """
    return sum(1 for _ in itertools.islice(points(settings), MOST + 1))


def point_key(point: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return a point's parameters as a hashable key that does not depend on their order.

    Args:
        point: values by parameter.
    """
    return tuple(sorted(point.items()))


class Remaining:
    """An iterator over the points of a grid that have not been run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._points = points(settings)

    def next(self, run: set[tuple[tuple[str, Any], ...]], first: Mapping[str, Any] | None = None) -> Point | None:
        """Return the next point; None when all have been run.

        Args:
            run: the keys of the points that have been run; the set may only grow from call to call.
            first: values that the point should have, by parameter. Among the remaining points with these values, the
                point that uses most of the parameters is chosen. Without such a point `first` has no effect.
        """
        if first:
            matching = itertools.islice(points(self._settings, first), MOST)
            remaining = [point for point in matching if point_key(point) not in run]
            if remaining:
                return max(remaining, key=lambda point: sum(name in point for name in first))
        for point in self._points:
            if point_key(point) not in run:
                return point
        return None


def _same(value: Any, other: Any) -> bool:
    return value == other or (isinstance(value, float) and math.isclose(value, other, rel_tol=1e-9))


def _values(name: str, entry: Range | Choice) -> list[Any]:
    if isinstance(entry, Choice):
        return list(entry.choice)
    if HYPERPARAMETERS[name].kind is int:
        return list(range(int(entry.low), int(last(entry)) + 1, 1 if entry.step is None else int(entry.step)))
    assert entry.step is not None, "settings refuse a grid of ranges without a step"
    # Compute with decimals, because 0.1 + 2 * 0.1 is not 0.3 in floating point.
    low = Decimal(str(entry.low))
    high = Decimal(str(last(entry)))
    step = Decimal(str(entry.step))
    return [float(low + index * step) for index in range(int((high - low) / step) + 1)]
