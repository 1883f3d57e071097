"""Confirming a search's winner: its best configurations on seeds that choose, the winner and baselines on fresh ones.

A search's best score is the largest of many noisy ones, so it promises too much. What the winner scores on seeds that
chose nothing, against baselines on the same seeds, is what may be reported.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.evaluation.confirm import inputs
from fsd_tune.evaluation.confirm.inputs import Configuration, Plan
from fsd_tune.evaluation.confirm.runs import Finished, Runs, Wanted
from fsd_tune.progress import Display, short
from fsd_tune.report import html_report
from fsd_tune.report.intervals import RESAMPLES, Interval, bootstrap, mean_and_deviation, paired
from fsd_tune.search.folder import hold_folder
from fsd_tune.storage import artifacts, open_folder
from fsd_tune.storage.experiment_folder import ExperimentFolder
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
    """Confirm a search's winner, or continue to; runs that have ended are never trained again.

    Args:
        folder: of a finished search, a path or a URI; everything is written into `confirm/` in it, and its report anew.
        top: how many of its best configurations compete.
        seeds: selection seeds, common to all of them.
        fresh_seeds: seeds that choose nothing, for the winner and the baselines.
        baseline: the folder of a search over kd on the same task, data and student; None for kd at its defaults.
        address: of a Ray cluster; None for a local instance.
        ray_temporary: Ray's folder for sockets and logs.
        display: where progress goes.

    Returns:
        What `confirm/summary.json` holds.

    Raises:
        InputError: with every problem found before work starts.
        FsdTuneError: a run failed, or every configuration has a run that diverged; what has ended is kept.
    """
    display, where, began = display or Display(quiet=True), open_folder.open_experiment(folder), time.monotonic()
    display.stage("reading the search, its data and teacher", 0, 1)
    where.check_writable("FOLDER")
    where.download()
    folder = where.folder
    plan = inputs.plan(where, top, seeds, fresh_seeds, baseline, address)
    for note in plan.notes:
        display.line(f"note: {note}")
    summary, metric, spec = plan.searched.results.summary, plan.inputs.task.metric, plan.spec
    facts = {
        "task": spec.task.id,
        "metric": metric,
        "group": summary.group or summary.name,
        "teacher": summary.teacher.as_json(),
        "precision": spec.precision,
        "max_length": plan.searched.settings.data.max_length,
        "versions": versions(),
        "examples": len(plan.inputs.dev),
        **summary.values("train_examples", "select_on", "judge_by", "student"),
    }
    runs = Runs(
        where, plan.searched.settings, spec, metric, summary.planned_reports, facts, display, address,
        ray_temporary,
    )  # fmt: skip
    with _held(where), runs:
        chosen = _wanted(plan, plan.candidates, plan.selection_seeds)
        ended = runs.finish("selection seeds", chosen)
        winner = _winner(plan, ended, display)
        others, notes = inputs.baselines(winner, plan.baseline)
        for note in notes:
            display.line(f"note: {note}")
        fresh = _wanted(plan, [winner, *others], plan.fresh_seeds, student_of=winner)
        ended |= runs.finish("fresh seeds", fresh)
        display.stage("intervals", 0, 1)
        made = _summary(plan, winner, others, ended) | {
            "notes": [*plan.notes, *notes],
            "teacher_passes": runs.passes,
            "runs_trained": runs.trained,
            "wall_seconds": round(time.monotonic() - began, 2),
        }
        made["runs"] = [_row(one, "selection", ended) for one in chosen] + [_row(one, "fresh", ended) for one in fresh]
        artifacts.write_json(folder / "confirm" / "summary.json", made)
        artifacts.write_text(folder / "confirm" / "confirm.csv", _table(made).to_csv(index=False))
        html_report.write(folder)
        where.sync_all()
    display.close()
    return made


@contextlib.contextmanager
def _held(where: ExperimentFolder) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_folder(where.folder))
            stack.enter_context(where.lock())
        except InputError:
            raise InputError(f"{where.name}: a search or a confirmation is at work in it; wait for its end.") from None
        yield


def _wanted(
    plan: Plan, configurations: Sequence[Configuration], seeds: Sequence[int], student_of: Configuration | None = None
) -> list[Wanted]:
    """A run of each configuration on each seed, seed by seed; the student of the first seed of `student_of` is kept."""
    identity = plan.searched.results.summary.identity
    made = []
    for seed in seeds:
        for one in configurations:
            # Numbers count as what they are: 1 and 1.0 train the same.
            config = {key: float(value) if isinstance(value, int) else value for key, value in one.config.items()}
            reports = plan.searched.results.summary.planned_reports
            name = artifacts.digest(identity, config, seed, reports, plan.spec.precision)
            made.append(Wanted(name, one, seed, student=one is student_of and seed == seeds[0]))
    return made


def _scores(plan: Plan, one: Configuration, seeds: Sequence[int], ended: Mapping[str, Finished]) -> dict[int, float]:
    """Scores of one configuration by seed; seeds on which it failed are left out."""
    found = {run.seed: ended[run.name].score for run in _wanted(plan, [one], seeds)}
    return {seed: score for seed, score in found.items() if score is not None}


def _winner(plan: Plan, ended: Mapping[str, Finished], display: Display) -> Configuration:
    """The candidate with the best mean on the selection seeds; among equals the search's better one."""
    means = []
    for one in plan.candidates:
        scores = _scores(plan, one, plan.selection_seeds, ended)
        if len(scores) < len(plan.selection_seeds):
            failed = len(plan.selection_seeds) - len(scores)
            display.line(f"  {one.label} cannot win: {failed} of its {len(plan.selection_seeds)} runs diverged")
        else:
            means.append((mean_and_deviation(list(scores.values()))[0], one))
    if not means:
        raise FsdTuneError(
            "No configuration has trained on all selection seeds: each has a run that diverged.",
            hint="Compete with more: --top; or search again with lower learning rates.",
        )
    best, winner = max(means, key=lambda item: item[0])
    display.line(f"winner: {winner.label}, mean {best:.4f} on the selection seeds; {short(winner.config)}")
    return winner


