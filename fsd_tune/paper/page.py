"""The page and the table of the paper's protocol: `paper.html` and `paper.csv`."""

from pathlib import Path
from typing import Any

import pandas as pd

from fsd_tune.paper.facts import SEEDS
from fsd_tune.paper.results import SELECTIONS, TaskResults, comparison_rows, read_results, table
from fsd_tune.report import page
from fsd_tune.storage import artifacts


def write_page(folder: Path) -> Path:
    """Write the page and the table of all tasks in a folder.

    Args:
        folder: the folder of all tasks.

    Returns:
        The page's path.
    """
    tasks = list(read_results(folder))
    tables = [table(results, metric) for results in tasks for metric in results.metrics]
    artifacts.write_text(folder / "paper.csv", pd.concat(tables, ignore_index=True).to_csv(index=False))
    path = folder / "paper.html"
    sections = [
        {
            "results": results,
            "tables": [(metric.replace("_", " "), _rows(table(results, metric))) for metric in results.metrics],
            "comparisons": comparison_rows(results),
        }
        for results in tasks
    ]
    text = page.render(
        "paper_template.html",
        {},
        {"percent": percent, "pvalue": pvalue},
        sections=sections,
        selections=SELECTIONS,
        seeds=SEEDS,
        folder=folder.name,
    )
    artifacts.write_text(path, text)
    return path


def percent(mean: float | None, deviation: float | None = None) -> str:
    """Return a mean with its standard deviation as the paper prints them: `66.61 (1.01)`.

    Args:
        mean: in percent; None or NaN for none.
        deviation: in percent; None or NaN for none.
    """
    if mean is None or mean != mean:
        return "–"
    return f"{mean:.2f}" if deviation is None or deviation != deviation else f"{mean:.2f} ({deviation:.2f})"


def pvalue(p: float | None) -> str:
    """Return a p-value with three decimals.

    Args:
        p: the value; None for none.
    """
    return "–" if p is None else f"{p:.3f}"


def result_lines(results: TaskResults, folder: Path) -> list[str]:
    """Return the results of a task as lines for a terminal.

    Args:
        results: the results.
        folder: the folder of all tasks.
    """
    lines = []
    for metric in results.metrics:
        lines.append(f"{results.task}, {metric.replace('_', ' ')} on dev in percent, mean (deviation):")
        for row in _rows(table(results, metric)):
            cells = "  ".join(f"{SHORT[key]} {row[key]:14s}" for key in ("paper", *SELECTIONS))
            lines.append(f"  {row['system']:14s}{cells}".rstrip())
    for row in comparison_rows(results):
        if row["difference"] is not None:
            lines.append(
                f"FSD − {row['baseline']}, {row['metric']}, {SELECTIONS[row['selection']]}: {row['difference']:+.2f} "
                f"[{row['low']:+.2f}, {row['high']:+.2f}], p {pvalue(row['p'])} (paper {pvalue(row['paper_p'])})"
            )
    return [*lines, f"page: {folder / 'paper.html'}, table: {folder / 'paper.csv'}"]


SHORT = {"paper": "paper", "dev": "dev-selected", "holdout": "holdout-selected"}


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for each system that the paper or this run has, with a cell for each selection."""
    rows = []
    for system, group in frame.groupby("system", sort=False):
        first = group.iloc[0]
        cells = {row["selection"]: percent(row["mean"], row["deviation"]) for _, row in group.iterrows()}
        paper = percent(first["paper_mean"], first["paper_deviation"])
        if {paper, *cells.values()} != {"–"}:
            rows.append({"system": system, "paper": paper, **cells})
    return rows
