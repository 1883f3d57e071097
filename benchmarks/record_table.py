"""The tables and the picture of `make bench-glue`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.lines import Line2D

from fsd_tune.report.intervals import mean_and_deviation, paired
from fsd_tune.settings.methods import METHODS

matplotlib.use("Agg")
START_NAMES = {"copy": "pretrained layers", "teacher": "teacher's layers"}


def show(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write `record.md` and `record.png`, and print the table.

    Args:
        rows: the systems, as `make bench-glue` stores them in `record.json`.
        folder: where the files are written.
    """
    text = markdown(rows)
    (folder / "record.md").write_text(text, encoding="utf-8")
    _draw(rows, folder / "record.png")
    print(text)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table for each task: each system on dev, and beside `kd` with the same start.

    Args:
        rows: the systems.
    """
    blocks = []
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        first = of_task[0]
        lines = [
            f"`{task}`, {first['metric'].replace('_', ' ')}; teacher {first['teacher']:.1f}",
            "",
            "| start | method | learning rate | holdout | dev, mean (deviation) | minus `kd`, same start |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for row in of_task:
            finals = final_scores(row)
            mean, deviation = mean_and_deviation(finals)
            reference = [other for other in of_task if (other["method"], other["start"]) == ("kd", row["start"])]
            difference = ""
            if reference and row["method"] != "kd":
                interval = paired(finals, final_scores(reference[0]))
                difference = f"{interval.estimate:+.1f} ({interval.low:+.1f} to {interval.high:+.1f})"
            lines.append(
                f"| {START_NAMES[row['start']]} | `{row['method']}` | {row['config']['learning_rate']:.2g} | "
                f"{row['holdout']:.1f} | {mean:.1f} ({deviation:.1f}) | {difference} |"
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def final_scores(row: Mapping[str, Any]) -> list[float]:
    """Return the score of each seed after its last epoch.

    A run that diverged counts with the last score before it, or 0 if there was none.

    Args:
        row: a system.
    """
    finals = []
    for curve in row["dev"]:
        finite = [value for value in curve if np.isfinite(value)]
        finals.append(finite[-1] if finite else 0.0)
    return finals


def _draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the mean score on dev over the epochs; dashed from pretrained layers, solid from the teacher's."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    colours = dict(zip(methods, pyplot.get_cmap("tab10").colors, strict=False))  # type: ignore[attr-defined]
    figure, panels = pyplot.subplots(
        1, len(tasks), figsize=(3.4 * len(tasks), 3.8), layout="constrained", squeeze=False
    )
    for axes, task in zip(panels[0], tasks, strict=True):
        of_task = [row for row in rows if row["task"] == task]
        for row in of_task:
            means = np.nanmean(np.asarray(row["dev"], dtype=float), axis=0)
            axes.plot(
                1 + np.arange(len(means)), means, "-" if row["start"] == "teacher" else "--", marker="o", markersize=3,
                color=colours[row["method"]],
            )  # fmt: skip
        axes.axhline(of_task[0]["teacher"], color="0.6", linewidth=1, linestyle=":")
        axes.set(title=f"{task}, {of_task[0]['metric'].replace('_', ' ')}", xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0][0].set_ylabel("dev, points of 100")
    handles = [
        *(Line2D([], [], color=colours[name], label=METHODS[name].label) for name in methods),
        Line2D([], [], color="0.2", linestyle="-", label="from the teacher's layers"),
        Line2D([], [], color="0.2", linestyle="--", label="from pretrained layers"),
        Line2D([], [], color="0.6", linestyle=":", label="teacher"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
