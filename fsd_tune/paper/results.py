"""The results of the paper's protocol for a task, and what the paper printed beside them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fsd_tune.paper.facts import BASELINES, PROPOSED, SYSTEMS, Printed, printed, printed_p
from fsd_tune.report.intervals import Interval, mean_and_deviation, paired, right_tailed_p
from fsd_tune.storage import json_file

FILE = "paper.json"
# How a system's configuration was selected, and the name of it in tables.
SELECTIONS = {"dev": "selected on dev, as in the paper", "holdout": "selected on a holdout"}
Scores = dict[int, dict[str, float]]


@dataclass(frozen=True)
class SystemScores:
    """A system's configuration and its scores on dev.

    Attributes:
        config: the configuration.
        search_score: its score in the search, on the examples that it was selected on.
        trials: number of trials of the search.
        scores: {seed: {metric: value}} on dev, without runs that diverged.
    """

    config: dict[str, Any]
    search_score: float
    trials: int
    scores: Scores


@dataclass(frozen=True)
class Comparison:
    """FSD against the baseline with the best mean, on the same seeds.

    Attributes:
        baseline: a key of `facts.SYSTEMS`.
        pairs: number of seeds on which both trained.
        p: of the right-tailed paired t-test; None for fewer than two seeds.
        interval: FSD minus the baseline with its 95% interval; None for fewer than two seeds.
    """

    baseline: str
    pairs: int
    p: float | None
    interval: Interval | None


@dataclass(frozen=True)
class TaskResults:
    """The results of one task.

    Attributes:
        task: id of the task.
        metrics: the metrics of the task, that of selection first.
        small: whether models, data and searches were shrunk.
        seeds: number of seeds of each configuration.
        teacher: the teacher's score on dev in the first metric; None if it is not known.
        systems: by selection and system.
    """

    task: str
    metrics: tuple[str, ...]
    small: bool
    seeds: int
    teacher: float | None
    systems: dict[str, dict[str, SystemScores]] = field(default_factory=dict)

    def values(self, selection: str, system: str, metric: str) -> dict[int, float]:
        """Return the scores of a system by seed.

        Args:
            selection: a key of `SELECTIONS`.
            system: a key of `facts.SYSTEMS`.
            metric: one of `metrics`.
        """
        scores = self.systems.get(selection, {}).get(system)
        return {} if scores is None else {seed: values[metric] for seed, values in scores.scores.items()}

    def compare(self, selection: str, metric: str, baseline: str | None = None) -> Comparison | None:
        """Return FSD against a baseline.

        Args:
            selection: a key of `SELECTIONS`.
            metric: one of `metrics`.
            baseline: a key of `facts.SYSTEMS`; None for the baseline with the best mean.

        Returns:
            The comparison; None if FSD or the baseline has no scores.
        """
        own = self.values(selection, PROPOSED, metric)
        candidates = BASELINES if baseline is None else (baseline,)
        means = {
            system: mean_and_deviation(list(values.values()))[0]
            for system in candidates
            if (values := self.values(selection, system, metric))
        }
        if not own or not means:
            return None
        best = max(means, key=lambda system: means[system])
        other = self.values(selection, best, metric)
        seeds = [seed for seed in own if seed in other]
        pair = [own[seed] for seed in seeds], [other[seed] for seed in seeds]
        enough = len(seeds) >= 2
        return Comparison(
            best, len(seeds), right_tailed_p(*pair) if enough else None, paired(*pair) if enough else None
        )

    def as_json(self) -> dict[str, Any]:
        """Return the results as plain values."""
        return asdict(self)


def read_results(folder: Path) -> Iterator[TaskResults]:
    """Yield the results of every task below a folder, in the order of the paper's tables.

    Args:
        folder: the folder of all tasks.
    """
    for task in ("wnli", "rte", "stsb", "cola", "mrpc", "sst2", "qnli", "qqp", "mnli"):
        try:
            values = json_file.read_mapping(folder / task / FILE)
        except FileNotFoundError:
            continue
        systems = {
            selection: {
                system: SystemScores(
                    **each | {"scores": {int(seed): metrics for seed, metrics in each["scores"].items()}}
                )
                for system, each in by_system.items()
            }
            for selection, by_system in values["systems"].items()
        }
        yield TaskResults(**values | {"metrics": tuple(values["metrics"]), "systems": systems})


def table(results: TaskResults, metric: str) -> pd.DataFrame:
    """Return a row for each system and selection, in percent, beside the paper's numbers.

    Args:
        results: the results of a task.
        metric: one of its metrics.
    """
    paper = printed(results.task, metric)
    rows = []
    for system, name in {"teacher": "teacher", "minilm": "MiniLM", **SYSTEMS}.items():
        numbers = paper.get(system, Printed(float("nan")))
        for selection in SELECTIONS:
            found = results.systems.get(selection, {}).get(system)
            mean, deviation = mean_and_deviation(list(results.values(selection, system, metric).values()))
            if system == "teacher" and metric == results.metrics[0] and results.teacher is not None:
                mean = results.teacher
            rows.append(
                {
                    "task": results.task,
                    "metric": metric,
                    "system": name,
                    "selection": selection,
                    "paper_mean": numbers.mean,
                    "paper_deviation": numbers.deviation,
                    "mean": 100 * mean,
                    "deviation": 100 * deviation,
                    "seeds": 0 if found is None else len(found.scores),
                    "trials": 0 if found is None else found.trials,
                    "search_score": None if found is None else 100 * found.search_score,
                    **({} if found is None else found.config),
                }
            )
    return pd.DataFrame(rows)


def comparison_rows(results: TaskResults) -> list[dict[str, Any]]:
    """Return FSD against the best baseline and against VKD as rows, for each metric and selection.

    Args:
        results: the results of a task.

    Returns:
        Rows with `metric`, `selection`, `baseline`, `seeds`, `difference`, `low` and `high` in points, `p`, and
        `paper_p`, which the paper has for its own best baseline.
    """
    rows = []
    for metric in results.metrics:
        for selection in SELECTIONS:
            against_best = results.compare(selection, metric)
            compared = [(against_best, printed_p(results.task, metric))]
            if against_best is not None and against_best.baseline != "vkd":
                compared.append((results.compare(selection, metric, "vkd"), None))
            for comparison, paper_p in compared:
                if comparison is None:
                    continue
                interval = comparison.interval
                rows.append(
                    {
                        "metric": metric,
                        "selection": selection,
                        "baseline": SYSTEMS[comparison.baseline],
                        "seeds": comparison.pairs,
                        "difference": None if interval is None else 100 * interval.estimate,
                        "low": None if interval is None else 100 * interval.low,
                        "high": None if interval is None else 100 * interval.high,
                        "p": comparison.p,
                        "paper_p": paper_p,
                    }
                )
    return rows
