"""`make bench-fronts`: searches for a front of score and cost, beside Optuna's samplers without pruning.

The searches are replayed on tables of trained networks. Nothing is trained. Takes about ten minutes of one core.
"""

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as Printed

from benchmarks import networks
from benchmarks.front_searches import BASELINES, BUDGET, OTHERS, OURS, POINTS, WORKERS, Maker, Ours, replay
from benchmarks.networks import Networks
from benchmarks.ratios import Ratio

# What the search does was chosen on these tables, so the ratios are not reported on them.
CHOSEN_ON = ("nas/cifar10", "hpo/naval", "hpo/parkinsons")
# Percent of the budget, and the index of the point.
PARTS = {str(percent): POINTS * percent // 100 - 1 for percent in (25, 50, 100)}
LATE = "this project's search, on curves that are settled late"
_DRAWS = 2000

# By strategy, the hypervolumes, float [searches, points].
Volumes = Mapping[str, NDArray[np.float64]]


def run(table: Networks, kinds: Mapping[str, Maker], searches: int) -> Volumes:
    """Replay all searches on a table. Those of the same index see the same trainings."""
    seen = [table.seen(search) for search in range(searches)]
    volumes = {}
    for name, make in kinds.items():
        begun = time.monotonic()
        profile = "late" if name == LATE else "usual"
        volumes[name] = np.asarray([replay(each, make(table, each.search), profile) for each in seen])
        shown = ", ".join(f"{volumes[name][:, point].mean():.3f}" for point in PARTS.values())
        print(f"  {table.name}: {name}: {shown} ({time.monotonic() - begun:.0f} s)", file=sys.stderr, flush=True)
    return volumes


def ratio(found: Mapping[str, Volumes], ours: str, other: str, point: int) -> Ratio:
    """Return the geometric mean over tables of our mean hypervolume over another's.

    The interval is a bootstrap's: tables are drawn, and in each its searches, which stay paired.
    """
    rng = np.random.default_rng(0)
    tables = [(volumes[ours][:, point], volumes[other][:, point]) for volumes in found.values()]
    logs = [np.log(mine.mean() / theirs.mean()) for mine, theirs in tables]
    drawn = []
    for _ in range(_DRAWS):
        parts = []
        for index in rng.integers(len(tables), size=len(tables)):
            mine, theirs = tables[index]
            searches = rng.integers(len(mine), size=len(mine))
            parts.append(np.log(mine[searches].mean() / theirs[searches].mean()))
        drawn.append(np.mean(parts))
    low, high = np.exp(np.percentile(drawn, [2.5, 97.5]))
    return Ratio(float(np.exp(np.mean(logs))), float(low), float(high))


def best_baseline(found: Mapping[str, Volumes], point: int) -> str:
    """Return the baseline with the largest hypervolume over the tables at a point, chosen afterwards."""
    means = {
        name: np.mean([np.log(volumes[name][:, point].mean()) for volumes in found.values()]) for name in BASELINES
    }
    return max(means, key=lambda name: means[name])


def document(found: Mapping[str, Volumes], searches: int, seconds: float) -> dict[str, Any]:
    """Return what `--json` prints."""
    over = {part: best_baseline(found, point) for part, point in PARTS.items()}
    names = next(iter(found.values()))

    def ratios(mine: str, others: Mapping[str, str]) -> dict[str, dict[str, float]]:
        return {part: ratio(found, mine, others[part], PARTS[part]).rounded() for part in PARTS}

    return {
        "ratios": ratios(OURS, over),
        "over": over,
        "late_curves": ratios(LATE, over),
        "by_strategy": {name: ratios(OURS, dict.fromkeys(PARTS, name)) for name in names if name not in (OURS, LATE)},
        "reported_on": list(found),
        "mean_hypervolume": {
            table: {
                name: {part: round(float(values[:, point].mean()), 4) for part, point in PARTS.items()}
                for name, values in volumes.items()
            }
            for table, volumes in found.items()
        },
        "searches": searches,
        "budget_trainings": BUDGET,
        "workers": WORKERS,
        "seconds": round(seconds, 1),
    }


def show(report: Mapping[str, Any]) -> None:
    """Print the ratios and the mean hypervolumes for people."""
    console = Console(width=140)
    title = f"hypervolume: {OURS} / other, on {', '.join(report['reported_on'])}"
    printed = Printed(title=title, title_justify="left")
    for column in ("other", *(f"{part}% of {BUDGET:g} trainings" for part in PARTS)):
        printed.add_column(column)
    rows = {**report["by_strategy"], "the best of Optuna's at each": report["ratios"]}
    rows["the same, on curves that are settled late"] = report["late_curves"]
    for name, ratios in rows.items():
        if name.startswith("the best"):
            printed.add_section()
        printed.add_row(name, *(str(Ratio(**ratios[part])) for part in PARTS))
    console.print(printed)
    means = Printed(title="mean hypervolume, as a share of that of all networks", title_justify="left")
    for column in ("search", *(f"{table}, {part}%" for table in report["mean_hypervolume"] for part in PARTS)):
        means.add_column(column, overflow="fold")
    for name in next(iter(report["mean_hypervolume"].values())):
        values = [f"{volumes[name][part]:.2f}" for volumes in report["mean_hypervolume"].values() for part in PARTS]
        means.add_row(name, *values)
    console.print(means)
    print(f"{report['searches']} searches a table and strategy, {report['seconds']:.0f} s")


def main() -> None:
    """Replay the searches and print the ratios."""
    parser = argparse.ArgumentParser(prog="make bench-fronts", description=__doc__)
    parser.add_argument("--searches", type=int, default=10, help="searches a table and strategy (%(default)s)")
    parser.add_argument("--choosing", action="store_true", help="report on the tables that settings are chosen on")
    parser.add_argument("--only", nargs="+", help=f"only these tables, of {', '.join(networks.NAMES)}")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    given = parser.parse_args()
    names = given.only or [name for name in networks.NAMES if (name in CHOSEN_ON) == given.choosing]
    unknown = sorted(set(names) - set(networks.NAMES))
    problem = f"--only: found {', '.join(unknown)}, but must be of {', '.join(networks.NAMES)}" if unknown else ""
    if given.searches < 2:
        problem = f"--searches: found {given.searches}, but must be at least 2"
    problem = problem or networks.missing()
    if problem:
        print(f"error: {problem}.", file=sys.stderr)
        sys.exit(2)
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)
    begun = time.monotonic()
    kinds: dict[str, Maker] = {OURS: Ours, LATE: Ours, **OTHERS, **BASELINES}
    found = {name: run(networks.read(name), kinds, given.searches) for name in names}
    report = document(found, given.searches, time.monotonic() - begun)
    if given.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()
