"""The summary of a search for a terminal and for `--json`."""

import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from fsd_tune.profiling.table import side_by_side_lines
from fsd_tune.progress import duration, short
from fsd_tune.report import methods, origins
from fsd_tune.report.again import distill_command
from fsd_tune.report.confirmation import one_line
from fsd_tune.report.cost import cost_of
from fsd_tune.report.results import STATES, Results
from fsd_tune.storage import layout
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.uri import is_uri


def summary_lines(results: Results, output: str | Path | None = None) -> list[str]:
    """Return the lines that the end of a search prints: the best student beside the teacher, costs, and files.

    Args:
        results: the results of the search; those of the copy on this machine if its folder is a URI.
        output: the folder as the user named it. A URI is printed in addition to the copy.
    """
    summary = results.summary
    saved = results.saved
    best = results.best
    folder = results.folder
    # Early in a search, or after an early kill, most of the summary is missing.
    name, state = summary.name or folder.resolve().name, summary.state or "state unknown"
    out = [f"{name}: {state} after {duration(summary.wall_seconds or 0)}"]
    teacher = summary.teacher
    if best is None:
        out.append("  best student    none: no trial has finished")
    else:
        configuration = {name: best[name] for name in results.hyperparameters if _present(best[name])}
        error = results.standard_error
        spread = f" (standard error {error:.4f})" if error is not None else ""
        out += [
            f"  best student    {results.metric} {best['score']:.4f}{spread}, trial {best['number']}",
            f"                  {short(configuration)}",
        ]
    leader = _unfinished_leader(results)
    if leader is not None:
        configuration = {name: leader[name] for name in results.hyperparameters if _present(leader[name])}
        out += [
            f"  so far          {results.metric} {leader['last']:.4f} after {_reports(results, leader)}, trial "
            f"{leader['number']}, {leader['state']}: the best of all trials, but not trained to its end",
            f"                  {short(configuration)}",
            f"                  {_to_finish(results, leader)}",
        ]
    if results.confirmation:
        out.append(f"  confirmed       {one_line(results.confirmation)}")
    if teacher.score is not None:
        share_kept = ""
        if best is not None and teacher.score > 0:
            share_kept = f"; the student keeps {best['score'] / teacher.score:.1%}"
        out.append(f"  teacher         {results.metric} {teacher.score:.4f}{share_kept}")
    if summary.judge_by not in (None, "last") and best is not None:
        out.append(
            f"                  a score is the mean of a trial's last three evaluations; the last is {best['last']:.4f}"
        )
    dev = summary.dev
    if summary.held_out is not None:
        out.append(f"  selected on     {summary.held_out:.3g} of the training split, held out of it")
    if dev.score is not None:
        examples = f"{dev.examples} examples, which selected nothing"
        out.append(f"  on dev          {results.metric} {dev.score:.4f} ({examples})")
    out += [f"  {line}" for line in _side_by_side(results)]
    counts = ", ".join(f"{int(saved[state])} {state}" for state in STATES[:3] if saved[state])
    requested = f" of {summary.trials}" if summary.trials else ""
    out.append(
        f"  trials          {len(results.trials)}{requested}: {counts or 'none ended'}; stopping early "
        f"saved {saved['share']:.0%} of the steps ({int(saved['steps_saved'])} of {int(saved['steps_if_all_ran'])})"
    )
    warm = origins.remark(results)
    if warm:
        out.append(f"  warm start      {warm}")
    by_method = methods.method_lines(results)
    if by_method:
        fair = (
            "equal reports for each" if methods.compares_equally(results) else "unequal reports, as the sampler chose"
        )
        out.append(f"  methods         {fair}")
        out += [f"                  {line}" for line in by_method]
    if summary.ended_by.text:
        out.append(f"  ended by        {summary.ended_by.text}")
    cost = cost_of(results)
    if cost:
        out.append(f"  cost            {cost}")
    memory = summary.memory
    if memory.live:
        out.append("  teacher         ran live in every step: its outputs exceed the disk limit (see the notes)")
    elif memory:
        reused = "" if memory.passes else f" (reused; {memory.passes_ever} was paid when it was built)"
        coverage = f"for {len(results.trials)} trials{reused}"
        out.append(f"  teacher passes  {memory.passes} over the training split, {coverage}")
    train, evaluation = (float(results.trials[name].sum()) for name in ("train_seconds", "evaluation_seconds"))
    if train:
        share = evaluation / (train + evaluation)
        out.append(f"  trials' time    {duration(train + evaluation)}, of it {share:.0%} in evaluations")
    for name, what in ((layout.REPORT, "report"), (layout.STUDY, "study"), (layout.BEST, "best student's folder")):
        if (folder / name).exists():
            out.append(f"  {what + ' ':.<24s} {folder / name}")
    if output is not None and is_uri(output):
        out.append(f"  {'these are copies of ':.<24s} {output}")
        out.append(f"  {'on another machine ':.<24s} fsd-tune fetch {shlex.quote(str(output))}")
    return out


