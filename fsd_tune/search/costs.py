"""The costs of trials. They depend on the student's shape alone, so they are known before a trial starts."""

from collections.abc import Mapping
from typing import Any

from fsd_tune.settings.loader import Settings
from fsd_tune.settings.objectives import SCORE
from fsd_tune.settings.schema import Student
from fsd_tune.settings.shapes import RANDOM, student_of, students

# A shape: layers and hidden size, None for the teacher's.
Shape = tuple[int, int | None]


class TrialCosts:
    """The costs of each trial, and the limits that its shape must meet.

    Args:
        settings: the settings of the search.
        by_shape: by shape, the costs by name: at least those of `search.objectives` and `search.limits`, for each shape
            of the space.

    Attributes:
        names: the costs among the objectives, in their order; empty if the score is the only objective.
    """

    def __init__(self, settings: Settings, by_shape: Mapping[Shape, Mapping[str, float]]) -> None:
        self.names = tuple(name for name in settings.search.objectives if name != SCORE)
        self._settings = settings
        self._by_shape = by_shape
        self._limits = settings.search.limits
        self._allowed = tuple(student for student in students(settings) if self._meets(student))
        assert self._allowed, "a search begins only if a shape meets the limits"

    def of(self, params: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the costs among the objectives, in the order of `names`.

        Args:
            params: the searched parameters of a trial, or its flat configuration.
        """
        costs = self._costs(student_of(self._settings, params))
        return tuple(float(costs[name]) for name in self.names)

    def allows(self, params: Mapping[str, Any]) -> bool:
        """Return whether a trial's shape meets `search.limits`.

        Args:
            params: the searched parameters of the trial, or its flat configuration.
        """
        return self._meets(student_of(self._settings, params))

    def allowed(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a trial with the nearest shape that meets the limits.

        The nearest shape has the same start if possible, then the nearest depth, then the nearest width; among equal
        ones it is the first in the order of the settings.

        Args:
            params: the searched parameters of a trial.

        Returns:
            The parameters, unchanged if their shape meets the limits.
        """
        student = student_of(self._settings, params)
        if self._meets(student):
            return dict(params)
        near = min(self._allowed, key=lambda other: self._distance(student, other))
        searched = self._settings.student.choices
        shape = {name: getattr(near, name) for name in searched if name != "hidden_size" or near.start == RANDOM}
        return {name: value for name, value in params.items() if name not in searched} | shape

    def _costs(self, student: Student) -> Mapping[str, float]:
        return self._by_shape[student.layers, student.hidden_size]

    def _meets(self, student: Student) -> bool:
        costs = self._costs(student) if self._limits else {}
        return all(costs[name] <= limit for name, limit in self._limits.items())

    def _distance(self, student: Student, other: Student) -> tuple[bool, int, int]:
        # The teacher's width is above all others.
        widths = sorted({each.hidden_size or 0 for each in students(self._settings)}, key=lambda width: width or 10**9)
        places = [widths.index(each.hidden_size or 0) for each in (student, other)]
        return student.start != other.start, abs(student.layers - other.layers), abs(places[0] - places[1])
