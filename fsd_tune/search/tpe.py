"""Optuna's TPE for thousands of trials: it reads the parameters from one array instead of from each trial."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from fsd_tune.search.beliefs import KnownTrials


class KnownTrialsTpe(optuna.samplers.TPESampler):  # type: ignore[misc]
    """TPE that models the known trials of one suggestion; it suggests what Optuna's own does.

    Args:
        seed: of the suggestion.
        known: the trials.
    """

    def __init__(self, seed: int, known: KnownTrials) -> None:
        # `Suggester.suggest` handles the start-up trials, which it identifies by number. Optuna would count ended
        # trials, so more workers would mean more start-up trials.
        super().__init__(seed=seed, n_startup_trials=0, multivariate=True, group=True, constant_liar=True)
        self._known = known

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that are drawn together. One trial of each set of parameters decides them.

        Args:
            study: the study that is asked.
            trial: the new trial.
        """
        space: dict[str, BaseDistribution] = super().infer_relative_search_space(self._known.kinds, trial)
        return space

    def _get_internal_repr(
        self, trials: Sequence[FrozenTrial], search_space: Mapping[str, BaseDistribution], study: optuna.Study
    ) -> dict[str, NDArray[Any]]:
        """Return the values of each parameter, of the trials that have all of them.

        Were Optuna to rename this private method, its own one would do the same, only more slowly.
        """
        rows = self._known.numbers[[trial.number - 1 for trial in trials]]
        columns = [self._known.parameters.index(name) for name in search_space]
        values = rows[:, columns] if len(trials) else np.empty((0, len(columns)))
        values = values[~np.isnan(values).any(axis=1)]
        return dict(zip(search_space, values.T, strict=True))