def summary_document(results: Results) -> dict[str, Any]:
    """Return the summary of a search as a JSON document.

    Args:
        results: the results of the search.
    """
    best, summary = results.best, results.summary
    return {
        "output": str(results.folder),
        "state": summary.state,
        "ended_by": summary.ended_by.as_json(),
        "task": summary.task,
        "metric": results.metric,
        "best": None
        if best is None
        else {
            "trial": int(best["number"]),
            "score": float(best["score"]),
            "config": {name: _plain(best[name]) for name in results.hyperparameters if _present(best[name])},
            "origin": best["origin"],
        },
        "warm_start": origins.counts(results),
        "recommended": _recommended(results),
        "methods": methods.method_documents(results),
        "confirmed": {key: results.confirmation[key] for key in ("winner", "optimism", "differences")}
        if results.confirmation
        else None,
        "select_on": summary.select_on,
        "dev": summary.dev.as_json(),
        "teacher": summary.teacher.as_json(),
        "models": summary.models.as_json(),
        "trials": results.saved,
        "teacher_passes": summary.memory.passes,
        "wall_seconds": summary.wall_seconds,
    }


def _side_by_side(results: Results) -> list[str]:
    """Return the table of the best student and the teacher; empty before the search's end."""
    summary, best = results.summary, results.best
    if not summary.models.models or best is None:
        return []
    scores = {"student": float(best["score"])}
    if summary.teacher.score is not None:
        scores["teacher"] = summary.teacher.score
    return side_by_side_lines(summary.models.as_json() or {}, results.metric, scores)


def _unfinished_leader(results: Results) -> "pd.Series[Any] | None":
    """Return the recommended trial if it has not finished; None if it has, because then it is the best student."""
    leader = results.recommended
    return None if leader is None or leader["state"] == TrialState.FINISHED else leader


def _to_finish(results: Results, leader: "pd.Series[Any]") -> str:
    """Return how the user can train an unfinished trial to its end."""
    if leader["state"] == TrialState.STOPPED:
        return f"ASHA stopped it; train it whole: {distill_command(results, leader)}"
    if leader["state"] == TrialState.INTERRUPTED:
        return f"continue it: fsd-tune resume {shlex.quote(str(results.folder))}"
    return "it still runs"


def _reports(results: Results, trial: "pd.Series[Any]") -> str:
    planned = results.summary.reports
    return f"{trial['reports']} of {planned} reports" if planned else f"{trial['reports']} reports"


def _recommended(results: Results) -> dict[str, Any] | None:
    leader = results.recommended
    if leader is None:
        return None
    return {
        "trial": int(leader["number"]),
        "state": str(leader["state"]),
        "reports": int(leader["reports"]),
        "last": float(leader["last"]),
        "config": {name: _plain(leader[name]) for name in results.hyperparameters if _present(leader[name])},
    }


def _present(value: Any) -> bool:
    # A hyperparameter that the trial's method does not use is NaN or None.
    return value is not None and value == value


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
