"""A grid: each of its points once, whatever was interrupted."""

import copy

from fsd_tune.search import grid
from fsd_tune.search.trial_record import TrialRecord
from tests.helpers.studies import FIXED, GRID, SHAPES, play, stored


def test_a_grid_has_every_combination_once(load):
    points = list(grid.points(load(GRID)))
    assert len(points) == grid.size(load(GRID)) == 2 * 2 + 3 * 2 + 3 * 2 * 2
    assert len({grid.point_key(point) for point in points}) == len(points)
    assert points == list(grid.points(load(GRID)))
    assert {tuple(point) for point in points} == {
        ("method", "epochs", "batch_size"), ("method", "alpha", "epochs"), ("method", "alpha", "beta", "epochs"),
    }  # fmt: skip
    assert {point["alpha"] for point in points if "alpha" in point} == {0.1, 0.2, 0.3}
    assert [(point["epochs"], point["batch_size"]) for point in points[:4]] == [(1, 16), (1, 64), (2, 16), (2, 64)]


def test_a_grid_has_the_widths_of_random_students_only(load):
    space = "method: kd\nspace: {alpha: {choice: [0.5, 1]}, temperature: 5}\nsearch: {sampler: grid}\n"
    points = list(grid.points(load(space + SHAPES.splitlines()[-1])))
    assert len({grid.point_key(point) for point in points}) == len(points) == 2 * (2 + 1) * 2
    assert grid.Remaining(load(space + SHAPES.splitlines()[-1])).next(set(), {"hidden_size": 192}) == {
        "layers": 2, "start": "random", "hidden_size": 192, "alpha": 0.5
    }  # fmt: skip


def test_a_grid_is_never_counted_to_its_end(load):
    wide = "method: kd\nspace: {alpha: {low: 0, high: 1, step: 1e-4}, temperature: {low: 1, high: 9, step: 1e-3}}\n"
    assert grid.size(load(wide + "search: {sampler: grid}\n")) == grid.MOST + 1


def test_a_grid_is_run_to_its_end_the_first_configurations_first(load, make, tmp_path):
    record = make(load(GRID))
    play(record, 22, stop=lambda n: 1 if n % 3 == 1 else None, fail=lambda n: n == 7)
    assert record.ask() is None
    params = [trial.params for trial in stored(tmp_path / "study.db")]
    assert len({grid.point_key(point) for point in params}) == 22
    # The first: the defaults of the first method, moved into the space; then the named ones, those that they leave
    # open as the grid has them first.
    assert params[0] == {"method": "ce", "epochs": 2, "batch_size": 16}
    assert params[1] == {"method": "fsd_g", "alpha": 0.3, "beta": 30.0, "epochs": 1}
    assert params[2] == {"method": "ce", "epochs": 2, "batch_size": 64}
    assert params[3:] == [point for point in grid.points(load(GRID)) if point not in params[:3]]


def test_a_continued_grid_runs_what_remains(load, make, tmp_path):
    record = make(load(GRID))
    configs = play(record, 22)
    first = make(load(GRID), file="first.db")
    play(first, 9)
    past = copy.deepcopy(first.trials)
    past[4] = TrialRecord(past[4].params)  # interrupted
    del past[6]  # never written
    again = make(load(GRID), past=past, file="again.db")
    played = play(again, 15)
    assert again.ask() is None
    assert list(played) == [4, 6, *range(9, 22)] and played[4] == configs[4] and played[6] == configs[6]
    assert len({grid.point_key(trial.params) for trial in stored(tmp_path / "again.db")}) == 22


def test_a_grid_of_one_point_is_one_trial(load, make):
    record = make(load(FIXED, "--sampler=grid"))
    assert len(play(record, 1)) == 1 and record.ask() is None
