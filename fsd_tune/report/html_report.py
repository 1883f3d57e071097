"""The readable report of a search: `leaderboard.csv` and `report.html`, one page that needs no network.

Both need only the search's folder, during the search or after it. The template escapes everything that
comes from files, and the page forbids every request (Content-Security-Policy).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fsd_tune.progress import duration
from fsd_tune.report import methods, origins, page
from fsd_tune.report.again import distill_command
from fsd_tune.report.charts import charts
from fsd_tune.report.confirmation import figure, interval
from fsd_tune.report.cost import cost_of
from fsd_tune.report.intervals import mean_interval
from fsd_tune.report.pictures import analysis_pictures
from fsd_tune.report.results import STATES, Results, load
from fsd_tune.storage import artifacts, layout
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.search_summary import SearchSummary

__all__ = ["Fact", "Results", "distill_command", "leaderboard", "load", "write_report"]

_NOTHING = "–"


@dataclass(frozen=True)
class Fact:
    """One figure of the page's headline.

    Attributes:
        what: the label of the figure.
        figure: the formatted figure.
        remark: a few words below it; may be empty.
    """

    what: str
    figure: str
    remark: str = ""


def leaderboard(results: Results) -> pd.DataFrame:
    """Return one row per trial, best first: its rank, then the columns of `Results.trials`.

    With several methods `method_rank`, the rank among the trials of the same method, comes after `rank`. Only finished
    trials have a rank; it is NA for the others.

    Args:
        results: the results of a search.
    """
    table = results.trials.rename(columns={"number": "trial"})
    finished = (table["state"] == TrialState.FINISHED) & table["score"].notna()
    table.insert(0, "rank", finished.cumsum().where(finished).astype("Int64"))
    if methods.method_rows(results) and "method" in table:
        own = finished.groupby(table["method"]).cumsum()
        table.insert(1, "method_rank", own.where(finished).astype("Int64"))
    return table


def write_report(source: Results | Path | str) -> Path:
    """Write `leaderboard.csv` and `report.html` into the search's folder, each replaced in one step.

    Args:
        source: a search's folder, or what `load` read from it.

    Returns:
        The page's path.

    Raises:
        InputError: the folder holds no search.
    """
    results = source if isinstance(source, Results) else load(source)
    path = results.folder / layout.REPORT
    artifacts.write_text(results.folder / layout.LEADERBOARD, leaderboard(results).to_csv(index=False))
    artifacts.write_text(path, _page(results))
    return path


def _page(results: Results) -> str:
    digits = _score_digits(results)
    best, trials = results.best, results.trials
    varied = [name for name in results.hyperparameters if trials[name].nunique(dropna=False) > 1]
    same = [name for name in results.hyperparameters if name not in varied]
    return page.render(
        "report_template.html",
        charts(results),
        {"seconds": _duration, "value": value, "missing": _missing, "plain": plain, "percent": "{:.0%}".format},
        results=results,
        summary=results.summary,
        name=results.summary.name or results.folder.name,
        folder=results.folder.resolve().name,
        subtitle=_subtitle(results),
        metric=results.metric.replace("_", " "),
        score=lambda number: _NOTHING if _missing(number) else _signed(f"{number:.{digits}f}"),
        best=best,
        best_configuration=[] if best is None else _configuration(best, results.hyperparameters),
        command=None if best is None else distill_command(results, best),
        facts=_facts(results, digits),
        rows=leaderboard(results).to_dict("records"),
        methods=methods.method_rows(results),
        methods_remark=methods.remark(results),
        varied=varied,
        warm=origins.remark(results),
        constant=_configuration(trials.iloc[0], same) if len(trials) else [],
        failures=trials[trials["state"] == TrialState.FAILED].to_dict("records"),
        memory=results.summary.memory,
        memory_name=shown_name(results.summary.memory.path),
        confirmation=results.confirmation,
        pictures=analysis_pictures(results),
        figure=figure,
        interval=interval,
    )


def _facts(results: Results, digits: int) -> list[Fact]:
    """Return the figures of the headline, in the page's order."""
    return [
        *_teacher(results, digits),
        *_so_far(results, digits),
        *_confirmed(results.confirmation, digits),
        *_on_dev(results.summary, digits),
        *_trials(results),
        *_teacher_passes(results.summary),
        *_inputs(results.summary),
    ]


def _teacher(results: Results, digits: int) -> list[Fact]:
    teacher, best = results.summary.teacher, results.best
    if not teacher:
        return []
    score = teacher.score
    facts = [Fact("Teacher", _NOTHING if _missing(score) else _signed(f"{score:.{digits}f}"), shown_name(teacher.name))]
    if best is not None and score is not None and math.isfinite(score):
        difference = float(best["score"]) - score
        side = "student ahead" if difference > 0 else "student behind" if difference < 0 else "equal"
        facts.append(Fact("Student minus teacher", _signed(f"{difference:+.{digits}f}"), side))
    return facts


def _so_far(results: Results, digits: int) -> list[Fact]:
    """Return the best trial so far if it has not been trained to its end."""
    leader = results.recommended
    if leader is None or leader["state"] == TrialState.FINISHED:
        return []
    planned = f" of {results.summary.reports}" if results.summary.reports else ""
    remark = f"trial {leader['number']}, {leader['state']} after {leader['reports']}{planned} reports"
    return [Fact("Best of all trials so far", _signed(f"{leader['last']:.{digits}f}"), remark)]


