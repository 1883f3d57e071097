"""Confirm a search's winner: its best configurations on selection seeds, then the winner and baselines on fresh ones.

A search's best score is the largest of many noisy ones, so it is too optimistic. The winner's score on seeds that
selected nothing can be reported, beside baselines on the same seeds.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fsd_tune.cluster import destination
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.evaluation.confirm import inputs
from fsd_tune.evaluation.confirm.inputs import Configuration, ConfirmationPlan
from fsd_tune.evaluation.confirm.run_store import FinishedRun, RunRequest
from fsd_tune.evaluation.confirm.runs import ConfirmationRuns
from fsd_tune.progress import Display, short
from fsd_tune.report import html_report
from fsd_tune.report.intervals import RESAMPLES, Interval, bootstrap, mean_and_deviation, paired
from fsd_tune.search.folder import hold_folder
from fsd_tune.storage import artifacts, layout, open_folder
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.uri import is_uri
from fsd_tune.versions import versions


def confirm(
    folder: Path | str,
    *,
    top: int = 5,
    seeds: int = 5,
    fresh_seeds: int = 5,
    baseline: Path | str | None = None,
    address: str | None = None,
    ray_temporary: Path | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """Confirm a search's winner on fresh seeds against baselines, or continue an interrupted confirmation.

    The best configurations of the search compete on selection seeds. The winner and the baselines are then trained on
    fresh seeds, which selected nothing. Runs that have ended are never trained again.

    Example:
        >>> import fsd_tune as fsd
        >>> confirmation = fsd.confirm("runs/rte", baseline="runs/rte-kd")  # doctest: +SKIP
        >>> confirmation["optimism"]  # doctest: +SKIP
        {'search': 0.7076, 'selection': 0.6931, 'fresh': 0.6902}

    Args:
        folder: the folder of a finished search, a path or a URI. Everything is written into its subfolder `confirm/`,
            and the search's report is written again.
        top: number of the search's best configurations that compete.
        seeds: number of selection seeds, the same for all of them.
        fresh_seeds: number of further seeds, for the winner and the baselines.
        baseline: the folder of a search over kd on the same task, data and student; None for kd at its defaults.
        address: the address of a Ray cluster; None for a local instance.
        ray_temporary: Ray's folder for sockets and logs; None for Ray's own.
        display: shows progress; None shows nothing.

    Returns:
        The content of `confirm/summary.json`: the winner, `optimism` (its mean score in the search, on the
        selection seeds and on the fresh seeds), all configurations with their scores, and the winner's differences from
        the baselines with intervals.

    Raises:
        InputError: the message lists all problems found before work starts.
        FsdTuneError: a run failed, or every configuration has a run that diverged. Runs that have ended are kept.
    """
    display = display or Display(quiet=True)
    started = time.monotonic()
    destination.check(address, ray_temporary)
    experiment = open_folder.open_experiment(folder)
    display.stage("reading the search, its data and teacher", 0, 1)
    experiment.check_writable("FOLDER")
    # A folder that does not exist is refused below; locking would create it.
    exists = experiment.folder.is_dir() or is_uri(experiment.name)
    with _lock(experiment) if exists else contextlib.nullcontext():
        return _confirm(experiment, top, seeds, fresh_seeds, baseline, address, ray_temporary, display, started)


def _confirm(
    experiment: ExperimentFolder,
    top: int,
    seeds: int,
    fresh_seeds: int,
    baseline: Path | str | None,
    address: str | None,
    ray_temporary: Path | None,
    display: Display,
    started: float,
) -> dict[str, Any]:
    """Confirm the search in a locked folder."""
    plan = inputs.plan_confirmation(experiment, top, seeds, fresh_seeds, baseline, address)
    for note in plan.notes:
        display.line(f"note: {note}")
    runs = ConfirmationRuns(
        experiment,
        plan.searched.settings,
        plan.spec,
        plan.inputs.task.metric,
        plan.searched.results.summary.planned_reports,
        _student_facts(plan),
        display,
        address,
        ray_temporary,
    )
    with runs:
        document = _compete(plan, runs, display)
        document["wall_seconds"] = round(time.monotonic() - started, 2)
        output = experiment.folder / layout.CONFIRM
        artifacts.write_json(output / layout.SUMMARY, document)
        artifacts.write_text(output / "confirm.csv", _table(document).to_csv(index=False))
        html_report.write_report(experiment.folder)
        experiment.sync_all()
    display.close()
    return document


def _student_facts(plan: ConfirmationPlan) -> dict[str, Any]:
    """Return the entries of the winner's `fsd_tune.json` that do not depend on its run."""
    summary = plan.searched.results.summary
    return {
        "task": plan.spec.task.id,
        "metric": plan.inputs.task.metric,
        "group": summary.group or summary.name,
        "teacher": summary.teacher.as_json(),
        "precision": plan.spec.precision,
        "max_length": plan.searched.settings.data.max_length,
        "versions": versions(),
        "examples": len(plan.inputs.dev),
        **summary.values("train_examples", "select_on", "judge_by", "student"),
    }


