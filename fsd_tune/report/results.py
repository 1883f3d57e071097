"""The results of a search, read from its folder at any time: during the search, after it, or after a crash.

They come from the trials' own files (`config.json`, `reports.jsonl` and `trial.json` below `results/`), without
importing ray or torch. A missing file leaves its part empty. A file that cannot be read is named in
`Results.problems` and never hides the other trials.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fsd_tune.data.metrics import standard_error
from fsd_tune.errors import InputError
from fsd_tune.report.trial_files import Reader, Trial, last_number, newest_of_each, trials_in
from fsd_tune.settings.judging import JUDGES, judge
from fsd_tune.settings.methods import HYPERPARAMETERS
from fsd_tune.settings.shapes import SHAPE
from fsd_tune.storage import layout
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.open_folder import open_for_reading
from fsd_tune.storage.search_summary import SearchSummary
from fsd_tune.storage.uri import is_uri

# The order in which pages and tables count trials.
STATES = (
    TrialState.FINISHED, TrialState.STOPPED, TrialState.FAILED, TrialState.RUNNING, TrialState.INTERRUPTED,
)  # fmt: skip
# Scores of a search whose summary does not say how they are made.
_EARLIER_JUDGE = "mean_of_last_3"
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
    "origin": "str",
    "folder": "str",
}


@dataclass(frozen=True, eq=False)
class Results:
    """The results of a search.

    Example:
        >>> import fsd_tune.report
        >>> results = fsd_tune.report.load("runs/rte")  # doctest: +SKIP
        >>> results.trials[["number", "state", "score"]].head()  # doctest: +SKIP

    Attributes:
        folder: the search's folder, as the caller named it.
        trials: one row per trial, best first: `number` (Optuna's), `state` (finished, stopped, failed, running or
            interrupted), `score` (judged), `last` and `best` (over its reports), `reports` (their number), `steps`
            (optimiser steps taken), `steps_total` (of the whole trial; NaN before its first report), `train_seconds`,
            `evaluation_seconds`, `reason` (why it stopped or failed), `origin` (the trial of an earlier search whose
            configuration it has; else empty), `folder` (below `results/`), then `method`, a column for each of
            `layers`, `start` and `hidden_size` (None for the teacher's) that is searched, and one column per
            hyperparameter, NaN or None if the trial does not use it.
        reports: one row per evaluation, by trial and report: `trial` (its number), `report` (from 1), then every
            scalar of the trial's `reports.jsonl`.
        settings: the resolved settings.
        settings_text: the settings as YAML.
        summary: the content of `summary.json`; early in a search any field can be None, and any part empty.
        versions: the version of each package.
        command: the command line that started the search.
        confirmation: the content of `confirm/summary.json`; empty while the winner is not confirmed.
        analysis: the content of `analysis/analysis.json`; empty if no student was analysed.
        problems: files that could not be read, one line each.
    """

    folder: Path
    trials: pd.DataFrame
    reports: pd.DataFrame
    settings: dict[str, Any]
    settings_text: str
    summary: SearchSummary
    versions: dict[str, Any]
    command: str
    confirmation: dict[str, Any]
    analysis: dict[str, Any]
    problems: tuple[str, ...]

    @property
    def metric(self) -> str:
        """The metric that trials are selected by; the name of its column in `reports`."""
        return self.summary.metric or "score"

    @property
    def lower_is_better(self) -> bool:
        """True if the search minimises its metric."""
        return self.summary.mode == "min"

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
        return first if first["state"] == TrialState.FINISHED and not math.isnan(first["score"]) else None

    @property
    def recommended(self) -> "pd.Series[Any] | None":
        """The trial with the best last value of all that have not failed (the lowest number among equals).

        It need not have finished. While few trials have finished, it is a better choice than `best`. None before the
        first report.
        """
        trials = self.trials[(self.trials["state"] != TrialState.FAILED) & self.trials["last"].notna()]
        if trials.empty:
            return None
        order = trials.sort_values(["last", "number"], ascending=[self.lower_is_better, True], kind="stable")
        return order.iloc[0]

    @property
    def standard_error(self) -> float | None:
        """The best score's standard error over the examples that select; None without a finished trial."""
        examples = self.summary.selection_examples
        if self.best is None or not examples:
            return None
        return standard_error(self.metric, float(self.best["score"]), examples)

    @property
    def saved(self) -> dict[str, float]:
        """The steps that stopping trials early saved.

        The keys are the states of a trial with the number of trials in each; `steps_run` and `steps_if_all_ran`, over
        the trials that have reported and not failed; `steps_saved`, the steps that stopped trials left undone; and
        `share`, steps_saved / steps_if_all_ran in 0..1 (0 before any report).
        """
        states = self.trials["state"]
        counts = {state.value: float((states == state).sum()) for state in STATES}
        counted = self.trials[(states != TrialState.FAILED) & self.trials["steps_total"].notna()]
        stopped = counted[counted["state"] == TrialState.STOPPED]
        whole = float(counted["steps_total"].sum())
        undone = float((stopped["steps_total"] - stopped["steps"]).sum())
        return counts | {
            "steps_run": float(counted["steps"].sum()),
            "steps_if_all_ran": whole,
            "steps_saved": undone,
            "share": undone / whole if whole else 0.0,
        }

    def values(self) -> dict[int, dict[int, float]]:
        """Return the selection metric by trial and report."""
        reports = self.reports
        values: dict[int, dict[int, float]] = {}
        if self.metric in reports:
            for number, report, value in zip(reports["trial"], reports["report"], reports[self.metric], strict=True):
                values.setdefault(int(number), {})[int(report)] = float(value)
        return values

    def best_so_far(self) -> pd.DataFrame:
        """Return the best score so far over the optimiser steps spent so far.

        Example:
            >>> results = fsd_tune.report.load("runs/rte")  # doctest: +SKIP
            >>> results.best_so_far().plot(x="steps", y="best", drawstyle="steps-post")  # doctest: +SKIP

        Returns:
            One row per report of any trial, from the first finished trial on: `steps` (optimiser steps of all trials
            until then, including stopped ones) and `best` (the best score of the trials that had finished).
        """
        sign = -1.0 if self.lower_is_better else 1.0
        finished = self.trials[self.trials["state"] == TrialState.FINISHED]
        scores = dict(zip(finished["number"], finished["score"], strict=True))
        last_report = self.reports.groupby("trial")["report"].max().to_dict() if len(self.reports) else {}
        reports = self.reports
        if "timestamp" in reports:
            reports = reports.sort_values("timestamp", kind="stable")
        steps: dict[int, float] = {}
        spent, best, rows = 0.0, -math.inf, []
        for report in reports.to_dict("records"):
            trial = report["trial"]
            done = max(steps.get(trial, 0.0), float(report.get("step") or 0))
            spent += done - steps.get(trial, 0.0)
            steps[trial] = done
            if trial in scores and report["report"] == last_report[trial]:
                best = max(best, sign * scores[trial])
            if math.isfinite(best):
                rows.append({"steps": spent, "best": sign * best})
        return pd.DataFrame(rows, columns=["steps", "best"])

    def student(self) -> tuple[Any, Any]:
        """Load the best student, which the end of a search writes to `best/`.

        Example:
            >>> results = fsd_tune.report.load("runs/rte")  # doctest: +SKIP
            >>> model, tokenizer = results.student()  # doctest: +SKIP
            >>> model(**tokenizer("Is it so?", "It is so.", return_tensors="pt")).logits.shape  # doctest: +SKIP
            torch.Size([1, 2])

        Returns:
            The transformers model for sequence classification, in eval mode on the CPU, and its tokenizer.

        Raises:
            InputError: the folder has no best student yet.
        """
        best = self.folder / layout.BEST
        if not (best / "config.json").is_file():
            raise InputError(f"{self.folder}: has no best student yet; a search writes it when its first part ends.")
        from fsd_tune.models.loading import load_finished, load_tokenizer

        return load_finished(best), load_tokenizer(best)


def load(folder: Path | str, described: bool = False, judge_by: str | None = None) -> Results:
    """Read a search's folder.

    Example:
        >>> results = fsd_tune.report.load("runs/rte")  # doctest: +SKIP
        >>> results.best["score"]  # doctest: +SKIP

    Args:
        folder: a path or a URI. A folder behind a URI is copied, and `Results.folder` is the copy.
        described: whether `summary.json` and `settings.yaml` must be intact. Without them the trials can be listed,
            but not compared.
        judge_by: how to score trials, of `JUDGES`; None for what the search recorded.

    Returns:
        The results. Files that cannot be read are named in its `problems`.

    Raises:
        InputError: the folder does not exist, holds no search, or is damaged although `described` is set.
    """
    if is_uri(folder):
        with open_for_reading(folder) as copy:
            return load(copy.folder, described, judge_by)
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {problem}; give the `--output` folder of a search")
    if not any((folder / name).is_file() for name in (layout.SUMMARY, layout.SETTINGS)):
        raise InputError(
            f"{folder}: holds no search: neither `{layout.SUMMARY}` nor `{layout.SETTINGS}`; "
            "give the `--output` folder of a search"
        )
    reader = Reader(folder)
    summary = reader.summary()
    judge_by = judge_by or summary.judge_by or _EARLIER_JUDGE
    if judge_by not in JUDGES:
        reader.problems.append(f"summary.json: judge_by: found `{judge_by}`, accepted: {', '.join(JUDGES)}")
        judge_by = _EARLIER_JUDGE
    settings_text = reader.text(folder / layout.SETTINGS)
    settings = reader.yaml_mapping(folder / layout.SETTINGS, settings_text)
    if described and reader.problems:
        hint = "Bring the file back from a copy, or run the search's command again with a new --output."
        raise InputError([f"{folder}/{problem}" for problem in reader.problems], hint)

    trials, reports = [], []
    for trial in newest_of_each(list(trials_in(reader)), reader):
        trials.append(_row(trial, summary, judge_by))
        reports += [{"trial": trial.number, **report} for report in trial.reports]
    if trials and not summary.metric:
        reader.problem(folder / layout.SUMMARY, "is missing or has no metric, so the trials' scores are unknown")
    # Searches downloaded from W&B have neither settings nor command.
    if trials and not settings_text.strip() and (folder / layout.COMMAND).exists():
        reader.problem(folder / layout.SETTINGS, "is missing or empty, so what was searched is unknown")
    reader.check_numbers([trial["number"] for trial in trials], summary)
    return Results(
        folder=folder,
        trials=_trial_frame(trials, settings, lower_is_better=summary.mode == "min"),
        reports=pd.DataFrame(reports, columns=None if reports else ["trial", "report"]),
        settings=settings,
        settings_text=settings_text,
        summary=summary,
        versions=reader.mapping(folder / layout.VERSIONS),
        command=reader.text(folder / layout.COMMAND).strip(),
        confirmation=reader.confirmation(folder / layout.CONFIRM / layout.SUMMARY),
        analysis=reader.mapping(folder / layout.ANALYSIS / "analysis.json"),
        problems=tuple(reader.problems),
    )


def _row(trial: Trial, summary: SearchSummary, judge_by: str) -> dict[str, Any]:
    values = [last_number([report], str(summary.metric), math.nan) for report in trial.reports]
    scores = [value for value in values if not math.isnan(value)]
    state: str | None = trial.ending.state
    if state is None:
        state = TrialState.RUNNING if summary.state == TrialState.RUNNING else TrialState.INTERRUPTED
    return {
        **trial.config,
        "number": trial.number,
        "state": str(state),
        "score": judge(values, judge_by),
        "last": values[-1] if values else math.nan,
        "best": (min if summary.mode == "min" else max)(scores, default=math.nan),
        "reports": len(values),
        "steps": int(last_number(trial.reports, "step", 0)),
        "steps_total": last_number(trial.reports, "steps_total", math.nan),
        "train_seconds": last_number(trial.reports, "train_seconds", 0.0),
        "evaluation_seconds": last_number(trial.reports, "evaluation_seconds", 0.0),
        "reason": trial.ending.reason or "",
        "origin": trial.origin,
        "folder": trial.folder.name,
    }


def _trial_frame(rows: list[dict[str, Any]], settings: dict[str, Any], lower_is_better: bool) -> pd.DataFrame:
    """Return the rows as a table: finished by score, stopped by reports and score, then others; ties by number."""
    sign = 1.0 if lower_is_better else -1.0

    def rank(row: dict[str, Any]) -> tuple[float, ...]:
        score = math.inf if math.isnan(row["score"]) else sign * row["score"]
        if row["state"] == TrialState.FINISHED:
            return 0, score, 0, row["number"]
        if row["state"] == TrialState.STOPPED:
            return 1, -row["reports"], score, row["number"]
        return 2, 0, 0, row["number"]

    space = settings.get("space")
    names = ["method", *SHAPE, *HYPERPARAMETERS, *(space if isinstance(space, dict) else ())]
    used = [name for name in dict.fromkeys(names) if name not in _TRIAL_COLUMNS and any(name in row for row in rows)]
    rows = sorted(rows, key=rank)
    frame = pd.DataFrame(rows, columns=[*_TRIAL_COLUMNS, *used])
    if "hidden_size" in used:
        # With numbers and None, pandas would make it a column of floats.
        frame["hidden_size"] = pd.Series([row.get("hidden_size") for row in rows], dtype=object)
    return frame.astype(_TRIAL_COLUMNS)
