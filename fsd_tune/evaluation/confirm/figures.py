"""The figures of a confirmation: scores, the search's optimism, differences from the baselines, tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fsd_tune.evaluation.confirm.inputs import Configuration, ConfirmationPlan
from fsd_tune.evaluation.confirm.run_store import FinishedRun, RunRequest
from fsd_tune.report.intervals import RESAMPLES, Interval, bootstrap, mean_and_deviation, paired
from fsd_tune.settings.judging import JUDGE_BY
from fsd_tune.storage import artifacts


def run_requests(
    plan: ConfirmationPlan,
    configurations: Sequence[Configuration],
    seeds: Sequence[int],
    student_of: Configuration | None = None,
) -> list[RunRequest]:
    """Return a run of each configuration on each seed, seed by seed.

    Args:
        plan: of the confirmation.
        configurations: to train.
        seeds: to train them on.
        student_of: the configuration whose run on the first seed also writes its student.
    """
    summary = plan.searched.results.summary
    requests = []
    for seed in seeds:
        for configuration in configurations:
            # 1 and 1.0 train the same, so they must give the same name.
            config = {
                key: float(value) if isinstance(value, int) else value for key, value in configuration.config.items()
            }
            name = artifacts.digest(summary.identity, config, seed, summary.planned_reports, plan.spec.precision)
            student = configuration is student_of and seed == seeds[0]
            requests.append(RunRequest(name, configuration, seed, student))
    return requests


def scores_of(
    plan: ConfirmationPlan, configuration: Configuration, seeds: Sequence[int], finished_runs: Mapping[str, FinishedRun]
) -> dict[int, float]:
    """Return the scores of a configuration by seed, without the seeds on which it failed.

    Args:
        plan: of the confirmation.
        configuration: one that was trained on the seeds.
        seeds: the seeds.
        finished_runs: the runs by name.
    """
    scores = {request.seed: finished_runs[request.name].score for request in run_requests(plan, [configuration], seeds)}
    return {seed: score for seed, score in scores.items() if score is not None}


def confirmation_summary(
    plan: ConfirmationPlan,
    winner: Configuration,
    baselines: Sequence[Configuration],
    finished_runs: Mapping[str, FinishedRun],
) -> dict[str, Any]:
    """Return the confirmation's figures: scores, the search's optimism, differences from the baselines.

    Args:
        plan: of the confirmation.
        winner: the candidate that won on the selection seeds.
        baselines: to compare it with.
        finished_runs: the runs by name.
    """
    results = plan.searched.results
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
        if not is_baseline:
            entry["selection"] = _figures(plan, configuration, plan.selection_seeds, finished_runs)
        if is_winner or is_baseline:
            entry["fresh"] = _figures(plan, configuration, plan.fresh_seeds, finished_runs)
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
        "fresh_seeds": list(plan.fresh_seeds),
        "winner": winner_entry,
        "optimism": {
            "search": winner_entry["search_score"],
            "selection": winner_entry["selection"]["mean"],
            "fresh": winner_entry["fresh"]["mean"],
        },
        "configurations": entries,
        "differences": [_difference(plan, winner, baseline, finished_runs) for baseline in baselines],
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
        "failed": [seed for seed in seeds if seed not in scores],
    }


def _difference(
    plan: ConfirmationPlan, winner: Configuration, baseline: Configuration, finished_runs: Mapping[str, FinishedRun]
) -> dict[str, Any]:
    """Return winner minus baseline over the seeds on which both trained; intervals are None if there are too few."""
    winner_scores = scores_of(plan, winner, plan.fresh_seeds, finished_runs)
    baseline_scores = scores_of(plan, baseline, plan.fresh_seeds, finished_runs)
    common_seeds = [seed for seed in plan.fresh_seeds if seed in winner_scores and seed in baseline_scores]
    difference: dict[str, Any] = {
        "baseline": baseline.label,
        "pairs": len(common_seeds),
        "seeds": None,
        "examples": None,
    }
    if common_seeds:
        logits = [
            np.stack(
                [_logits(finished_runs[request.name]) for request in run_requests(plan, [configuration], common_seeds)]
            )
            for configuration in (winner, baseline)
        ]
        labels = plan.inputs.dev.labels
        difference["examples"] = _interval(bootstrap(plan.inputs.task, logits[0], logits[1], labels))
        difference["resamples"] = RESAMPLES
    if len(common_seeds) > 1:
        difference["seeds"] = _interval(
            paired([winner_scores[seed] for seed in common_seeds], [baseline_scores[seed] for seed in common_seeds])
        )
    return difference | _verdict(difference["seeds"], difference["examples"])


def _verdict(seeds: dict[str, float] | None, examples: dict[str, float] | None) -> dict[str, Any]:
    """Return the common verdict of the intervals over seeds and over dev examples."""
    intervals = {"seeds": seeds, "dev examples": examples}
    noisy_sources = [
        source for source, interval in intervals.items() if interval is None or interval["low"] <= 0 <= interval["high"]
    ]
    signs = {np.sign(interval["estimate"]) for interval in intervals.values() if interval is not None}
    if noisy_sources:
        verdict = f"within noise over {' and over '.join(noisy_sources)}"
    elif signs == {1}:
        verdict = "better beyond noise"
    elif signs == {-1}:
        verdict = "worse beyond noise"
    else:
        verdict = "undecided: judged score and last evaluation disagree"
    return {"within_noise": bool(noisy_sources), "verdict": verdict}


def _logits(run: FinishedRun) -> Any:
    assert run.logits is not None, "a finished run has logits"
    return run.logits


def _interval(interval: Interval) -> dict[str, float]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


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
