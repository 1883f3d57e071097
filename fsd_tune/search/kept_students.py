"""Which finished trials keep their students on disk. This module does not use Ray."""

import math
from collections.abc import Mapping

import numpy as np

from fsd_tune.report.front import crowding, nondominated
from fsd_tune.storage.checkpoints import FRONT_STUDENTS, STUDENTS

# A score, and for a search with several shapes the costs, negated: of each coordinate more is better.
Point = tuple[float, ...]


class KeptStudents:
    """The best finished trials, and the trials that no other one beats in score and cost.

    The best ones' students are kept in case one is damaged, and those of the front for `best/front/`.
    """

    def __init__(self, points: Mapping[int, Point]) -> None:
        """Start with the finished trials of an earlier part of the search.

        Args:
            points: their points by number, as `shape_costs.TrialShapes.point` returns them.
        """
        self._points = {number: point for number, point in points.items() if math.isfinite(point[0])}

    def admits(self, number: int, point: Point) -> bool:
        """Return whether a trial would be kept; of equal points the lower number is better, as in results.

        Args:
            number: the number of the trial.
            point: its point.
        """
        return math.isfinite(point[0]) and number in _kept(self._points | {number: point})

    def add(self, number: int, point: Point) -> list[int]:
        """Add a finished trial.

        Args:
            number: the number of the trial.
            point: its point.

        Returns:
            The numbers of the trials that are no longer kept; it may be one of them itself.
        """
        self._points[number] = point
        kept = _kept(self._points)
        dropped = [n for n in sorted(self._points) if n not in kept]
        for n in dropped:
            del self._points[n]
        return dropped


def _kept(points: Mapping[int, Point]) -> set[int]:
    """Return the numbers of the best trials and of the front's."""
    ranked = sorted(points, key=lambda number: (-points[number][0], number))
    kept = set(ranked[:STUDENTS])
    if len(points[ranked[0]]) == 1:
        return kept
    first: dict[Point, int] = {}
    for number in ranked:
        first.setdefault(points[number], number)  # Of equal points the first one is the member.
    rows = np.array(list(first))
    front = np.flatnonzero(nondominated(rows))
    by_distance = np.argsort(-crowding(rows[front]), kind="stable")
    return kept | {list(first.values())[index] for index in front[by_distance[:FRONT_STUDENTS]]}
