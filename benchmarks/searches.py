"""`make bench-search`: our search beside stock Ray Tune with Optuna and ASHA, replayed on tables of learning curves.

Without --tables: the tables beside this checkout (`../shared/tables`, if there) and the project's own recorded one.
An interrupted run continues: finished searches are in the file of --results.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rich.console import Console
from rich.table import Table as Printed

from benchmarks import curves, replays, tables, warm
from benchmarks.picture import draw
from benchmarks.ratios import FLOOR, Ratio, Searches, ratio
from benchmarks.replay import BUDGET, POINTS, WORKERS
from benchmarks.strategies import syne_tune_missing

BESIDE = Path(__file__).parents[2] / "shared" / "tables"
# The settings of the search were chosen on these tables, so their ratios are not reported as the result.
CHOSEN_ON = (
    "alexnet_imagenet",
    "demo_sst2",
    "naap440",
    "taskset_patch32_GRU128_bs128",
    "taskset_patch32_VRNN128_tanh_bs128",
)
# Percent of the budget, and the index of the point.
PARTS = {str(percent): POINTS * percent // 100 - 1 for percent in (25, 50, 100)}


def best_baseline(found: list[Searches], point: int) -> str:
    """Return the baseline that the search of this project leads by least, over these tables."""
    names = [name for name in found[0].regrets if name.startswith(replays.BASELINES)]
    logs = {name: np.mean([np.log(t.regrets[name][:, point].mean() + FLOOR) for t in found]) for name in names}
    return min(logs, key=lambda name: logs[name])


def document(found: dict[str, Searches], given: argparse.Namespace, seconds: float, skipped: str) -> dict[str, Any]:
    """Return what `--json` prints."""
    held_out = [name for name in found if (name in CHOSEN_ON) == given.choosing]
    reported = held_out or list(found)
    searches = [found[name] for name in reported]
    over = {part: best_baseline(searches, point) for part, point in PARTS.items()}
    mine = replays.WARM if given.warm else replays.OURS
    return {
        "search": mine,
        "ratios": {part: ratio(searches, mine, over[part], point).rounded() for part, point in PARTS.items()},
        "over": over,
        "reported_on": reported,
        "chosen_on": [name for name in found if name in CHOSEN_ON],
        "held_out": not given.choosing and bool(held_out),
        "searches": given.searches,
        "budget_trainings": BUDGET,
        "workers": WORKERS,
        "by_strategy": {
            name: {part: ratio(searches, mine, name, point).rounded() for part, point in PARTS.items()}
            for name in searches[0].regrets
            if name != mine
        },
        "mean_regret": {
            table: {
                name: {part: round(float(regrets[:, point].mean()), 4) for part, point in PARTS.items()}
                for name, regrets in measured.regrets.items()
            }
            for table, measured in found.items()
        },
        "skipped": skipped,
        "seconds": round(seconds, 1),
    }


def show(report: dict[str, Any]) -> None:
    """Print the ratios and the mean regrets for people."""
    console = Console(width=150)
    printed = Printed(title=f"{report['search']} / other, on {', '.join(report['reported_on'])}", title_justify="left")
    for column in ("other", *(f"{part}% of {BUDGET:g} trainings" for part in PARTS)):
        printed.add_column(column)
    for name, ratios in report["by_strategy"].items():
        printed.add_row(name, *(str(Ratio(**ratios[part])) for part in PARTS))
    printed.add_section()
    printed.add_row("the best baseline at each", *(str(Ratio(**report["ratios"][part])) for part in PARTS))
    console.print(printed)
    regrets = Printed(title="mean regret at the end, in the table's unit", title_justify="left")
    names = list(report["mean_regret"])
    for column in ("search", *(f"{name}{'*' if name in CHOSEN_ON else ''}" for name in names)):
        regrets.add_column(column, overflow="fold")
    for strategy in report["mean_regret"][names[0]]:
        regrets.add_row(strategy, *(f"{report['mean_regret'][name][strategy]['100']:.2f}" for name in names))
    console.print(regrets)
    if report["chosen_on"]:
        print(f"* the settings were chosen on this table{'; the ratios leave it out' if report['held_out'] else ''}")
    print(f"{report['searches']} searches a table and strategy, {report['seconds']:.0f} s in this call")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench-search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=Path, nargs="+", help=".npz files and folders of them")
    parser.add_argument("--searches", type=int, default=50, help="searches a table and strategy (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    parser.add_argument("--results", type=Path, default=Path("build/bench-search.jsonl"), help="finished searches")
    parser.add_argument("--draw", type=Path, default=Path("build/bench-search.png"), help="regret over cost")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tried", action="store_true", help="also what was tried and not kept")
    parser.add_argument(
        "--warm",
        action="store_true",
        help="searches that start from those on up to three related tables (of the same configurations)",
    )
    parser.add_argument("--choosing", action="store_true", help="report on the tables that settings are chosen on")
    parser.add_argument("--only", nargs="+", help="only these tables, by name")
    parser.add_argument(
        "--syne-tune", action="store_true", help="also Syne Tune's ASHA-CQR, which takes over a minute a search"
    )
    given = parser.parse_args()
    if given.searches < 2 or given.processes < 1:
        parser.error(f"found --searches {given.searches} --processes {given.processes}, but must be at least 2 and 1")
    return given


def refuse(problems: Sequence[str]) -> NoReturn:
    """End with one line for each problem, and the code of wrong input."""
    print("\n".join(f"error: {problem}" for problem in problems), file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Replay what is missing, print the ratios, draw the regrets."""
    given = parse()
    places = given.tables or [place for place in (BESIDE, curves.PACKED) if place.exists()]
    try:
        read = tables.read(places)
    except tables.TableError as error:
        refuse(str(error).splitlines())
    unknown = sorted(set(given.only or ()) - {table.name for table in read})
    if unknown:
        refuse([f"--only: found {', '.join(unknown)}, but must be of {', '.join(table.name for table in read)}"])
    related = {table.name: warm.related(table, read) for table in read} if given.warm else {}
    read = [table for table in read if given.only is None or table.name in given.only]
    if given.warm:
        alone = [table.name for table in read if not related[table.name]]
        read = [table for table in read if related[table.name]]
        if alone:
            print(f"left out, because no table has the same configurations: {', '.join(alone)}", file=sys.stderr)
        if not read:
            refuse(["--warm: found no tables of the same configurations, but must be at least two"])
    skipped = ""
    if given.syne_tune:
        skipped = syne_tune_missing()
        if skipped:
            print(f"Syne Tune's ASHA-CQR is left out: {skipped}", file=sys.stderr)
    names = replays.chosen(tried=given.tried, syne_tune=given.syne_tune and not skipped, warm=given.warm)
    begun = time.monotonic()
    found = replays.run(read, names, given.searches, given.results, given.processes, related)
    report = document(found, given, time.monotonic() - begun, skipped)
    draw(found, report, given.draw)
    if given.json:
        print(json.dumps(report))
    else:
        show(report)
        print(given.draw)


if __name__ == "__main__":
    main()
