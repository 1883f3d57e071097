"""What a search found, for people: `leaderboard.csv` and `report.html`, one page that needs no network.

Made from the search's folder alone, during the search or after it. Everything that comes from files is escaped by the
template; the page forbids itself every request (Content-Security-Policy).
"""

import itertools
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fsd_tune.progress import duration
from fsd_tune.report import page
from fsd_tune.report.charts import charts
from fsd_tune.report.confirmation import figure, interval
from fsd_tune.report.intervals import mean_interval
from fsd_tune.report.results import Results, load
from fsd_tune.storage import artifacts
from fsd_tune.storage.search_summary import SearchSummary

__all__ = ["Results", "distill_command", "leaderboard", "load", "write"]

_NOTHING = "–"
# Options of the search's command line that a single run needs too.
_SHARED_OPTIONS = ("--task", "--task-file", "--teacher", "--data", "--memory")


def leaderboard(results: Results) -> pd.DataFrame:
    """One row a trial, best first: rank (of the finished ones, NA for others), then the columns of `Results.trials`."""
    table = results.trials.rename(columns={"number": "trial"})
    finished = (table["state"] == "finished") & table["score"].notna()
    table.insert(0, "rank", finished.cumsum().where(finished).astype("Int64"))
    return table


def write(source: Results | Path | str) -> Path:
    """Write `leaderboard.csv` and `report.html` into the search's folder, each beside its old version and then renamed.

    Args:
        source: a search's folder, or what `load` read from it.

    Returns:
        The page's path.

    Raises:
        InputError: the folder holds no search.
    """
    results = source if isinstance(source, Results) else load(source)
    path = results.folder / "report.html"
    artifacts.write_text(results.folder / "leaderboard.csv", leaderboard(results).to_csv(index=False))
    artifacts.write_text(path, _page(results))
    return path


def distill_command(results: Results, row: "pd.Series[Any]") -> str:
    """The command line that trains the configuration of `row`, a row of `Results.trials`, again."""
    given = _options(results.command)
    shared = {"--teacher": results.summary.teacher.name}
    if "--task-file" not in given:
        shared["--task"] = results.summary.task
    if (results.folder / "memory").is_dir():
        shared["--memory"] = str(results.folder / "memory")
    words = ["fsd-tune", "distill", str(results.folder / "settings.yaml")]
    for name in _SHARED_OPTIONS:
        value = given.get(name) or shared.get(name)
        words += [name, str(value)] if value else []
    for name in results.hyperparameters:
        if not _missing(row[name]):
            words += [f"--{name.replace('_', '-')}", _exact(row[name])]
    return shlex.join([*words, "--output", f"{results.folder}-trial-{row['number']}"])


def _options(command: str) -> dict[str, str]:
    """`--name value` and `--name=value` of a command line."""
    try:
        words = shlex.split(command)
    except ValueError:
        return {}
    joined = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    return joined | {word: after for word, after in itertools.pairwise(words) if word.startswith("--")}


def _page(results: Results) -> str:
    digits = _score_digits(results)
    drawn = charts(results)
    best = results.best
    varied = [name for name in results.hyperparameters if results.trials[name].nunique(dropna=False) > 1]
    return page.render(
        "report_template.html",
        drawn,
        {"seconds": _duration, "value": value, "missing": _missing, "plain": plain},
        results=results,
        summary=results.summary,
        name=results.summary.name or results.folder.name,
        subtitle=_subtitle(results),
        metric=results.metric.replace("_", " "),
        score=lambda value: _NOTHING if _missing(value) else f"{value:.{digits}f}".replace("-", "−"),
        best=best,
        best_configuration=[] if best is None else _configuration(best, results.hyperparameters),
        command=None if best is None else distill_command(results, best),
        facts=_facts(results, digits),
        rows=leaderboard(results).to_dict("records"),
        varied=varied,
        constant=_configuration(results.trials.iloc[0], [n for n in results.hyperparameters if n not in varied])
        if len(results.trials)
        else [],
        failures=results.trials[results.trials["state"] == "failed"].to_dict("records"),
        memory=results.summary.memory,
        confirmation=results.confirmation,
        figure=figure,
        interval=interval,
    )


