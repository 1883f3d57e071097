"""`make bench`: the table of ratios, the machine, the sizes. Takes under 10 minutes on 2 CPU cores."""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import building, command, operations, sharing, steps, stock
from benchmarks import setting as settings
from fsd_tune.device import cpu_has_bf16
from fsd_tune.errors import InputError


def main() -> None:
    """Run the benchmarks that the arguments choose."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where input and memories lie")
    parser.add_argument("--rounds", type=int, default=15, help="neighbours compared for each ratio of steps")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--only", help="some of the parts, such as steps-bf16,operations,sharing")
    parser.add_argument("--glue", type=Path, help="a folder in GLUE's layout with RTE, in the place of generated pairs")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each setting for the ratios to Trainer's step")
    parser.add_argument("--peak", help="(used by itself) print the peak memory of a run of this method")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device: found cuda, but torch sees none.")
    setting = settings.make(given.device, given.folder)
    if given.peak:
        print(building.peak_of(setting, given.peak))
        return
    precisions = ["bf16"] if given.device == "cuda" else ["float32", *(["bf16"] if cpu_has_bf16() else [])]
    parts: dict[str, Callable[[], list[dict[str, object]]]] = {
        f"steps-{precision}": partial(steps.against_plain, setting, precision, given.rounds) for precision in precisions
    }
    parts |= {
        "operations": lambda: operations.table(setting, steps.METHODS, precisions[-1]),
        "trainer": lambda: [
            row
            for sizes in (setting, settings.with_pairs(setting, given.glue))
            for precision in precisions
            for row in stock.against_trainer(sizes, precision, given.epochs, published=precision == "float32")
        ],
        "published": lambda: [steps.against_published(setting, max(3, given.rounds // 3))],
        "building": lambda: building.against_inference(setting, precisions[-1], 3),
        "peak": lambda: [building.peak(setting, 2)],
    }
    if given.device == "cuda":
        parts["resident"] = lambda: steps.against_host_batches(setting, given.rounds)
        parts["deterministic"] = lambda: sharing.deterministic(setting)
        parts["sharing"] = lambda: sharing.trials_an_hour(setting)
    chosen = given.only.split(",") if given.only else list(parts)
    if not set(chosen) <= parts.keys():
        raise InputError(f"--only: found {given.only}, but must be some of {','.join(parts)}.")
    rows: list[dict[str, object]] = []
    for name in chosen:
        print(f"  {name} ...", file=sys.stderr, flush=True)
        rows += parts[name]()
    if not given.only:
        searched = building.wall(given.folder / "search")
        rows += [searched] if searched else []
    lines = [] if given.only else building.sizes(setting)
    if given.json:
        print(json.dumps({"machine": setting.describe(), "rows": rows, "sizes": lines}, indent=1))
        return
    table = Table(title=setting.describe(), title_justify="left")
    for name in ("figure", "median", "spread", "goal", "met", "note"):
        table.add_column(name, overflow="fold")
    for row in rows:
        met = {True: "yes", False: "NO", None: ""}[row["met"]]  # type: ignore[index]
        spread = f"{row['low']:.2f}..{row['high']:.2f}"
        table.add_row(str(row["figure"]), f"{row['value']:.3f}", spread, str(row["goal"]), met, str(row["note"]))
    console = Console(width=160)
    console.print(table)
    console.print("\n".join(lines), highlight=False)


if __name__ == "__main__":
    command.run(main)
