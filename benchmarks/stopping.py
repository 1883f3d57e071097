"""`make bench-stopping`: what `search.stop_when: noise` saves and what it loses, replayed on tables of learning curves.

Each search runs to the end of the budget and remembers when the rule would have ended it.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import replay, searches, tables
from benchmarks.recommendations import OWN
from benchmarks.strategies import Ours
from benchmarks.tables import NOISE_RANGE, Table
from fsd_tune.search.end_rules import FIRST, gain_bound
from fsd_tune.search.study import quiet_optuna


class Watched(Ours):
    """Our search, which remembers after how many trainings the rule would have ended it; NaN if it would not.

    Args:
        table: the curves.
        seed: of the sampler.
        noise: the standard deviation of a score.
    """

    def __init__(self, table: Table, seed: int, noise: float) -> None:
        super().__init__(table, seed)
        self.ended_after = math.nan
        self._noise, self._next, self._ended, self._reports, self._length = noise, FIRST, 0, 0, table.reports

    def report(self, key: Any, report: int, value: float, last: bool) -> bool:
        stop = super().report(key, report, value, last)
        self._reports += 1
        self._ended += stop or last
        if math.isnan(self.ended_after) and self._ended >= self._next:
            self._next = math.ceil(1.1 * self._ended)
            (known,) = self.suggester.believed(self.study.trials)
            gain = gain_bound(known)
            if gain is not None and gain < self._noise:
                self.ended_after = self._reports / self._length
        return stop


def noise_of(table: Table) -> float:
    """Return the standard deviation of a score over seeds."""
    if len(table.curves) == 1:
        return float(np.mean(NOISE_RANGE)) * table.unit
    return float(np.sqrt(np.nanmean(np.nanvar(table.curves[:, :, -1], axis=0, ddof=1))))


def measure(table: Table, count: int) -> NDArray[np.float64]:
    """Return for each search the share of the budget that the rule saves, the regret with the rule, and without."""
    rows = []
    for search in range(count):
        watched = Watched(table, table.search_seed(search), noise_of(table))
        with quiet_optuna():
            regrets = replay.replay(table, watched, search, {"": OWN["all"]})[""]
        spent = min(watched.ended_after, replay.BUDGET) if watched.ended_after > 0 else replay.BUDGET
        # The choice at the end of the part of the budget in which the rule applied.
        point = min(math.ceil(spent / replay.BUDGET * replay.POINTS), replay.POINTS) - 1
        rows.append((1 - spent / replay.BUDGET, regrets[point], regrets[-1]))
    return np.asarray(rows)


def main() -> None:
    """Run the searches and print a line for each table, then all."""
    parser = argparse.ArgumentParser(prog="make bench-stopping", description=__doc__)
    parser.add_argument("--tables", type=Path, nargs="*", default=[searches.BESIDE], help=".npz files or folders")
    parser.add_argument("--searches", type=int, default=10, help="searches on each table")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    given = parser.parse_args()
    found: dict[str, NDArray[np.float64]] = {}
    for table in tables.read(given.tables):
        found[table.name] = measure(table, given.searches)
        print(f"  {table.name}: {_line([found[table.name]])}", file=sys.stderr, flush=True)
    if given.json:
        print(json.dumps({name: rows.round(4).tolist() for name, rows in found.items()}))
        return
    print(f"all {len(found)} tables: {_line(list(found.values()))}")


def _line(measured: list[NDArray[np.float64]]) -> str:
    """Return what the rule saved and lost, with a 95% bootstrap interval over tables and their searches."""
    rows = np.concatenate(measured)
    saved, with_rule, without = rows.mean(axis=0)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        tables_drawn = [measured[index] for index in rng.integers(len(measured), size=len(measured))]
        resampled = np.concatenate([rows[rng.integers(len(rows), size=len(rows))] for rows in tables_drawn])
        drawn.append((resampled[:, 1] - resampled[:, 2]).mean())
    low, high = np.percentile(drawn, [2.5, 97.5])
    return (
        f"ended {np.mean(rows[:, 0] > 0):.0%} of {len(rows)} searches early, saved {saved:.0%} of the budget; regret "
        f"{with_rule:.2f} instead of {without:.2f}, {with_rule - without:+.2f} ({low:+.2f} to {high:+.2f}) standard "
        "deviations among the best fifth"
    )


if __name__ == "__main__":
    main()
