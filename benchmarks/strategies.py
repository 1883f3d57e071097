"""The searches that are replayed: ours, Ray Tune's own OptunaSearch and ASHA, and Syne Tune's ASHA-CQR if it is there.

Each is called as Tune (or Syne Tune) calls it. Only the time between two reports is simulated.
"""

import datetime
import importlib
import importlib.util
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.tables import Table
from fsd_tune.search.asha import ResumableAsha
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.study import SearchStudy
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.search.warm_start import WarmTrial
from fsd_tune.settings import loader
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, OPTIMISATION, default

GRACE, FACTOR = 1, 3
_METHOD = "fsd_ilg"


def _trial(key: Any) -> Any:
    return SimpleNamespace(trial_id=str(key), should_recover=lambda: False, run_metadata=None)


def space_of(defaults: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
    """Return the range of a real hyperparameter for each dimension of a table.

    Args:
        defaults: where in its range each hyperparameter has its default, which our search tries first, from 0 to 1.
    """
    reach = {}
    for name in (*METHODS[_METHOD].hyperparameters, *OPTIMISATION):
        middle, low, high = default(_METHOD, name), HYPERPARAMETERS[name].low, HYPERPARAMETERS[name].high
        if HYPERPARAMETERS[name].kind is float:
            reach[name] = 0.9 * min(middle - low, high - middle, 0.5)
    # Those whose default is at the edge of what is accepted come last.
    names = sorted(reach, key=lambda name: reach[name] == 0)[: len(defaults)]
    ranges = {}
    for name, place in zip(names, defaults, strict=True):
        width = reach[name] or 1.0
        low = default(_METHOD, name) - (place * width if reach[name] else 0)
        ranges[name] = (low, low + width)
    return ranges


def settings_of(space: Mapping[str, tuple[float, float]], seed: int, search: Mapping[str, Any]) -> Settings:
    """Return the settings as a user would write them."""
    lines = [f"method: {_METHOD}", "space:"]
    lines += [f"  {name}: {{low: {low:.10f}, high: {high:.10f}}}" for name, (low, high) in space.items()]
    lines += [f"  {name}: {default(_METHOD, name)}" for name in METHODS[_METHOD].hyperparameters if name not in space]
    lines.append(f"search: {json.dumps({'trials': 64, 'seed': seed, **search})}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "space.yaml")
        path.write_text("\n".join(lines), encoding="utf-8")
        return loader.load(path)


def place_of(space: Mapping[str, tuple[float, float]], config: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return where a configuration is in the unit cube.

    Args:
        space: the ranges, as `space_of` returns them.
        config: a value for each range.
    """
    return np.asarray([(config[name] - low) / (high - low) for name, (low, high) in space.items()])


class Ours:
    """The project's study, sampler and ASHA.

    The first trial has the defaults. A table has none, so a random point takes their place, which helps nobody.
    """

    def __init__(
        self,
        table: Table,
        seed: int,
        suggester: type[Suggester] = Suggester,
        earlier: Callable[[Settings, Callable[[NDArray[np.float64]], dict[str, float]]], list[WarmTrial]] | None = None,
        **search: Any,
    ) -> None:
        """Create the search.

        Args:
            table: the curves.
            seed: of the search.
            suggester: the source of new trials.
            earlier: gives the trials to begin with, from the settings and the configuration at a point; None for none.
            search: further settings of the section `search`.
        """
        defaults = np.random.default_rng([seed, 1]).random(table.points.shape[1])
        self._space = space_of(np.asarray(defaults))
        settings = settings_of(self._space, seed, search)
        first = [] if earlier is None else earlier(settings, self._config)
        self.suggester = suggester(settings, first)
        self.study = SearchStudy(settings, None, "replay", {}, self.suggester)
        self._asha = ResumableAsha("score", table.reports, GRACE, FACTOR, {})

    @property
    def trials(self) -> Mapping[int, TrialRecord]:
        """Return the trials by number."""
        return self.study.trials

    def point(self, config: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return where a configuration is in the unit cube."""
        return place_of(self._space, config)

    def _config(self, point: NDArray[np.float64]) -> dict[str, float]:
        return {
            name: min(max(low + float(place) * (high - low), low), high)
            for (name, (low, high)), place in zip(self._space.items(), point, strict=True)
        }

    def ask(self) -> tuple[Any, NDArray[np.float64]]:
        asked = self.study.ask()
        assert asked is not None
        number, config = asked
        self._asha.on_trial_add(None, _trial(number))
        return number, self.point(config)

    def report(self, key: Any, report: int, value: float, last: bool) -> bool:
        self.study.report(key, report, value)
        result = {"report": report, "score": value}
        if math.isnan(value):
            self._asha.on_trial_complete(None, _trial(key), result | {"diverged": "nan"})
            self.study.tell(key, "failed")
            return True
        if last:
            self._asha.on_trial_complete(None, _trial(key), result)
            self.study.tell(key, "finished")
            return False
        if self._asha.on_trial_result(None, _trial(key), result) == TrialScheduler.STOP:
            self.study.tell(key, "stopped")
            return True
        return False


class Stock:
    """Ray's OptunaSearch (or random suggestions) with Ray's ASHA, as their documentation combines them."""

    def __init__(self, table: Table, seed: int, sampler: str = "tpe", brackets: int = 1) -> None:
        chosen = None if sampler == "tpe" else optuna.samplers.RandomSampler(seed=seed)
        self._names = [f"x{number}" for number in range(table.points.shape[1])]
        space = {name: optuna.distributions.FloatDistribution(0, 1) for name in self._names}
        self._search = OptunaSearch(space, metric="score", mode="max", sampler=chosen, seed=None if chosen else seed)
        # Ray draws the bracket of a trial from NumPy's global generator.
        self._state = np.random.RandomState(seed).get_state()
        self._asha = AsyncHyperBandScheduler(
            time_attr="training_iteration", metric="score", mode="max", max_t=table.reports, grace_period=GRACE,
            reduction_factor=FACTOR, brackets=brackets,
        )  # fmt: skip
        self._count = 0

    def ask(self) -> tuple[Any, NDArray[np.float64]]:
        key = f"t{self._count}"
        self._count += 1
        config = self._search.suggest(key)
        np.random.set_state(self._state)
        self._asha.on_trial_add(None, _trial(key))
        self._state = np.random.get_state()
        return key, np.asarray([config[name] for name in self._names])

    def report(self, key: Any, report: int, value: float, last: bool) -> bool:
        result = {"training_iteration": report, "score": value}
        stop = last or self._asha.on_trial_result(None, _trial(key), result) == TrialScheduler.STOP
        if stop:
            # A trial that ends tells the searcher through its completion alone.
            self._search.on_trial_complete(key, result)
            self._asha.on_trial_complete(None, _trial(key), result)
        else:
            self._search.on_trial_result(key, result)
        return stop and not last


def syne_tune_missing() -> str:
    """Return why Syne Tune's ASHA-CQR cannot be replayed; empty if it can."""
    missing = [name for name in ("syne_tune", "xgboost", "statsmodels") if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)} (pip install 'fsd_tune[bench]')" if missing else ""


class SyneTuneCqr:
    """Syne Tune's ASHA-CQR (Salinas et al., 2023), with the same rungs."""

    def __init__(self, table: Table, seed: int) -> None:
        # Not installed for the tests, so these imports have no types.
        uniform = importlib.import_module("syne_tune.config_space").uniform
        scheduler = importlib.import_module("syne_tune.optimizer.baselines").ASHACQR

        self._names = [f"x{number}" for number in range(table.points.shape[1])]
        self._scheduler = scheduler(
            {name: uniform(0, 1) for name in self._names}, metric="score", time_attr="epoch", max_t=table.reports,
            do_minimize=False, random_seed=seed, grace_period=GRACE, reduction_factor=FACTOR,
        )  # fmt: skip
        self._trials: list[Any] = []

    def ask(self) -> tuple[Any, NDArray[np.float64]]:
        config = self._scheduler.suggest().config
        trial = importlib.import_module("syne_tune.backend.trial_status").Trial(
            len(self._trials), config, datetime.datetime.fromtimestamp(0)
        )
        self._trials.append(trial)
        self._scheduler.on_trial_add(trial)
        return trial.trial_id, np.asarray([config[name] for name in self._names])

    def report(self, key: Any, report: int, value: float, last: bool) -> bool:
        result = {"epoch": report, "score": value}
        if last:
            self._scheduler.on_trial_complete(self._trials[key], result)
            return False
        return bool(self._scheduler.on_trial_result(self._trials[key], result) == "STOP")
