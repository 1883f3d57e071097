"""Compare searches: check that their scores can be compared, and tabulate what each found and spent."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.report.front_table import front_rows
from fsd_tune.report.members import front_of
from fsd_tune.report.methods import method_rows
from fsd_tune.report.results import Results, load
from fsd_tune.settings import loader
from fsd_tune.settings.retired import as_stored
from fsd_tune.storage.layout import TrialState
from fsd_tune.tracking.download import PREFIX, download

# Fields of the summary that must be equal, and their names in remarks.
_SAME = {"task": "task", "metric": "metric", "select_on": "selection split", "judge_by": "score"}


@dataclass(frozen=True)
class Comparison:
    """Searches on one task.

    Attributes:
        names: the names of the searches, each different.
        results: the results of each search, in the same order.
        remarks: the reasons why their scores cannot be compared; empty unless the user compares them anyway.
    """

    names: tuple[str, ...]
    results: tuple[Results, ...]
    remarks: tuple[str, ...]

    @property
    def metric(self) -> str:
        """The metric of all searches."""
        return self.results[0].metric

    def table(self) -> pd.DataFrame:
        """Return a row per search: best, median and confirmed score, trials, hours, steps, the best configuration."""
        rows = []
        for name, results in zip(self.names, self.results, strict=True):
            best, finished = results.best, results.trials[results.trials["state"] == TrialState.FINISHED]
            confirmed = results.confirmation.get("winner", {}).get("fresh", {})
            seconds = results.trials["train_seconds"].sum() + results.trials["evaluation_seconds"].sum()
            rows.append(
                {
                    "search": name,
                    "best": math.nan if best is None else float(best["score"]),
                    "median": float(finished["score"].median()) if len(finished) else math.nan,
                    "confirmed": _or_nan(confirmed.get("mean")),
                    "trials": len(results.trials),
                    "finished": len(finished),
                    "hours": seconds / 3600,
                    "steps": int(results.trials["steps"].sum()),
                    **({} if best is None else {key: best[key] for key in results.hyperparameters}),
                }
            )
        return pd.DataFrame(rows)

    def methods(self) -> pd.DataFrame:
        """Return a row per method of each search that has several: its best score, its share, its trials."""
        rows = [
            {
                "search": name,
                "method": row.method,
                "best": math.nan if row.best is None else row.best,
                "trials": row.trials,
                "finished": row.finished,
                "reports": row.reports,
                "share of reports": row.share_of_reports,
                "hours": row.seconds / 3600,
                "share of time": row.share_of_time,
            }
            for name, results in zip(self.names, self.results, strict=True)
            for row in method_rows(results)
        ]
        return pd.DataFrame(rows)

    def fronts(self) -> pd.DataFrame:
        """Return a row per member of each search's front: what it scores, loses and costs. Few searches have one."""
        rows = []
        for name, results in zip(self.names, self.results, strict=True):
            front = front_of(results)
            for row in [] if front is None else front_rows(results, front):
                rows.append(
                    {
                        "search": name,
                        "student": row.shape,
                        "trial": row.trial,
                        "score": row.score,
                        "points lost": _or_nan(row.loses),
                        "p50 ms": _or_nan(row.latency_ms),
                        "times as fast": _or_nan(row.times_as_fast),
                        "MB": row.size_mb,
                        "chosen": "yes" if row.chosen else "",
                    }
                )
        return pd.DataFrame(rows).dropna(axis="columns", how="all")

    def latency_conditions(self) -> dict[str, str]:
        """Return the machine, threads, length and batch of the latencies by the name of the search."""
        named = zip(self.names, self.results, strict=True)
        return {name: text for name, results in named if (text := results.summary.shapes.conditions)}

    def differing(self) -> list[tuple[str, list[str]]]:
        """Return how the inputs of each later search differ from the first's: its name, and a line per difference."""
        first = self.results[0].summary.identity
        lines_by_name = []
        for name, results in zip(self.names[1:], self.results[1:], strict=True):
            identity = results.summary.identity
            if "settings" in first and "settings" in identity:
                lines_by_name.append((name, differences(first, identity)))
        return lines_by_name


