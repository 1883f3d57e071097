"""Points that no other dominates: ranks, crowding, hypervolume, and the student to pick.

Points are rows, and every column is to be maximised; give costs with a minus sign. A point dominates another if it is
at least as good in every column and better in one, so equal points do not dominate each other.
"""

import numpy as np
from numpy.typing import NDArray

from fsd_tune.settings.objectives import Pick, Within

Points = NDArray[np.float64]

# Differences below this are rounding: 0.8 - 0.01 is more than 0.79 in floating point.
_ROUNDING = 1e-9


def nondominated(points: Points) -> NDArray[np.bool_]:
    """Return which points no other point dominates.

    Args:
        points: float [points, objectives], without NaN.

    Returns:
        bool [points].
    """
    return np.asarray(~_dominates(points).any(axis=0))


def ranks(points: Points) -> NDArray[np.int64]:
    """Return the non-dominated rank of each point: 0 for the front, 1 for the front without those points, and so on.

    Args:
        points: float [points, objectives], without NaN.

    Returns:
        int [points].
    """
    dominates = _dominates(points)
    dominating = dominates.sum(axis=0)
    found = np.zeros(len(dominates), np.int64)
    rank = 0
    while (front := dominating == 0).any():
        found[front] = rank
        dominating -= dominates[front].sum(axis=0)
        dominating[front] = -1
        rank += 1
    return found


def _dominates(points: Points) -> NDArray[np.bool_]:
    """Return whether the first point dominates the second, bool [points, points]."""
    points = np.asarray(points, np.float64)
    assert not np.isnan(points).any(), "points with NaN have no order"
    at_least = np.ones((len(points), len(points)), np.bool_)
    for column in points.T:
        at_least &= column[:, None] >= column[None]
    return at_least & ~at_least.T


def crowding(points: Points) -> Points:
    """Return the crowding distance of each point of one front (Deb et al., "NSGA-II", 2002).

    Args:
        points: float [points, objectives], the points of one rank.

    Returns:
        float [points]: over the objectives, the sum of the distances between the two neighbours in that objective,
        relative to the front's width; infinite for the ends.
    """
    points = np.asarray(points, np.float64)
    found = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        width = ordered[-1] - ordered[0] if len(ordered) else 0.0
        if width == 0:
            continue
        found[order[[0, -1]]] = np.inf
        found[order[1:-1]] += (ordered[2:] - ordered[:-2]) / width
    return found


def hypervolume(points: Points, reference: Points) -> float:
    """Return the volume that the points dominate and that lies above a reference.

    Args:
        points: float [points, objectives]; those that do not exceed the reference in every column add nothing.
        reference: float [objectives], the worst values that count.
    """
    reference = np.asarray(reference, np.float64)
    points = np.asarray(points, np.float64).reshape(-1, len(reference))
    return _volume(points[(points > reference).all(axis=1)] - reference)


def _volume(points: Points) -> float:
    """Return the volume between the origin and points of positive coordinates, slice by slice of the last column."""
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    points = points[np.argsort(-points[:, -1], kind="stable")]
    depths = points[:, -1] - np.append(points[1:, -1], 0.0)
    if points.shape[1] == 2:
        return float(np.maximum.accumulate(points[:, 0]) @ depths)
    slices = (depth * _volume(points[: end + 1, :-1]) for end, depth in enumerate(depths) if depth > 0)
    return float(sum(slices))


def knee(points: Points) -> int:
    """Return the index of the knee, the best trade between the objectives.

    The objectives are scaled to 0..1 on the front. The knee is the point of the front that lies farthest beyond the
    line between the front's two ends; with more objectives, beyond the plane through the points that are best in one of
    them and worst in the others (Das, "On characterizing the knee of the Pareto curve based on normal-boundary
    intersection", Structural Optimization 18, 1999). On that line the scaled objectives add up to 1, so the point with
    the largest sum is the knee. Among equal ones it is the best in the first objective, then the first.

    Args:
        points: float [points, objectives], at least one, without NaN.
    """
    points = np.asarray(points, np.float64)
    members = np.flatnonzero(nondominated(points))
    front = points[members]
    width = np.ptp(front, axis=0)
    scaled = (front - front.min(axis=0)) / np.where(width > 0, width, 1.0)
    total = scaled.sum(axis=1)
    farthest = np.flatnonzero(total >= total.max() - _ROUNDING)
    return int(members[farthest[np.argmax(front[farthest, 0])]])


def pick(scores: Points, costs: Points, how: Pick, teacher_score: float | None = None) -> int:
    """Return the index of the student that `search.pick` chooses.

    Among equal students it is the cheaper one, and among equal costs the first.

    Args:
        scores: float [students], at least one, without NaN; higher is better.
        costs: float [students, costs], the cost that decides first; lower is better. There may be no columns.
        how: `best` (highest score), `knee`, `fastest` (lowest first cost) or `Within` (lowest first cost of those that
            are at most so many points below the teacher; the best if there are none, or if there is no teacher).
        teacher_score: the teacher's score in the unit of `scores`; None if it is not known.
    """
    scores, costs = np.asarray(scores, np.float64), np.asarray(costs, np.float64).reshape(len(scores), -1)
    if how == "knee":
        return knee(np.column_stack([scores, -costs]))
    candidates = np.arange(len(scores))
    by_cost = how == "fastest"
    if isinstance(how, Within) and teacher_score is not None:
        close = np.flatnonzero(scores >= teacher_score - how.within / 100 - _ROUNDING)
        candidates, by_cost = (close, True) if len(close) else (candidates, False)
    keys = [*costs[candidates].T, -scores[candidates]] if by_cost else [-scores[candidates], *costs[candidates].T]
    # The last key of `lexsort` decides first.
    return int(candidates[np.lexsort(keys[::-1])[0]])
