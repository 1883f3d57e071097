"""The picture of the search bench: mean regret over cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot

from benchmarks.ratios import Searches
from benchmarks.replay import BUDGET, POINTS

matplotlib.use("Agg")
_DRAWN = ("ours, warm", "ours", "stock OptunaSearch + ASHA, scope last", "random + ASHA, scope last")


def draw(found: Mapping[str, Searches], report: Mapping[str, Any], path: Path) -> None:
    """Draw the mean regret of the reported tables over the budget, with 95% intervals over the searches."""
    there = found[report["reported_on"][0]].regrets
    names = [name for name in dict.fromkeys((*_DRAWN, *report["over"].values())) if name in there]
    cost = BUDGET * np.arange(1, POINTS + 1) / POINTS
    figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    for place, name in enumerate(names):
        means = np.asarray([found[table].regrets[name] for table in report["reported_on"]])
        mean, error = means.mean(axis=(0, 1)), means.mean(axis=0).std(axis=0) / np.sqrt(means.shape[1])
        (line,) = axes.plot(cost, mean, label=name, linewidth=2.4 if place == 0 else 1.4)
        axes.fill_between(
            cost, mean - 1.96 * error, mean + 1.96 * error, color=line.get_color(), alpha=0.12, linewidth=0
        )
    axes.set(
        xlabel="time of the workers, in mean trainings", ylabel="mean regret, in the tables' units", ylim=(0, None)
    )
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
