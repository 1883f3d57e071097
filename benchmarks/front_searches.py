"""Searches for a front, replayed on tables of trained networks: ours with pruning, and Optuna's samplers without."""

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import optuna
from ray.tune.schedulers import TrialScheduler

from benchmarks.networks import REPORTS, Networks, Seen
from benchmarks.strategies import FACTOR, GRACE, space_of
from fsd_tune.search.asha import ResumableAsha
from fsd_tune.search.costs import TrialCosts
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import METHODS, default
from fsd_tune.settings.objectives import COSTS
from fsd_tune.storage.layout import TrialState

WORKERS = 4
# The budget of a search in mean trainings, and at how many equal parts of it its front is measured.
BUDGET, POINTS = 50.0, 20
_METHOD = "fsd_ilg"


class Strategy(Protocol):
    """A search as the simulation drives it."""

    def ask(self) -> tuple[Any, Sequence[int]]:
        """Return a key and the index of the choice in each dimension."""

    def report(self, key: Any, report: int, value: float) -> bool:
        """Take a trial's report; return whether the trial is to stop. The last report ends the trial."""


def replay(seen: Seen, strategy: Strategy, profile: str) -> list[float]:
    """Run one search with `WORKERS` workers.

    Args:
        seen: what the search sees.
        strategy: the search.
        profile: of the learning curves.

    Returns:
        The hypervolume of the finished trials after each of `POINTS` equal parts of the budget.
    """
    networks = seen.networks
    finished: list[int] = []
    order = itertools.count()
    running: list[tuple[float, int, Any, int, int, Any]] = []

    def start(now: float) -> None:
        key, point = strategy.ask()
        row = networks.row(point)
        heapq.heappush(
            running, (now + networks.durations[row] / REPORTS, next(order), key, row, 1, seen.curve(row, profile))
        )

    for _ in range(WORKERS):
        start(0.0)
    volumes: list[float] = []
    while len(volumes) < POINTS:
        if running[0][0] > BUDGET / WORKERS * (len(volumes) + 1) / POINTS + 1e-12:
            volumes.append(seen.volume(finished))
            continue
        now, _, key, row, report, curve = heapq.heappop(running)
        stopped = strategy.report(key, report, float(curve[report - 1]))
        if report == REPORTS:
            finished.append(row)
        if stopped or report == REPORTS:
            start(now)
        else:
            step = now + networks.durations[row] / REPORTS
            heapq.heappush(running, (step, next(order), key, row, report + 1, curve))
    return volumes


