"""Give every method of a search the same number of reports, for `search.compare_methods: equal`."""

import random
import statistics
from collections.abc import Iterable, Mapping, Sequence

from optuna.trial import FrozenTrial

from fsd_tune.search.costs import TrialCosts
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.search.warm_start import WarmTrial
from fsd_tune.settings.comparing import EQUAL, settings_of_method
from fsd_tune.settings.configuration import distributions
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.layout import TrialState


class EqualMethods:
    """A source of parameters for new trials that searches each method as if it were alone.

    The next trial goes to the method with the fewest reports, among equals to the one with the fewest trials, and then
    to one that the seed and the trial's number choose. The order of the methods in the settings has no effect.

    A method's suggester knows the trials of its method only, and numbers them from 0. So it begins with the method's
    default configuration, and the trials of other methods change nothing of what it suggests. Of earlier searches, too,
    it uses the trials of its method only.

    Args:
        settings: the settings of the search.
        earlier: trials of earlier searches of any method; those of each method in the order to try them.
        costs: the costs of the trials, as for `Suggester`.
    """

    def __init__(self, settings: Settings, earlier: Sequence[WarmTrial] = (), costs: TrialCosts | None = None) -> None:
        self.costs = costs
        self.distributions = distributions(settings)
        self._seed = settings.search.seed
        self._suggesters = {
            method: Suggester(settings_of_method(settings, method), earlier, costs)
            for method in sorted(settings.methods)
        }
        self._once = set(tried_once(settings))

    def seed(self, number: int) -> int:
        """Return the seed of a trial.

        Args:
            number: the number of the trial.
        """
        return next(iter(self._suggesters.values())).seed(number)

    def suggest(
        self, number: int, trials: Mapping[int, TrialRecord], waiting: Iterable[TrialRecord] = ()
    ) -> TrialRecord | None:
        """Return a record with the parameters of a new trial, of the method with the fewest reports.

        Args:
            number: the number of the new trial.
            trials: the known trials by number.
            waiting: not used; only a grid, which cannot compare methods, needs it.
        """
        own = self._by_method(trials)
        method = self._next_method(number, own)
        position = sum(known < number for known in own[method])
        return self._suggesters[method].suggest(position, own[method])

    def believed(self, trials: Mapping[int, TrialRecord]) -> list[list[FrozenTrial]]:
        """Return the ended trials with the scores that the samplers learn, in one list for each searched method.

        Args:
            trials: the known trials by number.
        """
        return [
            known
            for method, own in self._by_method(trials).items()
            if method not in self._once
            for known in self._suggesters[method].believed(own)
        ]

    def _by_method(self, trials: Mapping[int, TrialRecord]) -> dict[str, dict[int, TrialRecord]]:
        own: dict[str, dict[int, TrialRecord]] = {method: {} for method in self._suggesters}
        for number, trial in trials.items():
            if trial.params:
                own[trial.params["method"]][number] = trial
        return own

    def _next_method(self, number: int, own: Mapping[str, Mapping[int, TrialRecord]]) -> str:
        methods = [method for method in self._suggesters if not (method in self._once and own[method])]
        random.Random(f"{self._seed} {number}").shuffle(methods)
        spent = _spent(own)
        return min(methods, key=lambda method: (spent[method], len(own[method])))


def _spent(own: Mapping[str, Mapping[int, TrialRecord]]) -> dict[str, float]:
    """Return the reports of each method's trials.

    A running trial counts with at least the mean of the finished and stopped ones, so that many free workers do not all
    start the same method before its next report. So does a failed one, because a method whose trials all crash at once
    would otherwise take most of the trials.
    """
    ended = (TrialState.FINISHED, TrialState.STOPPED)
    trials = [trial for of_method in own.values() for trial in of_method.values()]
    mean = statistics.fmean([len(trial.values) for trial in trials if trial.state in ended] or [1])
    return {
        method: sum(
            len(trial.values) if trial.state in ended else max(len(trial.values), mean) for trial in of_method.values()
        )
        for method, of_method in own.items()
    }


def tried_once(settings: Settings) -> list[str]:
    """Return the methods that get one trial, because nothing of them is searched and a second one would repeat it.

    Args:
        settings: the settings of a search that compares its methods equally.

    Returns:
        Their names; none if nothing of any method is searched.
    """
    fixed = [name for name in settings.methods if len(distributions(settings_of_method(settings, name))) == 1]
    return fixed if len(fixed) < len(settings.methods) else []


def new_suggester(
    settings: Settings, earlier: Sequence[WarmTrial] = (), costs: TrialCosts | None = None
) -> Suggester | EqualMethods:
    """Return the source of new trials that the settings define.

    Args:
        settings: the settings of the search.
        earlier: trials of earlier searches, as `warm_start.WarmStart` has them.
        costs: the costs of the trials; None if the settings have neither costs among the objectives nor limits.
    """
    source = EqualMethods if settings.search.compare_methods == EQUAL else Suggester
    return source(settings, earlier, costs)
