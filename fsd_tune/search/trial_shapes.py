"""The costs of the student of each trial, as the search records and shows them. This module does not import torch."""

from collections.abc import Mapping
from typing import Any

from fsd_tune.report.members import LATENCY, front_costs
from fsd_tune.search.trial_record import TrialRecord, finished_scores
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.shapes import student_of
from fsd_tune.storage.shape_costs import ShapesSummary

_UNITS = {LATENCY: "ms", "size_mb": "MB", "parameters": "million parameters", "flops": "MFLOPs"}
_DIVISORS = {"parameters": 1e6, "flops": 1e6}


class TrialShapes:
    """The costs of the student of each trial.

    Args:
        settings: the settings of the search.
        shapes: the costs of its shapes; empty if they were not measured.
    """

    def __init__(self, settings: Settings, shapes: ShapesSummary) -> None:
        self._settings = settings
        self._shapes = shapes
        costs = shapes.students or []
        known = set.intersection(*(set(cost.costs) for cost in costs)) if costs else set()
        search = settings.search
        self._front = front_costs(search.objectives, search.limits, known) if len(costs) > 1 else ()

    def costs(self, config: Mapping[str, Any]) -> dict[str, float]:
        """Return the costs of a configuration's student by name; empty if they were not measured.

        Args:
            config: a flat configuration, or the searched parameters of a trial.
        """
        if not self._shapes:
            return {}
        student = student_of(self._settings, config)
        cost = self._shapes.of(student.layers, student.hidden_size)
        return {} if cost is None else cost.costs

    def point(self, score: float, config: Mapping[str, Any]) -> tuple[float, ...]:
        """Return a trial as a point whose coordinates are all better if higher: its score, and its costs negated.

        Args:
            score: the score of the trial.
            config: as for `costs`.

        Returns:
            The score and the costs that decide which trials are members of the front; the score alone if the space
            has a single shape.
        """
        costs = self.costs(config) if self._front else {}
        return (score, *(-costs[name] for name in self._front))

    def points(self, trials: Mapping[int, TrialRecord]) -> dict[int, tuple[float, ...]]:
        """Return the points of the finished trials by number.

        Args:
            trials: trials by number.
        """
        return {number: self.point(score, trials[number].params) for number, score in finished_scores(trials).items()}

    def text(self, config: Mapping[str, Any]) -> str:
        """Return what distinguishes a configuration's student in cost, such as `4.2 ms`; empty with a single shape.

        Args:
            config: as for `costs`.
        """
        if not self._front:
            return ""
        name = self._front[0]
        return f"{self.costs(config)[name] / _DIVISORS.get(name, 1):.3g} {_UNITS[name]}"
