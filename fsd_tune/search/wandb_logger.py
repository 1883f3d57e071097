"""Log a search to Weights & Biases: one run per trial and one for the whole search, all in the search's group."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fsd_tune.progress import Display
from fsd_tune.report.charts import charts
from fsd_tune.report.results import Results
from fsd_tune.search.resume import read_reports
from fsd_tune.settings.methods import TERMS
from fsd_tune.settings.wandb_section import Wandb
from fsd_tune.storage import layout
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.search_summary import SearchSummary
from fsd_tune.tracking.download import DEV_SPLIT, SHARED
from fsd_tune.tracking.tracker import Tracker

_SUMMARY = "search"
_ENDED = (TrialState.FINISHED, TrialState.STOPPED, TrialState.FAILED)
_LEADERBOARD_ROWS = 1000
_CKA = dict(term.cka for term in TERMS.values() if term.cka)
_CHARTS = ("history", "importances", "parallel", "clusters")


class WandbSearchLogger:
    """A logger that sends the trials of a search and its results to a `Tracker`."""

    def __init__(self, settings: Wandb, folder: Path, summary: SearchSummary, display: Display) -> None:
        """Begin tracking.

        Args:
            settings: the settings of Weights & Biases.
            folder: the search's folder.
            summary: the summary of the search. Its `group` names the search in a W&B project; without one, as in
                folders of earlier versions, the search's name does.
            display: the display that shows problems of the tracking.
        """
        self._tracker = Tracker(settings, folder, str(summary.group or summary.name), display.line)
        self._metric = str(summary.metric)
        self._sign = -1.0 if summary.mode == "min" else 1.0
        self._facts = {
            "search": str(summary.name),
            **summary.values(*SHARED),
            DEV_SPLIT: summary.identity.get(DEV_SPLIT),
            "precision": summary.precision,
            "student/layers": summary.student.layers,
        }

    def teacher(self, fingerprint: str | None, score: float | None) -> None:
        """Add facts that all runs share.

        Args:
            fingerprint: the fingerprint of the memory that trials use.
            score: the score of the teacher on the split that selects students.
        """
        self._facts |= {"memory": fingerprint, "teacher/score": score}

    def started(self, number: int, config: Mapping[str, Any], folder: Path) -> None:
        """Begin the run of a trial, with the reports that its folder holds already.

        Args:
            number: the number of the trial.
            config: the configuration of the trial.
            folder: the trial's folder.
        """
        facts = self._facts | {"trial": number} | {f"hp/{name}": value for name, value in config.items()}
        facts["student/layers"] = config.get("layers", facts["student/layers"])
        self._tracker.begin(_name(number), "trial", facts, _rows_with_cka(folder))

    def reported(self, number: int, row: Mapping[str, Any]) -> None:
        """Log a report of a trial.

        Args:
            number: the number of the trial.
            row: the report.
        """
        self._tracker.log(_name(number), _with_cka(row))

    def ended(self, number: int, ending: Mapping[str, Any], values: Sequence[float]) -> None:
        """End the run of a trial.

        Args:
            number: the number of the trial.
            ending: the content of the trial's `trial.json`.
            values: the metric at each report.
        """
        finite = [value for value in values if math.isfinite(value)]
        best = {f"best_{self._metric}": self._sign * max(self._sign * value for value in finite)} if finite else {}
        facts = {name: ending.get(name) for name in ("state", "reason", "score")}
        # Only a finished trial has a score. In a table other trials have NaN, which is not equal to itself.
        figures = {name: value for name, value in facts.items() if value not in (None, "") and value == value}
        self._tracker.end(_name(number), figures | best, ending["state"] == TrialState.FAILED)

    def _catch_up(self, results: Results) -> None:
        """Write the missing runs of trials that ended earlier, from the search's own files."""
        for row in results.trials.to_dict("records"):
            number = int(row["number"])
            if row["state"] not in _ENDED or self._tracker.holds(_name(number)):
                continue
            config = {name: row[name] for name in results.hyperparameters if row[name] == row[name]}
            self.started(number, config, results.folder / layout.RESULTS / str(row["folder"]))
            reports = results.reports[results.reports["trial"] == number]
            values = [float(value) for value in reports.get(self._metric, [])]
            self.ended(number, {name: row[name] for name in ("state", "reason", "score")}, values)

    def conclude(self, results: Results) -> None:
        """Write the runs that a killed part of the search did not write, and the run of the whole search.

        The run of the whole search has figures, the leaderboard and the report's main charts.

        Args:
            results: the results of the search.
        """
        if not self._tracker.active:
            return
        self._catch_up(results)
        saved = results.saved
        best = results.best
        summary = results.summary
        memory = summary.memory
        figures: dict[str, Any] = {
            "state": summary.state,
            "trials": len(results.trials),
            "steps_run": saved["steps_run"],
            "steps_saved_share": saved["share"],
            "wall_seconds": summary.wall_seconds,
            "teacher_passes": memory.passes,
            "memory/centroids": memory.centroids,
            "memory/build_seconds": memory.build_seconds,
        }
        if best is not None:
            figures |= {"best_trial": int(best["number"]), f"best_{self._metric}": float(best["score"])}
        facts = self._facts | {"trial": None}
        self._tracker.begin(_SUMMARY, "search-summary", facts)
        self._tracker.draw(_SUMMARY, *_table_and_charts(results))
        self._tracker.end(_SUMMARY, {name: value for name, value in figures.items() if value is not None})

    def close(self) -> None:
        """Close the tracker; see `Tracker.close`."""
        self._tracker.close()


def _name(number: int) -> str:
    return f"trial-{number:04d}"


def _rows_with_cka(folder: Path) -> Iterable[dict[str, Any]]:
    return map(_with_cka, read_reports(folder / layout.TRIAL_REPORTS).values())


def _with_cka(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report with the CKA values that its loss terms -log(CKA + 1e-8) imply.

    See docs/explanation/method.md, "Loss terms".
    """
    cka = {name: math.exp(-row[term]) - 1e-8 for term, name in _CKA.items() if math.isfinite(row.get(term, math.nan))}
    return {**row, **cka}


def _table_and_charts(results: Results) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the leaderboard, and the charts of the report that compare trials, as JSON."""
    columns = ["number", "state", "score", "last", "best", "reports", *results.hyperparameters, "reason"]
    rows = results.trials[columns].head(_LEADERBOARD_ROWS).astype(object)
    table = {"columns": columns, "data": rows.where(pd.notna(rows), None).values.tolist()}
    figures = {key: chart.figure for key, chart in charts(results).items() if key in _CHARTS}
    return table, {key: figure.to_json() for key, figure in figures.items() if figure is not None}
