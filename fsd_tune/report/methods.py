"""The methods of one search side by side: the share of the budget that each got, and the best that it found."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from fsd_tune.report.results import Results
from fsd_tune.settings.comparing import EQUAL
from fsd_tune.storage.layout import TrialState


@dataclass(frozen=True)
class MethodRow:
    """The budget that a search spent on a method, and the best that it found.

    Attributes:
        method: the name of the method.
        best: the score of its best finished trial; None if none has finished.
        best_trial: the number of that trial.
        trials: the number of its trials in any state.
        finished: the number of those that have finished.
        reports: the number of their reports.
        share_of_reports: of the reports of all methods, in 0..1; 0 before any report.
        seconds: the time of its trials in training and evaluations.
        share_of_time: of the time of all methods, in 0..1; 0 before any report.
    """

    method: str
    best: float | None
    best_trial: int | None
    trials: int
    finished: int
    reports: int
    share_of_reports: float
    seconds: float
    share_of_time: float


def method_rows(results: Results) -> list[MethodRow]:
    """Return a row for each method of a search, the best first; empty if the search has one method.

    Args:
        results: the results of the search.
    """
    names = _methods(results)
    if len(names) < 2:
        return []
    trials = results.trials
    seconds = trials["train_seconds"] + trials["evaluation_seconds"]
    rows = []
    for name in names:
        own = trials["method"] == name if "method" in trials else pd.Series(False, index=trials.index)
        # The trials are in the order of the leaderboard.
        finished = trials[own & (trials["state"] == TrialState.FINISHED) & trials["score"].notna()]
        rows.append(
            MethodRow(
                method=name,
                best=float(finished.iloc[0]["score"]) if len(finished) else None,
                best_trial=int(finished.iloc[0]["number"]) if len(finished) else None,
                trials=int(own.sum()),
                finished=len(finished),
                reports=int(trials.loc[own, "reports"].sum()),
                share_of_reports=_share(trials.loc[own, "reports"].sum(), trials["reports"].sum()),
                seconds=float(seconds[own].sum()),
                share_of_time=_share(seconds[own].sum(), seconds.sum()),
            )
        )
    sign = 1.0 if results.lower_is_better else -1.0
    return sorted(rows, key=lambda row: (math.inf if row.best is None else sign * row.best, row.method))


def compares_equally(results: Results) -> bool:
    """Return whether the search gave every method the same number of reports.

    Args:
        results: the results of the search.
    """
    search = results.settings.get("search")
    return isinstance(search, dict) and search.get("compare_methods") == EQUAL


def remark(results: Results) -> str:
    """Return in a sentence or two how the methods of a search can be compared.

    Args:
        results: the results of a search of several methods.
    """
    if compares_equally(results):
        return (
            "Each method was searched by itself, with about the same number of reports. The best scores were chosen on "
            "the examples that score them, so a small difference may be noise."
        )
    return (
        "The sampler chose the methods, so they had different chances: do not read their best scores as a comparison. "
        "`search.compare_methods: equal` gives each method the same number of reports."
    )


def method_lines(results: Results) -> list[str]:
    """Return a line for each method, for a terminal; empty if the search has one method.

    Args:
        results: the results of the search.
    """
    rows = method_rows(results)
    width = max((len(row.method) for row in rows), default=0)
    return [f"{row.method:{width}s}  {_best(results, row)}; {_spent(row)}" for row in rows]


def method_documents(results: Results) -> list[dict[str, Any]]:
    """Return the rows as plain values for `--json`; empty if the search has one method.

    Args:
        results: the results of the search.
    """
    return [asdict(row) for row in method_rows(results)]


def _best(results: Results, row: MethodRow) -> str:
    best = f"none of {row.trials} trials finished"
    if row.best is not None:
        best = f"{results.metric} {row.best:.4f}, best of {row.finished} finished of {row.trials} trials"
    return best


def _spent(row: MethodRow) -> str:
    return f"{row.reports} reports ({row.share_of_reports:.0%}), {row.share_of_time:.0%} of the time"


def _methods(results: Results) -> list[str]:
    """Return the methods that the settings name, and any others that trials have."""
    method = results.settings.get("method")
    choice = method.get("choice") if isinstance(method, dict) else None
    named = [str(name) for name in choice] if isinstance(choice, list) else []
    tried = map(str, results.trials["method"].dropna()) if "method" in results.trials else ()
    return list(dict.fromkeys([*named, *tried]))


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