class TableCosts(TrialCosts):
    """The costs of a table's rows. Here each configuration is a shape of its own."""

    def __init__(self, networks: Networks, row_of: Callable[[Mapping[str, Any]], int]) -> None:
        self.names = COSTS[: networks.costs.shape[1]]
        self._networks = networks
        self._row_of = row_of

    def of(self, params: Mapping[str, Any]) -> tuple[float, ...]:
        return tuple(self._networks.costs[self._row_of(params)].tolist())

    def allows(self, params: Mapping[str, Any]) -> bool:
        return True

    def allowed(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return dict(params)


class Ours:
    """The project's sampler and, unless it is switched off, its ASHA.

    The study on disk, which decides nothing, is left out.
    """

    def __init__(
        self,
        networks: Networks,
        seed: int,
        suggester: Callable[[Settings, Sequence[Any], TrialCosts], Suggester] = Suggester,
        pruning: bool = True,
        **search: Any,
    ) -> None:
        """Create the search.

        Args:
            networks: the table.
            seed: of the search.
            suggester: makes the source of new trials.
            pruning: whether ASHA stops trials.
            search: further settings of the section `search`.
        """
        # The first trial has the defaults. Tables have none, so a random combination takes their place.
        sizes = networks.sizes
        first = np.random.default_rng([seed, 1]).integers(sizes)
        ranges = space_of(np.asarray(first / (np.asarray(sizes) - 1)))
        self._values = {
            name: [float(value) for value in np.linspace(low, high, size)]
            for (name, (low, high)), size in zip(ranges.items(), sizes, strict=True)
        }
        space: dict[str, Any] = {name: default(_METHOD, name) for name in METHODS[_METHOD].hyperparameters}
        space |= {name: {"choice": values} for name, values in self._values.items()}
        names = COSTS[: networks.costs.shape[1]]
        search = {"trials": 64, "seed": seed, "objectives": ["score", *names], **search}
        settings = Settings.from_dict({"method": _METHOD, "space": space, "search": search})
        self.costs = TableCosts(networks, lambda params: networks.row(self.point(params)))
        self._suggester = suggester(settings, (), self.costs)
        self.trials: dict[int, TrialRecord] = {}
        self._asha = ResumableAsha("score", REPORTS, GRACE, FACTOR, {}, costs=self.costs) if pruning else None

    def point(self, config: Mapping[str, Any]) -> list[int]:
        return [values.index(config[name]) for name, values in self._values.items()]

    def ask(self) -> tuple[Any, Sequence[int]]:
        number = len(self.trials)
        suggested = self._suggester.suggest(number, self.trials)
        assert suggested is not None
        self.trials[number] = suggested
        if self._asha:
            self._asha.on_trial_add(None, self._trial(number))
        return number, self.point(suggested.params)

    def _trial(self, number: int) -> Any:
        """Return what the scheduler looks at in Tune's trial."""
        return SimpleNamespace(trial_id=str(number), config={"config": self.trials[number].params})

    def report(self, key: Any, report: int, value: float) -> bool:
        self.trials[key].values[report] = value
        result = {"report": report, "score": value}
        if report == REPORTS:
            if self._asha:
                self._asha.on_trial_complete(None, self._trial(key), result)
            self.trials[key].state = TrialState.FINISHED
        elif self._asha and self._asha.on_trial_result(None, self._trial(key), result) == TrialScheduler.STOP:
            self.trials[key].state = TrialState.STOPPED
        return self.trials[key].state == TrialState.STOPPED


class Stock:
    """A sampler of Optuna. Optuna prunes no study of several objectives."""

    def __init__(self, networks: Networks, sampler: optuna.samplers.BaseSampler) -> None:
        directions = ["maximize", *["minimize"] * networks.costs.shape[1]]
        self._study = optuna.create_study(directions=directions, sampler=sampler)
        self._networks = networks
        self._space = {
            f"x{place}": optuna.distributions.CategoricalDistribution(tuple(range(size)))
            for place, size in enumerate(networks.sizes)
        }

    def ask(self) -> tuple[Any, Sequence[int]]:
        trial = self._study.ask(self._space)
        return trial, [trial.params[name] for name in self._space]

    def report(self, key: Any, report: int, value: float) -> bool:
        if report == REPORTS:
            row = self._networks.row([key.params[name] for name in self._space])
            self._study.tell(key, [value, *self._networks.costs[row].tolist()])
        return False


Maker = Callable[[Networks, int], Strategy]


def _stock(sampler: type[optuna.samplers.BaseSampler], **how: Any) -> Maker:
    return lambda networks, seed: Stock(networks, sampler(seed=seed, **how))


OURS = "this project's search"
BASELINES: dict[str, Maker] = {
    "random": _stock(optuna.samplers.RandomSampler),
    "NSGA-II": _stock(optuna.samplers.NSGAIISampler),
    "NSGA-II, population 10": _stock(optuna.samplers.NSGAIISampler, population_size=10),
    "Optuna's TPE": _stock(optuna.samplers.TPESampler),
    "Optuna's TPE, multivariate": _stock(optuna.samplers.TPESampler, multivariate=True),
}
OTHERS: dict[str, Maker] = {
    "this project's search without pruning": partial(Ours, pruning=False),
    "random points with this project's pruning": partial(Ours, sampler="random"),
}