def _compete(plan: ConfirmationPlan, runs: ConfirmationRuns, display: Display) -> dict[str, Any]:
    """Train the candidates on the selection seeds, then the winner and the baselines on the fresh ones."""
    selection = _requests(plan, plan.candidates, plan.selection_seeds)
    finished_runs = runs.finish("selection seeds", selection)
    winner = _winner(plan, finished_runs, display)
    baselines, notes = inputs.baselines(winner, plan.baseline)
    for note in notes:
        display.line(f"note: {note}")
    fresh = _requests(plan, [winner, *baselines], plan.fresh_seeds, student_of=winner)
    finished_runs |= runs.finish("fresh seeds", fresh)
    display.stage("intervals", 0, 1)
    return _summary(plan, winner, baselines, finished_runs) | {
        "notes": [*plan.notes, *notes],
        "teacher_passes": runs.passes,
        "runs_trained": runs.trained,
        "runs": [
            *(_row(request, "selection", finished_runs) for request in selection),
            *(_row(request, "fresh", finished_runs) for request in fresh),
        ],
    }


@contextlib.contextmanager
def _lock(experiment: ExperimentFolder) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_folder(experiment.folder))
            stack.enter_context(experiment.lock())
        except InputError:
            raise InputError(
                f"{experiment.name}: a search or a confirmation is running in it; wait until it ends."
            ) from None
        yield


def _requests(
    plan: ConfirmationPlan,
    configurations: Sequence[Configuration],
    seeds: Sequence[int],
    student_of: Configuration | None = None,
) -> list[RunRequest]:
    """Return a run of each configuration on each seed, seed by seed.

    The run of `student_of` on the first seed also writes its student.
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


def _scores(
    plan: ConfirmationPlan, configuration: Configuration, seeds: Sequence[int], finished_runs: Mapping[str, FinishedRun]
) -> dict[int, float]:
    """Return the scores of a configuration by seed, without the seeds on which it failed."""
    scores = {request.seed: finished_runs[request.name].score for request in _requests(plan, [configuration], seeds)}
    return {seed: score for seed, score in scores.items() if score is not None}


def _winner(plan: ConfirmationPlan, finished_runs: Mapping[str, FinishedRun], display: Display) -> Configuration:
    """Return the candidate with the best mean on the selection seeds; the search decides between equal means."""
    means = []
    for candidate in plan.candidates:
        scores = _scores(plan, candidate, plan.selection_seeds, finished_runs)
        if len(scores) < len(plan.selection_seeds):
            failed = len(plan.selection_seeds) - len(scores)
            display.line(f"  {candidate.label} cannot win: {failed} of its {len(plan.selection_seeds)} runs diverged")
        else:
            means.append((mean_and_deviation(list(scores.values()))[0], candidate))
    if not means:
        raise FsdTuneError(
            "No configuration has trained on all selection seeds: each has a run that diverged.",
            hint="Let more configurations compete with --top, or search again with lower learning rates.",
        )
    best, winner = max(means, key=lambda item: item[0])
    display.line(f"winner: {winner.label}, mean {best:.4f} on the selection seeds; {short(winner.config)}")
    return winner


def _summary(
    plan: ConfirmationPlan,
    winner: Configuration,
    baselines: Sequence[Configuration],
    finished_runs: Mapping[str, FinishedRun],
) -> dict[str, Any]:
    """Return the confirmation's figures: scores, the search's optimism, differences from the baselines."""
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
        "judge_by": plan.searched.settings.search.judge_by,
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
    scores = _scores(plan, configuration, seeds, finished_runs)
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
    winner_scores = _scores(plan, winner, plan.fresh_seeds, finished_runs)
    baseline_scores = _scores(plan, baseline, plan.fresh_seeds, finished_runs)
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
                [_logits(finished_runs[request.name]) for request in _requests(plan, [configuration], common_seeds)]
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


def _row(request: RunRequest, stage: str, finished_runs: Mapping[str, FinishedRun]) -> dict[str, Any]:
    record = finished_runs[request.name].record
    keys = ("state", "reason", "score", "last", "seconds", "device")
    return {
        "run": request.name,
        "configuration": request.configuration.label,
        "stage": stage,
        "seed": request.seed,
    } | {key: record.get(key) for key in keys}


def _table(document: Mapping[str, Any]) -> pd.DataFrame:
    """Return a row for each configuration and stage."""
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
