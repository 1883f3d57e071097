import math
import random

from fsd_tune.search.kept_students import KeptStudents
from fsd_tune.storage.checkpoints import FRONT_STUDENTS


def test_the_three_best_keep_their_students():
    students = KeptStudents({0: (0.5,), 1: (0.6,), 2: (math.nan,)})
    assert students.admits(3, (0.1,)) and students.add(3, (0.1,)) == []
    assert not students.admits(4, (0.1,)), "of equals the earlier one is better"
    assert students.admits(4, (0.2,)) and students.add(4, (0.2,)) == [3]
    assert not students.admits(5, (math.nan,))
    # Two trials may end at the same time; then the worse one is dropped although it was admitted.
    assert students.admits(6, (0.3,)) and students.admits(7, (0.9,))
    assert students.add(7, (0.9,)) == [4] and students.add(6, (0.3,)) == [6]


def test_the_members_of_the_front_keep_theirs():
    """However trials come in, those are kept that no other one beats, and the three best."""
    state = random.Random(1)
    for _ in range(30):
        points = {n: (state.randint(0, 9) / 10, -float(state.randint(1, 6))) for n in range(25)}
        students, kept = KeptStudents({}), set()
        for number in state.sample(sorted(points), 25):
            assert students.admits(number, points[number]) == (number not in students.add(number, points[number]))
            kept = set(students._points)
        best = sorted(points, key=lambda n: (-points[n][0], n))[:3]

        def beats(a, b, points=points):
            return (points[a] == points[b] and a < b) or (
                points[a] != points[b] and all(x >= y for x, y in zip(points[a], points[b], strict=True))
            )

        front = {n for n in points if not any(beats(other, n) for other in points)}
        assert kept == front | set(best)


def test_a_large_front_is_bounded_and_keeps_its_ends():
    count = 3 * FRONT_STUDENTS
    students = KeptStudents({n: (n / count, -float(n)) for n in range(count)})
    students.add(count, (1.0, -float(count)))
    assert len(students._points) <= FRONT_STUDENTS + 3
    assert {0, count, count - 1, count - 2} <= set(students._points)
