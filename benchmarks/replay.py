"""Searches replayed on recorded learning curves: a worker's report costs its share of a training, nothing is trained.

Ray's own OptunaSearch and ASHA, and ours, are called as Tune calls them; what is simulated is the time between.
"""

import heapq
import itertools
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import optuna
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.curves import FLAGS, GRID
from fsd_tune.search.asha import ResumableAsha
from fsd_tune.search.samplers import Suggester
from fsd_tune.search.study import SearchStudy
from fsd_tune.settings import judging, loader

WORKERS = 4
GRACE, FACTOR = 1, 3
_LOGARITHMIC = ("learning_rate", "temperature", "beta", "gamma_g")


@dataclass(frozen=True)
class Table:
    """Recorded curves.

    Attributes:
        accuracy: float [seeds, configurations, reports]; NaN after a run diverged.
        configurations: the grid's, in the order of the second axis.
    """

    accuracy: np.ndarray
    configurations: list[dict[str, float]]

    @property
    def worth(self) -> np.ndarray:
        """What a configuration is worth, float [configurations]: the mean over the seeds of its last three reports."""
        last = self.accuracy[:, :, -3:].mean(axis=2)
        mean: np.ndarray = np.where(np.isnan(last), 0.0, last).mean(axis=0)
        return mean

    def nearest(self, config: dict[str, Any]) -> int:
        """The recorded configuration nearest to a suggested one, each value by itself."""
        index = 0
        for name, values in GRID.items():
            scale = np.log if name in _LOGARITHMIC else np.asarray
            gaps = np.abs(scale(np.asarray(values, float)) - scale(float(config[name])))
            index = index * len(values) + int(gaps.argmin())
        return index


def read(path: Path) -> Table:
    """The packed table of `curves.py`."""
    import gzip

    held = json.loads(gzip.decompress(path.read_bytes()))
    reports = held["reports"]
    padded = [[[*curve, *[None] * (reports - len(curve))] for curve in seed] for seed in held["right"]]
    accuracy = np.asarray(padded, dtype=float) / held["dev"]
    names = list(held["grid"])
    configurations = [dict(zip(names, values, strict=True)) for values in itertools.product(*held["grid"].values())]
    return Table(accuracy, configurations)


class Strategy(Protocol):
    """A search as the simulation drives it."""

    def ask(self) -> tuple[Any, dict[str, Any]] | None:
        """A key and a configuration; None when there is nothing left to try."""

    def report(self, key: Any, report: int, value: float, last: bool) -> bool:
        """A trial reported; whether it is to be stopped. `last` says that it is its last report by itself."""

    def pick(self) -> int | None:
        """The recorded configuration that the search would hand out now."""


@dataclass
class _Kept:
    """What all strategies remember of their trials."""

    table: Table
    rows: dict[Any, int] = field(default_factory=dict)
    values: dict[Any, list[float]] = field(default_factory=dict)
    finished: set[Any] = field(default_factory=set)

    def best(self, judge_by: str, unfinished: bool) -> int | None:
        scores = {
            key: judging.judge(values, judge_by)
            for key, values in self.values.items()
            if values and (unfinished or key in self.finished) and not math.isnan(values[-1])
        }
        return self.rows[max(scores, key=lambda key: scores[key])] if scores else None


def _trial(key: Any) -> Any:
    return SimpleNamespace(trial_id=str(key), should_recover=lambda: False, run_metadata=None)


