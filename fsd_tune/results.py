"""A search's folder read back from disk, as it is: during a search, after it, or after a crash.

The trials' own files (`config.json`, `reports.jsonl`, `trial.json` below `results/`) are the truth; nothing here
imports ray or torch. Whatever is missing stays empty, and whatever cannot be read is named in `Results.problems`: one
damaged file never hides the other trials.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fsd_tune import place
from fsd_tune.errors import InputError
from fsd_tune.methods import HYPERPARAMETERS
from fsd_tune.uri import is_uri

JUDGES = ("mean_of_last_3", "last")

_TRIAL_COLUMNS = {
    "number": "int64",
    "state": "str",
    "score": "float64",
    "last": "float64",
    "best": "float64",
    "reports": "int64",
    "steps": "int64",
    "steps_total": "float64",
    "train_seconds": "float64",
    "evaluation_seconds": "float64",
    "reason": "str",
    "folder": "str",
}

_CONFIRMATION = ("metric", "winner", "configurations", "differences", "optimism", "selection_seeds", "fresh_seeds")


def judge(values: Sequence[float], judge_by: str) -> float:
    """One score from a trial's evaluations, oldest first.

    Args:
        values: the selection metric at each report.
        judge_by: `mean_of_last_3` (of fewer where there are fewer) or `last`.

    Returns:
        The score; NaN when there is no value yet or a judged value is NaN.
    """
    assert judge_by in JUDGES, judge_by
    judged = values[-1:] if judge_by == "last" else values[-3:]
    return math.fsum(judged) / len(judged) if judged else math.nan


@dataclass(frozen=True, eq=False)
class Results:
    """What a search's folder holds.

    Attributes:
        folder: the search's folder, as it was given.
        trials: one row a trial, best first: `number` (Optuna's), `state` (finished, stopped, failed, running or
            interrupted), `score` (judged), `last` and `best` (over its reports), `reports` (how many), `steps`
            (optimiser steps taken), `steps_total` (of the whole trial; NaN before its first report), `train_seconds`,
            `evaluation_seconds`, `reason` (why it stopped or failed), `folder` (below `results/`), then `method` and
            one column per hyperparameter, NaN or None where the trial does not use it.
        reports: one row an evaluation, by trial and report: `trial` (its number), `report` (from 1), then every
            scalar of the trial's `reports.jsonl`.
        settings: the resolved settings; `settings_text` is their YAML.
        summary: `summary.json`; any key may be missing while the search is young.
        versions: package to version.
        command: the command line that started the search.
        confirmation: `confirm/summary.json`; empty while the winner is not confirmed.
        problems: files that could not be read, one line each.
    """

    folder: Path
    trials: pd.DataFrame
    reports: pd.DataFrame
    settings: dict[str, Any]
    settings_text: str
    summary: dict[str, Any]
    versions: dict[str, Any]
    command: str
    confirmation: dict[str, Any]
    problems: tuple[str, ...]

    @property
    def metric(self) -> str:
        """The metric that selects, as its column in `reports` is called."""
        return str(self.summary.get("metric") or "score")

    @property
    def lower_is_better(self) -> bool:
        """Whether the search minimises its metric."""
        return self.summary.get("mode") == "min"

    @property
    def hyperparameters(self) -> list[str]:
        """The columns of `trials` that hold the configuration, `method` first."""
        return [name for name in self.trials.columns if name not in _TRIAL_COLUMNS]

    @property
    def best(self) -> "pd.Series[Any] | None":
        """The finished trial with the best score (the lowest number among equals); None when none has finished."""
        if self.trials.empty:
            return None
        first = self.trials.iloc[0]
        return first if first["state"] == "finished" and not math.isnan(first["score"]) else None

    @property
    def standard_error(self) -> float | None:
        """The best score's binomial standard error, sqrt(p (1 - p) / examples); None where it has no such meaning."""
        examples = self.summary.get("selection_examples")
        if self.best is None or self.metric != "accuracy" or not examples:
            return None
        score = float(self.best["score"])
        return math.sqrt(max(score * (1 - score), 0.0) / examples)

    @property
    def saved(self) -> dict[str, float]:
        """What stopping trials early saved.

        Returns:
            Counts of trials by state (`finished`, `stopped`, `failed`, `running`, `interrupted`); `steps_run` and
            `steps_if_all_ran`, over the trials that have reported and not failed; `steps_saved`, what the stopped ones
            left undone; `share`, steps_saved / steps_if_all_ran in 0..1 (0 before any report).
        """
        states = self.trials["state"]
        counts = {
            name: float((states == name).sum()) for name in ("finished", "stopped", "failed", "running", "interrupted")
        }
        counted = self.trials[(states != "failed") & self.trials["steps_total"].notna()]
        stopped = counted[counted["state"] == "stopped"]
        whole = float(counted["steps_total"].sum())
        undone = float((stopped["steps_total"] - stopped["steps"]).sum())
        return counts | {
            "steps_run": float(counted["steps"].sum()),
            "steps_if_all_ran": whole,
            "steps_saved": undone,
            "share": undone / whole if whole else 0.0,
        }


