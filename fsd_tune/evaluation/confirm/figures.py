"""The figures of a confirmation: scores, the search's optimism, differences from the baselines, tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fsd_tune.evaluation.confirm.comparison import compare, holm, verdict
from fsd_tune.evaluation.confirm.inputs import Configuration, ConfirmationPlan
from fsd_tune.evaluation.confirm.run_store import FinishedRun, RunRequest
from fsd_tune.evaluation.confirm.sequential import confidence_sequence
from fsd_tune.report.intervals import LEVEL, RESAMPLES, example_error, mean_and_deviation
from fsd_tune.settings.judging import JUDGE_BY
from fsd_tune.storage import artifacts


def run_requests(
    plan: ConfirmationPlan,
    configurations: Sequence[Configuration],
    seeds: Sequence[int],
    student_of: Configuration | None = None,
) -> list[RunRequest]:
    """Return a run of each different configuration on each seed, seed by seed.

    Args:
        plan: of the confirmation.
        configurations: to train.
        seeds: to train them on.
        student_of: the configuration whose run on the first seed also writes its student.
    """
    summary = plan.searched.results.summary
    requests: dict[str, RunRequest] = {}
    for seed in seeds:
        for configuration in configurations:
            # 1 and 1.0 train the same, so they must give the same name.
            config = {
                key: float(value) if isinstance(value, int) else value for key, value in configuration.config.items()
            }
            name = artifacts.digest(summary.identity, config, seed, summary.planned_reports, plan.spec.precision)
            student = configuration is student_of and seed == seeds[0]
            # Two searches may have found the same configuration.
            requests.setdefault(name, RunRequest(name, configuration, seed, student))
    return list(requests.values())


def scores_of(
    plan: ConfirmationPlan, configuration: Configuration, seeds: Sequence[int], finished_runs: Mapping[str, FinishedRun]
) -> dict[int, float]:
    """Return the scores of a configuration by seed, without the seeds on which it failed or was not trained.

    Args:
        plan: of the confirmation.
        configuration: the configuration.
        seeds: the seeds.
        finished_runs: the runs by name.
    """
    requests = run_requests(plan, [configuration], seeds)
    scores = {request.seed: finished_runs[request.name].score for request in requests if request.name in finished_runs}
    return {seed: score for seed, score in scores.items() if score is not None}


def confirmation_summary(
    plan: ConfirmationPlan,
    winner: Configuration,
    baselines: Sequence[Configuration],
    fresh_seeds: Sequence[int],
    finished_runs: Mapping[str, FinishedRun],
) -> dict[str, Any]:
    """Return the confirmation's figures: scores, the search's optimism, differences from the baselines.

    Args:
        plan: of the confirmation.
        winner: the candidate that won on the selection seeds.
        baselines: to compare it with.
        fresh_seeds: the fresh seeds that the winner was trained on.
        finished_runs: the runs by name.
    """
    results = plan.searched.results
    tuned_configs = [configuration.config for configuration in plan.tuned]
    entries = []
    for configuration in (*plan.candidates, *baselines):
        is_baseline = configuration in baselines
        is_winner = configuration is winner
        entry: dict[str, Any] = {
            "label": configuration.label,
            "role": "winner" if is_winner else "baseline" if is_baseline else "candidate",
            "trial": configuration.trial,
            "search_score": configuration.score,
            "remark": configuration.remark,
            "config": configuration.config,
        }
        if not is_baseline or configuration.config in tuned_configs:
            entry["selection"] = _figures(plan, configuration, plan.selection_seeds, finished_runs)
        if is_winner or is_baseline:
            entry["fresh"] = _figures(plan, configuration, fresh_seeds, finished_runs)
        entries.append(entry)
    winner_entry = next(entry for entry in entries if entry["role"] == "winner")
    return {
        "task": plan.spec.task.id,
        "metric": results.metric,
        "judge_by": JUDGE_BY,
        "dev_examples": len(plan.inputs.dev),
        "search_trials": len(results.trials),
        "search_seed": plan.searched.seed,
        "selection_seeds": list(plan.selection_seeds),
        "fresh_seeds": list(fresh_seeds),
        "winner": winner_entry,
        "optimism": {
            "search": winner_entry["search_score"],
            "selection": winner_entry["selection"]["mean"],
            "fresh": winner_entry["fresh"]["mean"],
        },
        "configurations": entries,
        "differences": _differences(plan, winner, baselines, fresh_seeds, finished_runs),
    }


def _figures(
    plan: ConfirmationPlan, configuration: Configuration, seeds: Sequence[int], finished_runs: Mapping[str, FinishedRun]
) -> dict[str, Any]:
    scores = scores_of(plan, configuration, seeds, finished_runs)
    mean, deviation = mean_and_deviation(list(scores.values()))
    return {
        "mean": _number(mean),
        "deviation": _number(deviation),
        "scores": {str(seed): score for seed, score in scores.items()},
        "failed": [
            request.seed
            for request in run_requests(plan, [configuration], seeds)
            if request.name in finished_runs and request.seed not in scores
        ],
    }


def paired_differences(
    plan: ConfirmationPlan,
    first: Configuration,
    second: Configuration,
    seeds: Sequence[int],
    finished_runs: Mapping[str, FinishedRun],
) -> tuple[list[float], float]:
    """Return how two configurations differ on the seeds on which both have trained.

    Args:
        plan: of the confirmation.
        first: a configuration.
        second: another one.
        seeds: the seeds to look at.
        finished_runs: the runs by name.

    Returns:
        The differences of their scores, first minus second, and the standard error of the mean difference over dev
        examples, 0 without a common seed.
    """
    scores = [scores_of(plan, configuration, seeds, finished_runs) for configuration in (first, second)]
    common_seeds = [seed for seed in seeds if seed in scores[0] and seed in scores[1]]
    if not common_seeds:
        return [], 0.0
    logits = [
        np.stack(
            [_logits(finished_runs[request.name]) for request in run_requests(plan, [configuration], common_seeds)]
        )
        for configuration in (first, second)
    ]
    error = example_error(plan.inputs.task, logits[0], logits[1], plan.inputs.dev.labels)
    return [scores[0][seed] - scores[1][seed] for seed in common_seeds], error


def _differences(
    plan: ConfirmationPlan,
    winner: Configuration,
    baselines: Sequence[Configuration],
    seeds: Sequence[int],
    finished_runs: Mapping[str, FinishedRun],
) -> list[dict[str, Any]]:
    """Return winner minus each baseline with its interval, None for fewer than two common seeds, and its verdict."""
    measured = [paired_differences(plan, winner, baseline, seeds, finished_runs) for baseline in baselines]
    level = level_of_each(len(baselines))
    rows: list[dict[str, Any]] = []
    for baseline, (values, error) in zip(baselines, measured, strict=True):
        row: dict[str, Any] = {"baseline": baseline.label, "pairs": len(values), "resamples": RESAMPLES}
        row |= {"interval": None, "p": None, "seed_error": None, "example_error": error}
        row["sequential"] = plan.counts.most is not None
        if len(values) > 1:
            found = compare(values, error)
            interval = found.interval
            if row["sequential"]:
                interval = confidence_sequence(values, error, level)
            row["interval"] = {name: _finite(getattr(interval, name)) for name in ("estimate", "low", "high")}
            row |= {"p": None if row["sequential"] else found.p, "seed_error": found.seed_error}
        rows.append(row)
    adjusted = iter(holm([row["p"] for row in rows if row["p"] is not None]))
    for row in rows:
        row["adjusted_p"] = next(adjusted) if row["p"] is not None else None
        interval = row["interval"]
        if row["p"] is not None:
            is_noise = row["adjusted_p"] >= 1 - LEVEL
        else:
            low, high = (None, None) if interval is None else (interval["low"], interval["high"])
            is_noise = low is None or high is None or low <= 0 <= high
        row |= {
            "within_noise": is_noise,
            "verdict": verdict(0.0 if interval is None else interval["estimate"], is_noise),
        }
    return rows


def level_of_each(comparisons: int) -> float:
    """Return the level of each interval of a sequential confirmation, so that all of them hold at 95%.

    Args:
        comparisons: number of baselines.
    """
    return 1 - (1 - LEVEL) / max(1, comparisons)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _logits(run: FinishedRun) -> Any:
    assert run.logits is not None, "a finished run has logits"
    return run.logits


def run_row(request: RunRequest, stage: str, finished_runs: Mapping[str, FinishedRun]) -> dict[str, Any]:
    """Return a run as a row of the summary's table of runs.

    Args:
        request: the run.
        stage: `selection` or `fresh`.
        finished_runs: the runs by name.
    """
    record = finished_runs[request.name].record
    keys = ("state", "reason", "score", "last", "seconds", "device")
    return {
        "run": request.name,
        "configuration": request.configuration.label,
        "stage": stage,
        "seed": request.seed,
    } | {key: record.get(key) for key in keys}


def score_table(document: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table with a row for each configuration and stage.

    Args:
        document: as `confirmation_summary` returns it.
    """
    rows = []
    for entry in document["configurations"]:
        for stage in ("selection", "fresh"):
            if stage in entry:
                figures = entry[stage]
                rows.append(
                    {
                        "configuration": entry["label"],
                        "role": entry["role"],
                        "trial": entry["trial"],
                        "stage": stage,
                        "mean": figures["mean"],
                        "deviation": figures["deviation"],
                        "runs": len(figures["scores"]),
                        "failed": len(figures["failed"]),
                        "search_score": entry["search_score"],
                        **entry["config"],
                    }
                )
    return pd.DataFrame(rows).astype({"trial": "Int64"})


def _number(value: float) -> float | None:
    """Return the number, or None for NaN, because JSON has no NaN."""
    return value if value == value else None