def compare(folders: Sequence[Path | str], anyway: bool = False) -> Comparison:
    """Read searches and check that their scores can be compared.

    Args:
        folders: two or more searches' folders, or `wandb:entity/project/group`.
        anyway: whether to compare searches that differ in task, metric or selection split, too, with a remark.

    Returns:
        The searches, with a remark for each reason why their scores cannot be compared.

    Raises:
        InputError: a folder holds no search, or they cannot be compared.

    Example:
        >>> import fsd_tune as fsd
        >>> compared = fsd.compare(["runs/rte", "runs/rte-kd"])  # doctest: +SKIP
        >>> compared.names  # doctest: +SKIP
        ('rte', 'rte-kd')
    """
    problems, searches = ProblemCollector(), []
    if len(folders) < 2:
        problems.add("compare: needs at least two searches' folders.")
    with tempfile.TemporaryDirectory(prefix="fsd-tune-") as temporary:
        for index, folder in enumerate(folders):
            with problems.collect():
                if str(folder).startswith(PREFIX):
                    folder = download(str(folder), Path(temporary) / str(index))
                searches.append(load(folder, described=True))
    problems.lines = list(dict.fromkeys(problems.lines))
    problems.raise_any()
    remarks = [remark for results in searches[1:] for remark in _remarks(results, searches[0])]
    if remarks and not anyway:
        raise InputError(remarks, "Their scores cannot be compared. Give --anyway to tabulate them nevertheless.")
    return Comparison(tuple(_names(searches)), tuple(searches), tuple(remarks))


def _remarks(results: Results, first: Results) -> list[str]:
    """Return the reasons why the scores of a search cannot be compared with those of the first."""
    summary, reference = results.summary, first.summary
    remarks = [
        f"{results.folder}: {label} {getattr(summary, field)}, but {first.folder} has {getattr(reference, field)}."
        for field, label in _SAME.items()
        if getattr(summary, field) != getattr(reference, field)
    ]
    splits = [each.identity.get("dev split") for each in (summary, reference)]
    if all(splits) and splits[0] != splits[1] and summary.task == reference.task:
        remarks.append(f"{results.folder}: other examples to select on than {first.folder}.")
    return remarks


def comparison_lines(compared: Comparison) -> list[str]:
    """Return the comparison as lines for a terminal: the remarks, the table, then the methods within the searches.

    Args:
        compared: the searches.
    """
    shown = compared.table()[["search", "best", "median", "confirmed", "trials", "finished", "hours", "steps"]]
    lines = [*(f"note: {remark}" for remark in compared.remarks), *_table_lines(shown)]
    by_method, fronts = compared.methods(), compared.fronts()
    lines += ["", "methods of one search:", *_table_lines(by_method)] if len(by_method) else []
    if len(fronts):
        lines += ["", "which student fits (a point is a hundredth of the metric):", *_table_lines(fronts)]
        lines += [f"latency of {name}: {text}" for name, text in compared.latency_conditions().items()]
    return lines


def _table_lines(table: pd.DataFrame) -> list[str]:
    return table.to_string(index=False, na_rep="-", float_format=lambda value: f"{value:.4f}").splitlines()


def comparison_document(compared: Comparison) -> dict[str, Any]:
    """Return the comparison as a JSON document for `--json`.

    Args:
        compared: the searches.

    Returns:
        `metric`; `searches`, `methods` and `fronts`, the rows of the tables with None for missing values; `latency`,
        how it was measured by the name of a search; `remarks`; and `differing`, lines by the name of a search.
    """

    def records(table: pd.DataFrame) -> list[dict[Any, Any]]:
        rows = table.astype(object)
        return rows.where(pd.notna(rows), None).to_dict("records")

    return {
        "metric": compared.metric,
        "searches": records(compared.table()),
        "methods": records(compared.methods()),
        "fronts": records(compared.fronts()),
        "latency": compared.latency_conditions(),
        "remarks": list(compared.remarks),
        "differing": dict(compared.differing()),
    }


