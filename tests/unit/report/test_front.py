"""Fronts against slow definitions, and hypervolumes against inclusion and exclusion."""

import itertools

import numpy as np
import pytest

from fsd_tune.report.front import crowding, hypervolume, knee, nondominated, pick, ranks
from fsd_tune.settings.objectives import Within


def clouds(seed=0):
    """Points of two to four objectives; some on a coarse grid, so that there are equal coordinates and equal points."""
    generator = np.random.default_rng(seed)
    for objectives in (1, 2, 3, 4):
        for number in (1, 2, 7, 25):
            yield generator.normal(size=(number, objectives))
            yield generator.integers(0, 4, (number, objectives)).astype(float)


def dominates(one, other):
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(a > b for a, b in zip(one, other, strict=True))


def slow_ranks(points):
    left, rank = set(range(len(points))), 0
    found: dict[int, int] = {}
    while left:
        front = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        found |= dict.fromkeys(front, rank)
        left -= front
        rank += 1
    return [found[i] for i in range(len(points))]


def union_of_boxes(points, reference):
    """The volume of the union of the boxes between the reference and each point, by inclusion and exclusion."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            edges = np.clip(np.min(chosen, axis=0) - reference, 0, None)
            total += (-1) ** (size + 1) * float(np.prod(edges))
    return total


def test_ranks_and_front_are_those_of_the_definition():
    for points in clouds():
        assert ranks(points).tolist() == slow_ranks(points)
        assert nondominated(points).tolist() == [rank == 0 for rank in slow_ranks(points)]
    assert ranks(np.empty((0, 2))).tolist() == []


def test_hypervolume_is_the_union_of_boxes():
    generator = np.random.default_rng(1)
    for objectives in (1, 2, 3, 4):
        for number in (0, 1, 2, 9):
            for kind in (generator.normal(size=(number, objectives)), generator.integers(0, 4, (number, objectives))):
                points = kind.astype(float)
                reference = np.full(objectives, 0.5)
                assert hypervolume(points, reference) == pytest.approx(union_of_boxes(points, reference), abs=1e-12)


def test_dominated_points_add_no_volume():
    for points in clouds(2):
        reference = points.min(axis=0) - 1
        assert hypervolume(points, reference) == pytest.approx(hypervolume(points[nondominated(points)], reference))


def test_crowding_is_the_relative_distance_of_the_neighbours():
    # By hand: in the first objective 1 and 4 are the neighbours of 2 in a width of 4, in the second 1 and 7 of 9.
    front = np.asarray([[4.0, 1.0], [0.0, 10.0], [2.0, 4.0], [1.0, 7.0]])
    assert crowding(front).tolist() == pytest.approx([np.inf, np.inf, (4 - 1) / 4 + (7 - 1) / 9, 2 / 4 + (10 - 4) / 9])
    assert crowding(np.ones((3, 2))).tolist() == [0, 0, 0], "equal points have no width"
    assert crowding(np.empty((0, 2))).tolist() == []


def test_the_knee_is_farthest_from_the_line_between_the_ends():
    generator = np.random.default_rng(3)
    for _ in range(20):
        # A front that bulges outwards, in units that differ by orders of magnitude, with a dominated point.
        angles = np.sort(generator.uniform(0, np.pi / 2, 12))
        front = np.column_stack([np.sin(angles) ** generator.uniform(0.5, 1.5), 1e6 * np.cos(angles)])
        front = front[nondominated(front)]
        scaled = (front - front.min(axis=0)) / np.ptp(front, axis=0)
        first, last = scaled[np.argmin(scaled[:, 0])], scaled[np.argmax(scaled[:, 0])]
        along = (last - first) / np.linalg.norm(last - first)
        outwards = np.asarray([-along[1], along[0]]) * np.sign(-along[1])
        expected = int(np.argmax((scaled - first) @ outwards))
        with_dominated = np.vstack([front.min(axis=0) - 1, front])
        assert knee(with_dominated) == expected + 1


def test_the_knee_of_special_fronts():
    assert knee(np.asarray([[0.5, 3.0]])) == 0
    assert knee(np.asarray([[0.0, 1.0], [1.0, 0.0]])) == 1, "the better score of two ends"
    assert knee(np.asarray([[0.7, -2.0], [0.7, -2.0]])) == 0
    assert knee(np.asarray([[0.0, 1.0], [0.2, 0.2], [1.0, 0.0]])) == 2, "a front that bends inwards has its ends"
    assert knee(np.asarray([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.6, 0.6, 0.6]])) == 3


SCORES = np.asarray([0.80, 0.78, 0.70, 0.80, 0.79])
COSTS = np.asarray([[9.0, 1.0], [4.0, 9.0], [2.0, 3.0], [8.0, 5.0], [4.0, 8.0]])


@pytest.mark.parametrize(
    ("how", "teacher", "expected"),
    [
        ("best", 0.8, 3),  # the cheaper one of two best
        ("fastest", None, 2),
        (Within(within=1.0), 0.8, 4),  # 0.79 is within 1 point of 0.80
        (Within(within=2.0), 0.8, 4),  # of two of equal cost the better
        (Within(within=0.5), 0.8, 3),
        (Within(within=10), 0.8, 2),
        (Within(within=1.0), 0.95, 3),  # none is: the best
        (Within(within=1.0), None, 3),
        (Within(within=1.0), 0.7, 2),  # better than the teacher
    ],
)
def test_picks(how, teacher, expected):
    assert pick(SCORES, COSTS, how, teacher) == expected


def test_a_pick_without_costs_is_the_first_of_the_best():
    for how in ("best", "knee", "fastest"):
        assert pick(SCORES, np.empty((5, 0)), how) == 0
    costs = COSTS[:, :1]
    assert pick(SCORES, costs, "knee") == knee(np.column_stack([SCORES, -costs]))
