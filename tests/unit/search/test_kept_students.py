import math

from fsd_tune.search.kept_students import KeptStudents


def test_the_three_best_keep_their_students():
    students = KeptStudents({0: 0.5, 1: 0.6, 2: math.nan})
    assert students.admits(3, 0.1) and students.add(3, 0.1) == []
    assert not students.admits(4, 0.1), "of equals the earlier one is better"
    assert students.admits(4, 0.2) and students.add(4, 0.2) == [3]
    assert not students.admits(5, math.nan)
    # Two trials may end at the same time; then the worse one is dropped although it was admitted.
    assert students.admits(6, 0.3) and students.admits(7, 0.9)
    assert students.add(7, 0.9) == [4] and students.add(6, 0.3) == [6]
