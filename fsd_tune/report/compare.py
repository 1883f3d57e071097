"""Two or more searches side by side: whether they may be compared, and what is compared."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fsd_tune.errors import InputError
from fsd_tune.report.results import Results, load
from fsd_tune.tracking.download import PREFIX, download

_SAME = {"task": "task", "metric": "metric", "select_on": "selection split", "judge_by": "score"}


@dataclass(frozen=True)
class Comparison:
    """Searches on one task.

    Attributes:
        names: of the searches, each different.
        results: of each.
        remarks: why they compare only in part, where that was overruled.
    """

    names: tuple[str, ...]
    results: tuple[Results, ...]
    remarks: tuple[str, ...]

    @property
    def metric(self) -> str:
        """The metric of all of them."""
        return self.results[0].metric

    def table(self) -> pd.DataFrame:
        """A row a search: best, median and confirmed score, trials, hours, steps, and the best configuration."""
        rows = []
        for name, results in zip(self.names, self.results, strict=True):
            best, finished = results.best, results.trials[results.trials["state"] == "finished"]
            confirmed = (results.confirmation or {}).get("winner", {}).get("fresh", {})
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

    def differing(self) -> list[tuple[str, list[str]]]:
        """What each search after the first was given differently: (its name, lines)."""
        first = self.results[0].summary.identity
        found = []
        for name, results in zip(self.names[1:], self.results[1:], strict=True):
            identity = results.summary.identity
            if "settings" in first and "settings" in identity:
                found.append((name, differences(first, identity)))
        return found


def compare(folders: Sequence[Path | str], anyway: bool = False) -> Comparison:
    """Read searches that are to be compared.

    Args:
        folders: two or more searches' folders, or `wandb:entity/project/group`.
        anyway: compare also what differs in task, metric or selection split, with a remark.

    Raises:
        InputError: a folder holds no search, or they cannot be compared.
    """
    problems, loaded = [], []
    if len(folders) < 2:
        problems.append("compare: needs at least two searches' folders.")
    with tempfile.TemporaryDirectory(prefix="fsd-tune-") as temporary:
        for place, folder in enumerate(folders):
            try:
                if str(folder).startswith(PREFIX):
                    folder = download(str(folder), Path(temporary) / str(place))
                loaded.append(load(folder, described=True))
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(dict.fromkeys(problems))
    first = loaded[0]
    remarks = []
    for results in loaded[1:]:
        for key, what in _SAME.items():
            here, there = getattr(results.summary, key), getattr(first.summary, key)
            if here != there:
                remarks.append(f"{results.folder}: {what} {here}, but {first.folder} has {there}.")
        here, there = (each.summary.identity.get("dev split") for each in (results, first))
        if here and there and here != there and results.summary.task == first.summary.task:
            remarks.append(f"{results.folder}: other examples to select on than {first.folder}.")
    if remarks and not anyway:
        raise InputError(remarks, "Their scores do not compare; --anyway compares them all the same.")
    return Comparison(tuple(_names(loaded)), tuple(loaded), tuple(remarks))


def lines(compared: Comparison) -> list[str]:
    """The table for a terminal."""
    shown = compared.table()[["search", "best", "median", "confirmed", "trials", "finished", "hours", "steps"]]
    text = shown.to_string(index=False, na_rep="-", float_format=lambda value: f"{value:.4f}")
    return [*(f"note: {remark}" for remark in compared.remarks), *text.splitlines()]


def document(compared: Comparison) -> dict[str, Any]:
    """The same for machines."""
    rows = compared.table().astype(object)
    return {
        "metric": compared.metric,
        "searches": rows.where(pd.notna(rows), None).to_dict("records"),
        "remarks": list(compared.remarks),
        "differing": dict(compared.differing()),
    }


def _names(loaded: Sequence[Results]) -> list[str]:
    """Each search's own name; with its folder where two have the same."""
    names = [results.summary.name or results.folder.name for results in loaded]
    return [
        name if names.count(name) == 1 else f"{name} ({results.folder})"
        for name, results in zip(names, loaded, strict=True)
    ]


def _or_nan(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def differences(held: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is different now: settings and a task of one's own by key, other inputs by name."""
    found = _by_key(held["settings"], now["settings"])
    if isinstance(held.get("task"), dict) and isinstance(now["task"], dict):
        found += [f"task.{difference}" for difference in _by_key(held["task"], now["task"])]
        now = {name: value for name, value in now.items() if name != "task"}
    return found + [f"another {name}" for name in now if name != "settings" and held.get(name) != now[name]]


def _by_key(held: dict[str, Any], now: dict[str, Any]) -> list[str]:
    there, here = _flat(held), _flat(now)
    keys = [key for key in here | there if here.get(key) != there.get(key)]
    return [f"{key} {there.get(key)} there, {here.get(key)} now" for key in keys]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: leaf for name, part in value.items() for key, leaf in _flat(part, f"{prefix}.{name}".strip(".")).items()
    }
