"""`make bench-search`: our search beside stock Ray Tune with Optuna and ASHA, replayed on recorded learning curves."""

import argparse
import logging
import multiprocessing
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import optuna
import torch
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table as Printed

from benchmarks import curves
from benchmarks.alternatives import RandomStart, Regressed, RungWise
from benchmarks.replay import Grid, Ours, Stock, Strategy, Table, read, replay

matplotlib.use("Agg")
# The budget, in whole trainings (about 64 trials with ASHA), and where the regret is read.
BUDGET, FRACTIONS = 40.0, (0.125, 0.25, 0.5, 1.0)
OURS, STOCK = "ours, extrapolated, mean_of_last_3", "stock OptunaSearch + ASHA"
Make = Callable[[Table, int], Strategy]


def _ours(learn_from: str, judge_by: str) -> Make:
    return lambda table, seed: Ours(table, seed, learn_from, judge_by)


STRATEGIES: dict[str, Make] = {
    f"ours, {learn_from}, {judge_by}": _ours(learn_from, judge_by)
    for learn_from in ("extrapolated", "pruned", "last")
    for judge_by in ("mean_of_last_3", "last")
}
STRATEGIES |= {
    "tried: rung-wise model (BOHB)": lambda table, seed: Ours(table, seed, suggester=RungWise),
    "tried: regressed end": lambda table, seed: Ours(table, seed, suggester=Regressed),
    "tried: random start": lambda table, seed: Ours(table, seed, suggester=RandomStart),
    STOCK: lambda table, seed: Stock(table, seed, "tpe", asha=True),
    "random + ASHA": lambda table, seed: Stock(table, seed, "random", asha=True),
    "random": lambda table, seed: Stock(table, seed, "random", asha=False),
    "grid": Grid,
}


def anytime(table: Table, make: Make, seeds: int, budget: float) -> tuple[np.ndarray, np.ndarray]:
    """Budgets spent, float [points], and the regret at each, float [seeds, points]; 1 step of 1/5 training a point."""
    points = np.arange(1, round(budget * table.accuracy.shape[2]) + 1) / table.accuracy.shape[2]
    regrets = np.empty((seeds, len(points)))
    for seed in range(seeds):
        costs, found = replay(table, partial(make, table, seed), seed % len(table.accuracy), budget)
        regrets[seed] = found[np.clip(np.searchsorted(costs, points + 1e-9, "right") - 1, 0, None)]
    return points, regrets


def _replayed(name: str, path: Path, seeds: int, budget: float) -> tuple[np.ndarray, np.ndarray]:
    """`anytime` of a strategy by its name, for a process of its own."""
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    return anytime(read(path), STRATEGIES[name], seeds, budget)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95% bootstrap interval of a median."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (2000, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def ratio(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Our median regret over another search's, with its 95% bootstrap interval."""
    rng = np.random.default_rng(0)
    ours_medians = np.median(rng.choice(ours, (2000, len(ours))), axis=1)
    medians = np.median(rng.choice(theirs, (2000, len(theirs))), axis=1)
    low, high = np.percentile(ours_medians / np.maximum(medians, 1e-9), [2.5, 97.5])
    return f"{np.median(ours) / max(float(np.median(theirs)), 1e-9):.2f} ({low:.2f} to {high:.2f})"


def reached(points: np.ndarray, regrets: np.ndarray, target: float) -> str:
    """The median budget after which a search stays at `target` regret or below, and how many searches ever do."""
    above = regrets > target + 1e-12
    first = [int(np.flatnonzero(row)[-1]) + 1 if row.any() else 0 for row in above]
    there = [points[index] for index in first if index < len(points)]
    return f"{np.median(there):.1f} trainings, {len(there)} of {len(regrets)} searches" if there else "never"


def draw(found: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Median regret over cost, with the middle half of the searches shaded for the first two."""
    figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    for place, (name, (points, regrets)) in enumerate(found.items()):
        (line,) = axes.plot(points, np.median(regrets, axis=0), label=name, linewidth=2.4 if place == 0 else 1.4)
        if place < 2:
            low, high = np.percentile(regrets, [25, 75], axis=0)
            axes.fill_between(points, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(xlabel="student steps spent, in whole trainings", ylabel="regret (accuracy)", yscale="log")
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Replay, print the table, draw the curves."""
    parser = argparse.ArgumentParser(prog="make bench-search", description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--table", type=Path, default=curves.PACKED)
    parser.add_argument("--draw", type=Path, default=Path("build/bench-search.png"))
    given = parser.parse_args()
    if not given.table.is_file():
        sys.exit(f"{given.table} is not there: `python -m benchmarks.curves record`, then `pack`, make it (hours)")
    table = read(given.table)
    printed = Printed(title=f"median regret on {given.seeds} seeds, budget {BUDGET:g} trainings", title_justify="left")
    for name in ("search", *(f"{fraction:.0%} of the budget" for fraction in FRACTIONS)):
        printed.add_column(name)
    at: dict[str, list[np.ndarray]] = {}
    whole = len(table.configurations)
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {name: pool.submit(_replayed, name, given.table, given.seeds, BUDGET) for name in STRATEGIES}
        running_grid = pool.submit(_replayed, "grid", given.table, given.seeds, whole)
        found = {}
        for name, future in running.items():
            found[name] = future.result()
            print(f"  {name}: replayed", file=sys.stderr, flush=True)
        grid = running_grid.result()[1]
    for name, (points, regrets) in found.items():
        cells: list[str] = []
        at[name] = []
        for fraction in FRACTIONS:
            values = regrets[:, np.searchsorted(points, fraction * BUDGET - 1e-9)]
            at[name].append(values)
            low, high = interval(values)
            cells.append(f"{np.median(values):.4f} ({low:.4f} to {high:.4f})")
        printed.add_row(name, *cells)
    Console(width=140).print(printed)
    for other in (STOCK, "random + ASHA"):
        ratios = [ratio(mine, theirs) for mine, theirs in zip(at[OURS], at[other], strict=True)]
        print(f"ours (default) / {other}: {', '.join(ratios)}")
    end = float(np.median(grid[:, -1]))
    print(f"a whole grid ({whole} trainings) ends at {end:.4f}; ours reaches that after {reached(*found[OURS], end)}")
    draw({name: found[name] for name in (OURS, STOCK, "random + ASHA", "random", "grid")}, given.draw)
    print(given.draw)


if __name__ == "__main__":
    main()
