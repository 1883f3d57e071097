"""Which finished trials keep their students on disk. This module does not use Ray."""

import math
from collections.abc import Mapping

from fsd_tune.storage.checkpoints import STUDENTS


class KeptStudents:
    """The best finished trials. The best one's student is exported; the others take its place if it is damaged."""

    def __init__(self, scores: Mapping[int, float]) -> None:
        """Start with the finished trials of an earlier part of the search.

        Args:
            scores: their scores by number.
        """
        self._scores = {number: score for number, score in scores.items() if math.isfinite(score)}

    def admits(self, number: int, score: float) -> bool:
        """Return whether a trial would be among the best; of equal scores the lower number is better, as in results.

        Args:
            number: the number of the trial.
            score: its score.
        """
        rank = (-score, number)
        better = sum((-other, n) < rank for n, other in self._scores.items() if n != number)
        return math.isfinite(score) and better < STUDENTS

    def add(self, number: int, score: float) -> list[int]:
        """Add a finished trial.

        Args:
            number: the number of the trial.
            score: its score.

        Returns:
            The numbers of the trials that are no longer among the best; it may be one of them itself.
        """
        self._scores[number] = score
        ranked = sorted(self._scores, key=lambda n: (-self._scores[n], n))
        dropped = ranked[STUDENTS:]
        for n in dropped:
            del self._scores[n]
        return dropped
