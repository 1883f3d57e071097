"""What a search has come to, in the lines that its end prints."""

import shlex
from pathlib import Path
from typing import Any

from fsd_tune.progress import duration, short
from fsd_tune.report.confirmation import one_line
from fsd_tune.report.results import Results
from fsd_tune.storage.uri import is_uri


def lines(results: Results, output: str | Path | None = None) -> list[str]:
    """The end of a search: best against teacher, what ASHA and the single teacher pass saved, where things lie.

    Args:
        results: of the search, where its folder lies behind a URI from a copy on this machine.
        output: as the user named the folder; a URI is told beside the copy.
    """
    summary, saved, best = results.summary, results.saved, results.best
    folder = results.folder
    # A search that was killed early, or is still young, has said little of itself.
    name, state = summary.get("name") or folder.resolve().name, summary.get("state") or "state unknown"
    out = [f"{name}: {state} after {duration(summary.get('wall_seconds') or 0)}"]
    teacher = summary.get("teacher") or {}
    if best is None:
        out.append("  best student    none: no trial has finished")
    else:
        chosen = {name: best[name] for name in results.hyperparameters if _present(best[name])}
        error = results.standard_error
        spread = f" (standard error {error:.4f})" if error is not None else ""
        out += [
            f"  best student    {results.metric} {best['score']:.4f}{spread}, trial {best['number']}",
            f"                  {short(chosen)}",
        ]
    if results.confirmation:
        out.append(f"  confirmed       {one_line(results.confirmation)}")
    if teacher.get("score") is not None:
        kept = ""
        if best is not None and teacher["score"] > 0:
            kept = f"; the student keeps {best['score'] / teacher['score']:.1%}"
        out.append(f"  teacher         {results.metric} {teacher['score']:.4f}{kept}")
    if isinstance(summary.get("judge_by"), str) and best is not None and summary["judge_by"] != "last":
        out.append(
            f"                  a score is the mean of a trial's last three evaluations; the last is {best['last']:.4f}"
        )
    dev = summary.get("dev") or {}
    if isinstance(summary.get("select_on"), dict):
        out.append(f"  selected on     {summary['select_on']['holdout']:.3g} of the training split, held out of it")
    if dev.get("score") is not None:
        examples = f"{dev['examples']} examples, which selected nothing"
        out.append(f"  on dev          {results.metric} {dev['score']:.4f} ({examples})")
    counts = ", ".join(f"{int(saved[state])} {state}" for state in ("finished", "stopped", "failed") if saved[state])
    asked = f" of {summary['trials']}" if summary.get("trials") else ""
    out.append(
        f"  trials          {len(results.trials)}{asked}: {counts or 'none ended'}; stopping early "
        f"saved {saved['share']:.0%} of the steps ({int(saved['steps_saved'])} of {int(saved['steps_if_all_ran'])})"
    )
    ended_by = summary.get("ended_by") or {}
    if ended_by.get("text"):
        out.append(f"  ended by        {ended_by['text']}")
    memory = summary.get("memory")
    if memory and memory.get("live"):
        out.append("  teacher         ran live in every step: its outputs are over their disk limit (see the notes)")
    elif memory:
        reused = "" if memory.get("passes") else f" (reused; {memory.get('passes_ever')} was paid when it was built)"
        served = f"for {len(results.trials)} trials{reused}"
        out.append(f"  teacher passes  {memory.get('passes')} over the training split, {served}")
    train, evaluation = (float(results.trials[name].sum()) for name in ("train_seconds", "evaluation_seconds"))
    if train:
        share = evaluation / (train + evaluation)
        out.append(f"  trials' time    {duration(train + evaluation)}, of it {share:.0%} in evaluations")
    for name, what in (("report.html", "report"), ("study.db", "study"), ("best", "best student's folder")):
        if (folder / name).exists():
            out.append(f"  {what + ' ':.<24s} {folder / name}")
    if output is not None and is_uri(output):
        out.append(f"  {'these are copies of ':.<24s} {output}")
        out.append(f"  {'on another machine ':.<24s} fsd-tune fetch {shlex.quote(str(output))}")
    return out


def document(results: Results) -> dict[str, Any]:
    """The same for machines: one JSON document."""
    best = results.best
    return {
        "output": str(results.folder),
        "state": results.summary.get("state"),
        "ended_by": results.summary.get("ended_by"),
        "task": results.summary.get("task"),
        "metric": results.metric,
        "best": None
        if best is None
        else {
            "trial": int(best["number"]),
            "score": float(best["score"]),
            "config": {name: _plain(best[name]) for name in results.hyperparameters if _present(best[name])},
        },
        "confirmed": {key: results.confirmation[key] for key in ("winner", "optimism", "differences")}
        if results.confirmation
        else None,
        "select_on": results.summary.get("select_on"),
        "dev": results.summary.get("dev"),
        "teacher": results.summary.get("teacher"),
        "trials": results.saved,
        "teacher_passes": (results.summary.get("memory") or {}).get("passes"),
        "wall_seconds": results.summary.get("wall_seconds"),
    }


def _present(value: Any) -> bool:
    # NaN and None stand for a hyperparameter that the trial's method does not use.
    return value is not None and value == value


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