def wandb_view_steps(sources: Sequence[str], compared: Comparison) -> list[str]:
    """Return instructions for showing the searches side by side on the page of their W&B project.

    Args:
        sources: the compared folders or `wandb:entity/project/group` addresses.
        compared: the searches read from `sources`, in the same order.

    Raises:
        InputError: the searches are in different projects, or one was not tracked.
    """
    problems = ProblemCollector()
    addresses = []
    for source, results in zip(sources, compared.results, strict=True):
        with problems.collect():
            addresses.append(_wandb_address(source, results))
    projects = sorted({address[:2] for address in addresses})
    if len(projects) > 1:
        names = ", ".join(f"{entity or '(default entity)'}/{project}" for entity, project in projects)
        problems.add(f"--wandb-view: one project is needed, but the searches are in {names}.")
    problems.raise_any()
    entity, project = projects[0]
    groups = " or ".join(group for _, _, group in addresses)
    return [
        f"To see these searches side by side in W&B, open the project {entity + '/' if entity else ''}{project}:",
        f"  1. filter the runs: Group is {groups}, and Job Type is trial; group them by Group;",
        f"  2. add a line plot of `{compared.metric}` over `report` and a scatter plot of `score` over a `hp/` column;",
        "  3. add a parallel coordinates plot of the `hp/` columns and `score`, and save the view.",
    ]


def _wandb_address(source: str, results: Results) -> tuple[str, str, str]:
    """Return entity ("" for the user's own), project and group of a tracked search."""
    if source.startswith(PREFIX):
        entity, project, group = source.removeprefix(PREFIX).split("/")
        return entity, project, group
    settings = results.settings.get("wandb")
    if not isinstance(settings, dict) or settings.get("mode", "off") == "off" or not results.summary.group:
        raise InputError(f"{source}: was not tracked with W&B; run it with `--wandb offline`, then `sync` it.")
    return settings.get("entity") or "", str(settings["project"]), results.summary.group


def _names(searches: Sequence[Results]) -> list[str]:
    """Return each search's own name, with its folder if two have the same."""
    names = [results.summary.name or results.folder.name for results in searches]
    return [
        name if names.count(name) == 1 else f"{name} ({results.folder})"
        for name, results in zip(names, searches, strict=True)
    ]


def _or_nan(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the differences between two identities of a search.

    Args:
        before: an identity from `summary.json`. It can be an earlier version's, with settings that are gone.
        now: the identity to compare with it.

    Returns:
        A line per difference. Settings and custom tasks are compared by key, other inputs by name.
    """
    lines = _by_key(*_completed(as_stored(before["settings"]), as_stored(now["settings"])))
    if isinstance(before.get("task"), dict) and isinstance(now["task"], dict):
        lines += [f"task.{difference}" for difference in _by_key(before["task"], now["task"])]
        now = {name: value for name, value in now.items() if name != "task"}
    return lines + [f"another {name}" for name in now if name != "settings" and before.get(name) != now[name]]


def _completed(*settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return settings with the keys that an earlier version did not record, which have implied or default values."""
    try:
        return [yaml.safe_load(loader.dump(loader.Settings.from_dict(values))) for values in settings]
    except InputError:
        return list(settings)


def _by_key(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    old, new = _flat(before), _flat(now)
    keys = [key for key in new | old if new.get(key) != old.get(key)]
    return [f"{key} {old.get(key)} there, {new.get(key)} now" for key in keys]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: leaf for name, part in value.items() for key, leaf in _flat(part, f"{prefix}.{name}".strip(".")).items()
    }
