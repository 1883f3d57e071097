"""The greedy portfolio of earlier searches: beside a slow reference, and what it must not depend on."""

import math
import random
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fsd_tune.search.portfolio import EarlierTask, choose, coordinates


def tasks_of(scores, seed=0, coordinates=3):
    rng = np.random.default_rng(seed)
    return [(rng.random((len(values), coordinates)), values) for values in scores]


def slow_choice(tasks, size):
    """The portfolio by its definition, trial by trial."""

    def distance(a, b):
        return math.dist(a, b)

    def regret(values, index):
        below = [max(values) - value for value in values]
        middle = float(np.median(below)) or 1.0
        return min(1.0, below[index] / middle)

    def estimate(task, point):
        points, values = task
        apart = [distance(point, other) for other in points]
        if min(apart) < 1e-5:
            return regret(values, apart.index(min(apart)))
        nearest = [min(distance(a, b) for j, b in enumerate(points) if j != i) for i, a in enumerate(points)]
        width = float(np.median(nearest))
        weights = [math.exp(-(d**2 - min(apart) ** 2) / (2 * width**2)) for d in apart]
        return sum(w * regret(values, i) for i, w in enumerate(weights)) / sum(weights)

    chosen: list[tuple[int, int]] = []
    reached = [1.0] * len(tasks)
    while len(chosen) < size:
        totals = {}
        for number, (points, _) in enumerate(tasks):
            for index, point in enumerate(points):
                if (number, index) not in chosen:
                    own = [estimate(other, point) for other in tasks]
                    total = sum(min(r, o) for r, o in zip(reached, own, strict=True)) + 1e-3 * sum(own) / len(own)
                    totals[number, index] = total
        best = min(totals, key=totals.__getitem__)
        chosen.append(best)
        reached = [min(r, estimate(task, tasks[best[0]][0][best[1]])) for r, task in zip(reached, tasks, strict=True)]
    return chosen


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_greedy_choice(seed):
    rng = random.Random(seed)
    tasks = tasks_of([[rng.random() for _ in range(count)] for count in (9, 5, 12)], seed)
    assert choose([EarlierTask(*task) for task in tasks], 6) == slow_choice(tasks, 6)


def test_each_task_has_a_good_configuration_among_the_first():
    """What is best on average is good on none of the two."""
    line = np.linspace(0, 1, 21)[:, None]
    left, right = [-(abs(x - 0.05) ** 0.5) for x in line[:, 0]], [-(abs(x - 0.95) ** 0.5) for x in line[:, 0]]
    chosen = choose([EarlierTask(line, left), EarlierTask(line, right)], 2)
    assert sorted(line[index, 0] for _, index in chosen) == pytest.approx([0.05, 0.95])


def test_the_metric_of_a_task_has_no_effect():
    tasks = tasks_of([[0.1, 0.5, 0.2, 0.9, 0.4], [0.7, 0.6, 0.9, 0.1, 0.3]])
    plain = choose([EarlierTask(points, scores) for points, scores in tasks], 5)
    other = [EarlierTask(tasks[0][0], [100 * score - 3 for score in tasks[0][1]]), EarlierTask(*tasks[1])]
    assert choose(other, 5) == plain


def test_equal_configurations_are_chosen_once_and_few_trials_suffice():
    point = np.asarray([[0.5, 0.5]])
    same = EarlierTask(np.repeat(point, 3, axis=0), [0.1, 0.2, 0.3])
    assert len(choose([same, EarlierTask(point, [0.4])], 5)) == 1
    assert choose([], 5) == []


def test_parameters_have_equal_weights():
    space = {
        "learning_rate": FloatDistribution(1e-5, 1e-3, log=True),
        "epochs": IntDistribution(1, 5),
        "method": CategoricalDistribution(["kd", "fsd_g"]),
        "beta": FloatDistribution(0.0, 2.0),
        "fixed": FloatDistribution(3.0, 3.0),
    }
    base: dict[str, Any] = {"learning_rate": 1e-5, "epochs": 1, "method": "kd", "fixed": 3.0}
    others: list[dict[str, Any]] = [
        {"learning_rate": 1e-3},
        {"epochs": 5},
        {"method": "fsd_g"},
        {"beta": 0.0},
        {"learning_rate": 1e-4},
    ]
    points = coordinates(space, [base, *(base | other for other in others)])
    assert np.linalg.norm(points[1:] - points[0], axis=1) == pytest.approx([1, 1, 1, 1, 0.5])


def test_a_width_that_a_start_does_not_have_is_the_teachers():
    space = {"start": CategoricalDistribution(["copy", "random"]), "hidden_size": CategoricalDistribution([None, 192])}
    shapes: list[dict[str, Any]] = [
        {"start": "copy"},
        {"start": "random", "hidden_size": None},
        {"start": "random", "hidden_size": 192},
    ]
    points = coordinates(space, shapes)
    assert np.linalg.norm(points[1] - points[[0, 2]], axis=1) == pytest.approx([1, 1])