def load(folder: Path | str) -> Results:
    """Read a search's folder, a path or a URI; of the latter a copy is read, which is `Results.folder`.

    Raises:
        InputError: the folder does not exist or holds no search.
    """
    if is_uri(folder):
        with place.reading(folder) as where:
            return load(where.folder)
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the `--output` folder of a search")
    if not any((folder / name).is_file() for name in ("summary.json", "settings.yaml")):
        raise InputError(
            f"{folder}: holds no search: neither `summary.json` nor `settings.yaml`; "
            "give the `--output` folder of a search"
        )
    reader = _Reader(folder)
    summary = reader.mapping(folder / "summary.json")
    judge_by = summary.get("judge_by") or "mean_of_last_3"
    if judge_by not in JUDGES:
        reader.problems.append(f"summary.json: judge_by: found `{judge_by}`, accepted: {', '.join(JUDGES)}")
        judge_by = "mean_of_last_3"
    settings_text = reader.text(folder / "settings.yaml")
    settings = reader.yaml_mapping(folder / "settings.yaml", settings_text)

    trials, reports = [], []
    for trial in _newest_of_each(list(_trials(reader)), reader):
        trials.append(_row(trial, summary, judge_by))
        reports += [{"trial": trial.number, **report} for report in trial.reports]
    return Results(
        folder=folder,
        trials=_trial_frame(trials, settings, lower_is_better=summary.get("mode") == "min"),
        reports=pd.DataFrame(reports, columns=None if reports else ["trial", "report"]),
        settings=settings,
        settings_text=settings_text,
        summary=summary,
        versions=reader.mapping(folder / "versions.json"),
        command=reader.text(folder / "command.txt").strip(),
        confirmation=reader.confirmation(folder / "confirm" / "summary.json"),
        problems=tuple(reader.problems),
    )


@dataclass(frozen=True)
class _Trial:
    """One trial's files: its reports in order, each index once."""

    folder: Path
    number: int
    config: dict[str, Any]
    ending: dict[str, Any]
    reports: list[dict[str, Any]]