def _summary(
    plan: Plan, winner: Configuration, others: Sequence[Configuration], ended: Mapping[str, Finished]
) -> dict[str, Any]:
    """The confirmation's figures: scores, the search's optimism, differences from the baselines."""
    results = plan.searched.results
    configurations = []
    for one in (*plan.candidates, *others):
        entry: dict[str, Any] = {
            "label": one.label,
            "role": "winner" if one is winner else "baseline" if one in others else "candidate",
            "trial": one.trial,
            "search_score": one.score,
            "remark": one.remark,
            "config": one.config,
        }
        if one not in others:
            entry["selection"] = _figures(plan, one, plan.selection_seeds, ended)
        if one is winner or one in others:
            entry["fresh"] = _figures(plan, one, plan.fresh_seeds, ended)
        configurations.append(entry)
    won = next(entry for entry in configurations if entry["role"] == "winner")
    return {
        "task": plan.spec.task.id,
        "metric": results.metric,
        "judge_by": plan.searched.settings.search.judge_by,
        "dev_examples": len(plan.inputs.dev),
        "search_trials": len(results.trials),
        "search_seed": plan.searched.seed,
        "selection_seeds": list(plan.selection_seeds),
        "fresh_seeds": list(plan.fresh_seeds),
        "winner": won,
        "optimism": {
            "search": won["search_score"],
            "selection": won["selection"]["mean"],
            "fresh": won["fresh"]["mean"],
        },
        "configurations": configurations,
        "differences": [_difference(plan, winner, one, ended) for one in others],
    }


def _figures(plan: Plan, one: Configuration, seeds: Sequence[int], ended: Mapping[str, Finished]) -> dict[str, Any]:
    scores = _scores(plan, one, seeds, ended)
    mean, deviation = mean_and_deviation(list(scores.values()))
    return {
        "mean": _number(mean),
        "deviation": _number(deviation),
        "scores": {str(seed): score for seed, score in scores.items()},
        "failed": [seed for seed in seeds if seed not in scores],
    }


def _difference(
    plan: Plan, winner: Configuration, other: Configuration, ended: Mapping[str, Finished]
) -> dict[str, Any]:
    """Winner minus a baseline, over the seeds on which both trained; None where there are too few."""
    ours, theirs = (_scores(plan, one, plan.fresh_seeds, ended) for one in (winner, other))
    both = [seed for seed in plan.fresh_seeds if seed in ours and seed in theirs]
    found: dict[str, Any] = {"baseline": other.label, "pairs": len(both), "seeds": None, "examples": None}
    if both:
        logits = [np.stack([_logits(ended[run.name]) for run in _wanted(plan, [one], both)]) for one in (winner, other)]
        labels = plan.inputs.dev.labels
        found["examples"] = _interval(bootstrap(plan.inputs.task, logits[0], logits[1], labels))
        found["resamples"] = RESAMPLES
    if len(both) > 1:
        found["seeds"] = _interval(paired([ours[seed] for seed in both], [theirs[seed] for seed in both]))
    intervals = [found[key] for key in ("seeds", "examples")]
    noisy = [
        over
        for over, interval in zip(("seeds", "dev examples"), intervals, strict=True)
        if interval is None or interval["low"] <= 0 <= interval["high"]
    ]
    found["within_noise"] = bool(noisy)
    signs = {np.sign(interval["estimate"]) for interval in intervals if interval is not None}
    found["verdict"] = (
        f"within noise over {' and over '.join(noisy)}"
        if noisy
        else "better beyond noise"
        if signs == {1}
        else "worse beyond noise"
        if signs == {-1}
        else "undecided: judged score and last evaluation disagree"
    )
    return found


def _logits(run: Finished) -> Any:
    assert run.logits is not None, "a finished run has logits"
    return run.logits


def _interval(interval: Interval) -> dict[str, float]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def _row(run: Wanted, stage: str, ended: Mapping[str, Finished]) -> dict[str, Any]:
    record = ended[run.name].record
    keys = ("state", "reason", "score", "last", "seconds", "device")
    return {"run": run.name, "configuration": run.configuration.label, "stage": stage, "seed": run.seed} | {
        key: record.get(key) for key in keys
    }


def _table(made: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each configuration and stage."""
    rows = []
    for one in made["configurations"]:
        for stage in ("selection", "fresh"):
            if stage in one:
                figures = one[stage]
                rows.append(
                    {
                        "configuration": one["label"],
                        "role": one["role"],
                        "trial": one["trial"],
                        "stage": stage,
                        "mean": figures["mean"],
                        "deviation": figures["deviation"],
                        "runs": len(figures["scores"]),
                        "failed": len(figures["failed"]),
                        "search_score": one["search_score"],
                        **one["config"],
                    }
                )
    return pd.DataFrame(rows).astype({"trial": "Int64"})


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if value == value else None