def _facts(results: Results, digits: int) -> list[tuple[str, str, str]]:
    """The headline's figures: what, the figure, and a remark."""
    summary, saved = results.summary, results.saved
    teacher, memory = summary.teacher, summary.memory
    facts = []
    if teacher:
        score = teacher.score
        facts.append(("Teacher", _NOTHING if _missing(score) else f"{score:.{digits}f}", teacher.name or ""))
        if results.best is not None and score is not None and math.isfinite(score):
            difference = float(results.best["score"]) - score
            side = "student ahead" if difference > 0 else "student behind" if difference < 0 else "equal"
            facts.append(("Student minus teacher", f"{difference:+.{digits}f}".replace("-", "−"), side))
    facts += _confirmed(results, digits)
    dev = summary.dev
    if not _missing(dev.score):
        facts.append(("Best student on dev", f"{dev.score:.{digits}f}".replace("-", "−"), "dev selected nothing"))
    counts = [f"{saved[state]:,.0f} {state}" for state in ("finished", "stopped", "failed", "running", "interrupted")]
    asked = summary.trials
    facts.append(
        (
            "Trials",
            f"{len(results.trials):,}" + (f" of {asked:,}" if isinstance(asked, int) else ""),
            ", ".join(count for count in counts if not count.startswith("0 ")),
        )
    )
    if summary.ended_by.text:
        facts.append(("Ended by", str(summary.ended_by.budget).replace("_", " "), summary.ended_by.text))
    if saved["steps_if_all_ran"]:
        run, whole = saved["steps_run"], saved["steps_if_all_ran"]
        facts.append(("Steps saved by ASHA", f"{saved['share']:.0%}", f"{run:,.0f} run instead of {whole:,.0f}"))
    passes = memory.passes
    if memory.live:
        facts.append(("Teacher passes paid", "live", "the teacher ran in every step: its outputs are over their limit"))
    elif passes is not None:
        seconds = memory.build_seconds
        remark = "memory reused" if passes == 0 else f"memory built in {_duration(seconds)}" if seconds else ""
        facts.append(("Teacher passes paid", f"{passes:,}", remark))
    workers = summary.workers
    facts.append(("Wall time", _duration(summary.wall_seconds), _plural(workers, "worker") if workers else ""))
    train, selection = summary.train_examples, summary.selection_examples
    remark = f"{selection:,} to select on ({_select_on(summary)})" if isinstance(selection, int) else ""
    facts.append(("Training examples", f"{train:,}" if isinstance(train, int) else _NOTHING, remark))
    layers = summary.student.layers
    if layers:
        facts.append(("Student", _plural(layers, "layer"), summary.precision or ""))
    return facts


def _confirmed(results: Results, digits: int) -> list[tuple[str, str, str]]:
    """The winner on seeds that chose nothing, with an interval, and what it is above each baseline."""
    made = results.confirmation
    if not made:
        return []
    facts = []
    for one in made["configurations"]:
        scores = list(one["fresh"]["scores"].values()) if "fresh" in one else []
        if not scores:
            continue
        name, remark = f"Baseline {one['label']}", str(one.get("remark") or "")
        if one["role"] == "winner":
            name, remark = "Confirmed mean", _plural(len(scores), "fresh seed")
            if len(scores) > 1:
                around = mean_interval(scores)
                remark = f"95% interval {around.low:.{digits}f} to {around.high:.{digits}f}, {remark}"
        facts.append((name, f"{one['fresh']['mean']:.{digits}f}".replace("-", "−"), remark))
    return facts


def _subtitle(results: Results) -> str:
    method = results.settings.get("method")
    names = method.get("choice", []) if isinstance(method, dict) else [method]
    parts = [results.summary.task, *names]
    return " · ".join(str(part) for part in parts if part)


def _select_on(summary: SearchSummary) -> str:
    return str(summary.select_on or "dev") if summary.held_out is None else f"held out: {summary.held_out:.0%}"


def _score_digits(results: Results) -> int:
    """Three decimals, four where the split is large enough to tell them apart."""
    examples = results.summary.selection_examples
    return 4 if isinstance(examples, int) and examples > 5000 else 3


def _configuration(row: "pd.Series[Any]", names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, value(row[name])) for name in names if not _missing(row[name])]


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value))


def _plural(count: Any, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _exact(value: Any) -> str:
    """A hyperparameter as it is typed again: every digit, whole numbers without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def value(value: Any) -> str:
    """A hyperparameter for reading: four significant digits."""
    if _missing(value):
        return _NOTHING
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plain(value: Any) -> str:
    """A cell's value to sort by; empty sorts last."""
    return "" if _missing(value) else str(value)


def _duration(seconds: Any) -> str:
    return duration(seconds) if isinstance(seconds, int | float) and math.isfinite(seconds) else _NOTHING