def ours_settings(learn_from: str, judge_by: str, trials: int, seed: int, sampler: str = "tpe") -> Any:
    """Settings of the replayed space as a user would write it: ranges, and a fixed rest."""
    lines = [f"method: {FLAGS['method']}", "space:"]
    for name, values in GRID.items():
        log = ", log: true" if name in _LOGARITHMIC else ""
        lines.append(f"  {name}: {{low: {min(values)}, high: {max(values)}{log}}}")
    for flag in ("gamma-i", "gamma-l", "gamma-m", "batch-size", "epochs"):
        lines.append(f"  {flag.replace('-', '_')}: {FLAGS[flag]}")
    search = {"trials": trials, "seed": seed, "learn_from": learn_from, "judge_by": judge_by, "sampler": sampler}
    lines.append(f"search: {json.dumps(search)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "space.yaml")
        path.write_text("\n".join(lines), encoding="utf-8")
        return loader.load(path)


class Ours:
    """The project's record and ASHA."""

    def __init__(
        self,
        table: Table,
        seed: int,
        learn_from: str = "extrapolated",
        judge_by: str = "mean_of_last_3",
        trials: int = 64,
        sampler: str = "tpe",
        suggester: type[Suggester] = Suggester,
    ) -> None:
        self._kept, self._judge_by = _Kept(table), judge_by
        reports = table.accuracy.shape[2]
        settings = ours_settings(learn_from, judge_by, trials, seed, sampler)
        self._record = SearchStudy(settings, None, "replay", {}, suggester(settings))
        self._asha = ResumableAsha("accuracy", reports, GRACE, FACTOR, {})

    def ask(self) -> tuple[Any, dict[str, Any]] | None:
        asked = self._record.ask()
        assert asked is not None
        number, config = asked
        self._kept.values[number], self._kept.rows[number] = [], self._kept.table.nearest(config)
        self._asha.on_trial_add(None, _trial(number))
        return number, config

    def report(self, key: Any, report: int, value: float, last: bool) -> bool:
        self._kept.values[key].append(value)
        self._record.report(key, report, value)
        result = {"report": report, "accuracy": value}
        if math.isnan(value):
            self._asha.on_trial_complete(None, _trial(key), result | {"diverged": "nan"})
            self._record.tell(key, "failed")
            return True
        if last:
            self._kept.finished.add(key)
            self._asha.on_trial_complete(None, _trial(key), result)
            self._record.tell(key, "finished")
            return False
        if self._asha.on_trial_result(None, _trial(key), result) == TrialScheduler.STOP:
            self._record.tell(key, "stopped")
            return True
        return False

    def pick(self) -> int | None:
        best = self._kept.best(self._judge_by, unfinished=False)
        return self._kept.best(self._judge_by, unfinished=True) if best is None else best


class Stock:
    """Ray's OptunaSearch (or random suggestions) with Ray's ASHA (or none), as their documentation combines them.

    Its pick is `ResultGrid.get_best_result`: the best last value of all trials, the stopped ones among them.
    """

    def __init__(self, table: Table, seed: int, sampler: str, asha: bool) -> None:
        self._kept = _Kept(table)
        reports = table.accuracy.shape[2]
        chosen = None if sampler == "tpe" else optuna.samplers.RandomSampler(seed=seed)
        self._search = OptunaSearch(
            _space, metric="accuracy", mode="max", sampler=chosen, seed=None if chosen else seed
        )
        self._asha = None
        if asha:
            self._asha = AsyncHyperBandScheduler(
                time_attr="training_iteration", metric="accuracy", mode="max", max_t=reports, grace_period=GRACE,
                reduction_factor=FACTOR,
            )  # fmt: skip
        self._count = 0

    def ask(self) -> tuple[Any, dict[str, Any]] | None:
        key = f"t{self._count}"
        self._count += 1
        config = self._search.suggest(key)
        self._kept.values[key], self._kept.rows[key] = [], self._kept.table.nearest(config)
        if self._asha is not None:
            self._asha.on_trial_add(None, _trial(key))
        return key, config

    def report(self, key: Any, report: int, value: float, last: bool) -> bool:
        self._kept.values[key].append(value)
        result = {"training_iteration": report, "accuracy": value}
        stop = last
        if self._asha is not None and not last:
            stop = self._asha.on_trial_result(None, _trial(key), result) == TrialScheduler.STOP
        if stop:
            # A trial that ends tells the searcher through its completion alone.
            self._search.on_trial_complete(key, result)
            if self._asha is not None:
                self._asha.on_trial_complete(None, _trial(key), result)
        else:
            self._search.on_trial_result(key, result)
        return stop and not last

    def pick(self) -> int | None:
        return self._kept.best("last", unfinished=True)


def _space(trial: optuna.Trial) -> None:
    for name, values in GRID.items():
        trial.suggest_float(name, min(values), max(values), log=name in _LOGARITHMIC)


class Grid:
    """Every configuration once, in a shuffled order (its own order would favour whatever comes first), none stopped."""

    def __init__(self, table: Table, seed: int) -> None:
        self._kept = _Kept(table)
        self._left = [int(i) for i in np.random.default_rng(seed).permutation(len(table.configurations))]

    def ask(self) -> tuple[Any, dict[str, Any]] | None:
        if not self._left:
            return None
        row = self._left.pop(0)
        self._kept.values[row], self._kept.rows[row] = [], row
        return row, self._kept.table.configurations[row]

    def report(self, key: Any, report: int, value: float, last: bool) -> bool:
        self._kept.values[key].append(value)
        return False

    def pick(self) -> int | None:
        return self._kept.best("last", unfinished=True)


def replay(
    table: Table, make: Callable[[], Strategy], recorded: int, trainings: float
) -> tuple[np.ndarray, np.ndarray]:
    """One search with 4 workers.

    Args:
        table: the curves.
        make: makes the search.
        recorded: which recorded seed its trials see.
        trainings: the budget of student steps, in whole trainings.

    Returns:
        Spent budget in trainings, float [events], and the regret of the pick after each event, float [events].
    """
    strategy, reports = make(), table.accuracy.shape[2]
    worth = table.worth
    best, spent = float(worth.max()), 0.0
    order = itertools.count()
    running: list[tuple[float, int, Any, int, int]] = []

    def start(now: float) -> None:
        asked = strategy.ask()
        if asked is not None:
            heapq.heappush(running, (now + 1 / reports, next(order), asked[0], table.nearest(asked[1]), 1))

    for _ in range(WORKERS):
        start(0.0)
    costs, regrets = [], []
    while running and spent + 1 / reports <= trainings + 1e-9:
        now, _, key, row, report = heapq.heappop(running)
        spent += 1 / reports
        value = float(table.accuracy[recorded, row, report - 1])
        last = report == reports
        stopped = strategy.report(key, report, value, last)
        if last or stopped:
            start(now)
        else:
            heapq.heappush(running, (now + 1 / reports, next(order), key, row, report + 1))
        pick = strategy.pick()
        costs.append(spent)
        regrets.append(best - (float(worth[pick]) if pick is not None else 0.0))
    return np.asarray(costs), np.asarray(regrets)