class _Reader:
    """Reads files of one search; what cannot be read becomes a line of `problems` and an empty value."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []

    def problem(self, path: Path, what: str) -> None:
        self.problems.append(f"{path.relative_to(self.folder)}: {what}")

    def text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            self.problem(path, f"cannot be read: {error.strerror}")
            return ""

    def mapping(self, path: Path) -> dict[str, Any]:
        text = self.text(path)
        if not text:
            return {}
        try:
            value = json.loads(text)
        except ValueError as error:
            self.problem(path, f"is not JSON: {error}")
            return {}
        if not isinstance(value, dict):
            self.problem(path, f"holds a {type(value).__name__}, not a mapping")
            return {}
        return value

    def confirmation(self, path: Path) -> dict[str, Any]:
        value = self.mapping(path)
        missing = [key for key in _CONFIRMATION if key not in value]
        if value and missing:
            self.problem(path, f"lacks {', '.join(missing)}")
        return {} if missing else value

    def yaml_mapping(self, path: Path, text: str) -> dict[str, Any]:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            self.problem(path, f"is not YAML: {str(error).splitlines()[0]}")
            return {}
        return value if isinstance(value, dict) else {}

    def reports(self, path: Path) -> list[dict[str, Any]]:
        """The evaluations in a file of one JSON object a line, by index.

        A resumed trial repeats some: the later line holds.
        """
        reports: dict[int, dict[str, Any]] = {}
        lines = self.text(path).splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                if number < len(lines):  # a killed writer, or one at work now, leaves the last line half written
                    self.problem(path, f"line {number} is not JSON")
                continue
            if not isinstance(row, dict) or not isinstance(row.get("report"), int):
                self.problem(path, f"line {number} is no report: it has no whole number `report`")
                continue
            reports[row["report"]] = {key: value for key, value in row.items() if not isinstance(value, dict | list)}
        return [reports[index] for index in sorted(reports)]


def _trials(reader: _Reader) -> Iterator[_Trial]:
    for params in sorted((reader.folder / "results").glob("*/config.json")):
        content = reader.mapping(params)
        number, config = content.get("trial"), content.get("config")
        if not isinstance(number, int) or not isinstance(config, dict):
            if content:
                reader.problem(params, "names no `trial` number or no `config`")
            continue
        yield _Trial(
            params.parent,
            number,
            config,
            ending=reader.mapping(params.parent / "trial.json"),
            reports=reader.reports(params.parent / "reports.jsonl"),
        )


def _newest_of_each(trials: list[_Trial], reader: _Reader) -> Iterator[_Trial]:
    """One folder for each number: Ray starts an errored trial again in a new folder."""
    by_number: dict[int, list[_Trial]] = {}
    for trial in trials:
        by_number.setdefault(trial.number, []).append(trial)
    for number, same in sorted(by_number.items()):
        newest = max(same, key=lambda trial: (_number(trial.reports[-1:], "timestamp", 0.0), trial.folder.name))
        if len(same) > 1:
            reader.problem(newest.folder, f"trial {number} has {len(same)} folders; this, the newest, is shown")
        yield newest


def _number(reports: list[dict[str, Any]], key: str, absent: float) -> float:
    """`key` of the last of `reports` where that is a finite number, else `absent`."""
    value = reports[-1].get(key) if reports else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else absent


def _row(trial: _Trial, summary: dict[str, Any], judge_by: str) -> dict[str, Any]:
    metric = summary.get("metric")
    values = [_number([report], str(metric), math.nan) for report in trial.reports]
    known = [value for value in values if not math.isnan(value)]
    state = trial.ending.get("state")
    if state is None:
        state = "running" if summary.get("state") == "running" else "interrupted"
    return {
        **trial.config,
        "number": trial.number,
        "state": str(state),
        "score": judge(values, judge_by),
        "last": values[-1] if values else math.nan,
        "best": (min if summary.get("mode") == "min" else max)(known, default=math.nan),
        "reports": len(values),
        "steps": int(_number(trial.reports, "step", 0)),
        "steps_total": _number(trial.reports, "steps_total", math.nan),
        "train_seconds": _number(trial.reports, "train_seconds", 0.0),
        "evaluation_seconds": _number(trial.reports, "evaluation_seconds", 0.0),
        "reason": str(trial.ending.get("reason") or ""),
        "folder": trial.folder.name,
    }


def _trial_frame(rows: list[dict[str, Any]], settings: dict[str, Any], lower_is_better: bool) -> pd.DataFrame:
    """The rows as a table: finished by score, stopped by reports and score, the others; equals by number."""
    sign = 1.0 if lower_is_better else -1.0

    def rank(row: dict[str, Any]) -> tuple[float, ...]:
        score = math.inf if math.isnan(row["score"]) else sign * row["score"]
        if row["state"] == "finished":
            return 0, score, 0, row["number"]
        if row["state"] == "stopped":
            return 1, -row["reports"], score, row["number"]
        return 2, 0, 0, row["number"]

    space = settings.get("space")
    named = ["method", *HYPERPARAMETERS, *(space if isinstance(space, dict) else ())]
    used = [name for name in dict.fromkeys(named) if name not in _TRIAL_COLUMNS and any(name in row for row in rows)]
    rows = sorted(rows, key=rank)
    frame = pd.DataFrame(rows, columns=[*_TRIAL_COLUMNS, *used])
    return frame.astype(_TRIAL_COLUMNS)
