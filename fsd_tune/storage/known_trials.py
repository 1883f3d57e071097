"""Optuna studies in memory that share their trials. Optuna's own copy each trial whenever it is added or read."""

from collections.abc import Container, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState


def study_of(trials: Sequence[FrozenTrial], *directions: str) -> optuna.Study:
    """Return a study in memory that holds trials without copying them.

    Args:
        trials: the trials in the order of their numbers. They come before those that the study adds.
        *directions: `maximize` or `minimize` for each objective; without any, the study maximises one.
    """
    return optuna.create_study(directions=directions or ["maximize"], storage=_KnownTrials(trials))


class _KnownTrials(optuna.storages.InMemoryStorage):  # type: ignore[misc]
    def __init__(self, known: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._known = known

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the known trials as they are, then the added ones.

        Args:
            study_id: the id of the one study.
            deepcopy: whether to copy the added trials.
            states: the states of the trials to return; None for all.
        """
        known = self._known if states is None else [trial for trial in self._known if trial.state in states]
        return [*known, *super().get_all_trials(study_id, deepcopy, states)]