def _confirmed(confirmation: Mapping[str, Any], digits: int) -> list[Fact]:
    """Return the winner's mean on the fresh seeds with its interval, and the baselines' means."""
    facts = []
    for configuration in confirmation.get("configurations", []):
        scores = list(configuration["fresh"]["scores"].values()) if "fresh" in configuration else []
        if not scores:
            continue
        name, remark = f"Baseline {configuration['label']}", str(configuration.get("remark") or "")
        if configuration["role"] == "winner":
            name, remark = "Confirmed mean", _plural(len(scores), "fresh seed")
            if len(scores) > 1:
                score_interval = mean_interval(scores)
                remark = f"95% interval {score_interval.low:.{digits}f} to {score_interval.high:.{digits}f}, {remark}"
        facts.append(Fact(name, _signed(f"{configuration['fresh']['mean']:.{digits}f}"), remark))
    return facts


def _on_dev(summary: SearchSummary, digits: int) -> list[Fact]:
    if _missing(summary.dev.score):
        return []
    return [Fact("Best student on dev", _signed(f"{summary.dev.score:.{digits}f}"), "dev selected no trial")]


def _trials(results: Results) -> list[Fact]:
    """Return the number of trials, the reason why the search ended, and the steps that ASHA saved."""
    summary, saved = results.summary, results.saved
    counts = ", ".join(f"{saved[state]:,.0f} {state}" for state in STATES if saved[state])
    requested = f" of {summary.trials:,}" if summary.trials is not None else ""
    facts = [Fact("Trials", f"{len(results.trials):,}{requested}", counts)]
    if summary.ended_by.text:
        facts.append(Fact("Ended by", str(summary.ended_by.budget).replace("_", " "), summary.ended_by.text))
    if cost := cost_of(results):
        price, _, rest = cost.partition("; ")
        facts.append(Fact("Cost", price.split(" at ")[0], "; ".join(filter(None, (price, rest)))))
    if saved["steps_if_all_ran"]:
        remark = f"{saved['steps_run']:,.0f} run instead of {saved['steps_if_all_ran']:,.0f}"
        facts.append(Fact("Steps saved by ASHA", f"{saved['share']:.0%}", remark))
    return facts


def _teacher_passes(summary: SearchSummary) -> list[Fact]:
    what, memory = "Teacher passes paid", summary.memory
    if memory.live:
        return [Fact(what, "live", "the teacher ran in every step, because its outputs exceed the disk limit")]
    if memory.passes is None:
        return []
    built = f"memory built in {_duration(memory.build_seconds)}" if memory.build_seconds else ""
    return [Fact(what, f"{memory.passes:,}", "memory reused" if memory.passes == 0 else built)]


def _inputs(summary: SearchSummary) -> list[Fact]:
    """Return the wall time, the number of examples and the student."""
    workers = _plural(summary.workers, "worker") if summary.workers else ""
    facts = [Fact("Wall time", _duration(summary.wall_seconds), workers)]
    train, selection = summary.train_examples, summary.selection_examples
    remark = "" if selection is None else f"{selection:,} to select on ({_select_on(summary)})"
    facts.append(Fact("Training examples", _NOTHING if train is None else f"{train:,}", remark))
    layers = summary.student.layers
    if isinstance(layers, list):
        facts.append(Fact("Students", f"{', '.join(map(str, sorted(layers)))} layers", summary.precision or ""))
    elif layers:
        facts.append(Fact("Student", _plural(layers, "layer"), summary.precision or ""))
    return facts


def _subtitle(results: Results) -> str:
    method = results.settings.get("method")
    names = method.get("choice", []) if isinstance(method, dict) else [method]
    return " · ".join(str(part) for part in (results.summary.task, *names) if part)


def _select_on(summary: SearchSummary) -> str:
    return str(summary.select_on or "dev") if summary.held_out is None else f"held out: {summary.held_out:.0%}"


def _score_digits(results: Results) -> int:
    """Return the decimals of a score: 4 if the split is large enough to tell such scores apart, else 3."""
    examples = results.summary.selection_examples
    return 4 if examples is not None and examples > 5000 else 3


def _configuration(row: "pd.Series[Any]", names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, value(row[name])) for name in names if not _missing(row[name])]


def shown_name(path: str | None) -> str:
    """Return the name of a model or folder for a page: the last part of an absolute path, anything else unchanged.

    Args:
        path: a path or hub id; None if it is not known.
    """
    return "" if not path else Path(path).name if Path(path).is_absolute() else path


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value))


def _signed(number: str) -> str:
    """Return a formatted number with a typographic minus."""
    return number.replace("-", "−")


def _plural(count: Any, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def value(value: Any) -> str:
    """Return a hyperparameter with four significant digits.

    Args:
        value: the hyperparameter of one trial.
    """
    if _missing(value):
        return _NOTHING
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plain(value: Any) -> str:
    """Return the text that a cell is sorted by. Empty cells sort last.

    Args:
        value: the content of the cell.
    """
    return "" if _missing(value) else str(value)


def _duration(seconds: Any) -> str:
    return duration(seconds) if isinstance(seconds, int | float) and math.isfinite(seconds) else _NOTHING
