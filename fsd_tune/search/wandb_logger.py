"""A search in Weights & Biases: one run a trial, one for the search as a whole, all in the search's group."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fsd_tune.progress import Display
from fsd_tune.report.charts import charts
from fsd_tune.report.results import Results
from fsd_tune.search.resume import rows
from fsd_tune.settings.methods import TERMS
from fsd_tune.settings.schema import Wandb
from fsd_tune.tracking.download import DEV_SPLIT, SHARED
from fsd_tune.tracking.tracker import Tracker

_SUMMARY = "search"
_LEADERBOARD_ROWS = 1000
_CKA = dict(term.cka for term in TERMS.values() if term.cka)
_CHARTS = ("history", "importances", "parallel", "clusters")


class WandbSearchLogger:
    """Says of a search what happens, in the words of `Tracker`."""

    def __init__(self, settings: Wandb, folder: Path, summary: Mapping[str, Any], display: Display) -> None:
        """Begin to track.

        Args:
            settings: of Weights & Biases.
            folder: the search's.
            summary: what `summary.json` holds; its `group` names the search among all of a project
                (folders of earlier versions have none).
            display: where the end of the tracking is said.
        """
        self._tracker = Tracker(settings, folder, str(summary.get("group") or summary["name"]), display.line)
        self._metric = str(summary["metric"])
        self._sign = -1.0 if summary.get("mode") == "min" else 1.0
        self._facts = {
            "search": str(summary["name"]),
            **{key: summary.get(key) for key in SHARED},
            DEV_SPLIT: (summary.get("identity") or {}).get(DEV_SPLIT),
            "precision": summary["precision"],
            "student/layers": summary["student"]["layers"],
        }

    def teacher(self, fingerprint: str | None, score: float | None) -> None:
        """The memory that the trials are served from, and what the teacher scores on what selects."""
        self._facts |= {"memory": fingerprint, "teacher/score": score}

    def started(self, number: int, config: Mapping[str, Any], folder: Path) -> None:
        """A trial starts, or goes on with the reports that its folder holds."""
        facts = self._facts | {"trial": number} | {f"hp/{name}": value for name, value in config.items()}
        self._tracker.begin(_name(number), "trial", facts, _rows(folder))

    def reported(self, number: int, row: Mapping[str, Any]) -> None:
        """A trial reported."""
        self._tracker.log(_name(number), _with_cka(row))

    def ended(self, number: int, ending: Mapping[str, Any], values: Sequence[float]) -> None:
        """A trial ended: `ending` is what its `trial.json` holds, `values` its metric at each report."""
        known = [value for value in values if math.isfinite(value)]
        best = {f"best_{self._metric}": self._sign * max(self._sign * value for value in known)} if known else {}
        told = {name: ending.get(name) for name in ("state", "reason", "score")}
        # Only a finished trial has a score; a table says so by NaN, which equals nothing.
        figures = {name: value for name, value in told.items() if value not in (None, "") and value == value}
        self._tracker.end(_name(number), figures | best, ending["state"] == "failed")

    def _catch_up(self, results: Results) -> None:
        """Trials that had ended before, and whose runs are not whole: written from the search's own files."""
        for row in results.trials.to_dict("records"):
            number = int(row["number"])
            if row["state"] not in ("finished", "stopped", "failed") or self._tracker.holds(_name(number)):
                continue
            config = {name: row[name] for name in results.hyperparameters if row[name] == row[name]}
            self.started(number, config, results.folder / "results" / str(row["folder"]))
            reports = results.reports[results.reports["trial"] == number]
            values = [float(value) for value in reports.get(self._metric, [])]
            self.ended(number, {name: row[name] for name in ("state", "reason", "score")}, values)

    def conclude(self, results: Results) -> None:
        """The runs that a killed part of the search has left unwritten, and that of the search as a whole.

        It holds figures, the leaderboard and the report's main charts.
        """
        if not self._tracker.active:
            return
        self._catch_up(results)
        summary, saved, best = results.summary, results.saved, results.best
        memory = summary.get("memory") or {}
        figures: dict[str, Any] = {
            "state": summary.get("state"),
            "trials": len(results.trials),
            "steps_run": saved["steps_run"],
            "steps_saved_share": saved["share"],
            "wall_seconds": summary.get("wall_seconds"),
            "teacher_passes": memory.get("passes"),
            "memory/centroids": memory.get("centroids"),
            "memory/build_seconds": memory.get("build_seconds"),
        }
        if best is not None:
            figures |= {"best_trial": int(best["number"]), f"best_{self._metric}": float(best["score"])}
        facts = self._facts | {"trial": None}
        self._tracker.begin(_SUMMARY, "search-summary", facts)
        self._tracker.draw(_SUMMARY, *_drawn(results))
        self._tracker.end(_SUMMARY, {name: value for name, value in figures.items() if value is not None})

    def close(self) -> None:
        """See `Tracker.close`."""
        self._tracker.close()


def _name(number: int) -> str:
    return f"trial-{number:04d}"


def _rows(folder: Path) -> Iterable[dict[str, Any]]:
    return map(_with_cka, rows(folder / "reports.jsonl").values())


def _with_cka(row: Mapping[str, Any]) -> dict[str, Any]:
    """A report with each CKA beside its loss term, which is -log(CKA + 1e-8) (method.md, "Linear CKA")."""
    cka = {name: math.exp(-row[term]) - 1e-8 for term, name in _CKA.items() if math.isfinite(row.get(term, math.nan))}
    return {**row, **cka}


def _drawn(results: Results) -> tuple[dict[str, Any], dict[str, str]]:
    """The leaderboard, and the charts of the report that compare trials, as JSON."""
    shown = ["number", "state", "score", "last", "best", "reports", *results.hyperparameters, "reason"]
    rows = results.trials[shown].head(_LEADERBOARD_ROWS).astype(object)
    table = {"columns": shown, "data": rows.where(pd.notna(rows), None).values.tolist()}
    drawn = {key: chart.figure for key, chart in charts(results).items() if key in _CHARTS}
    return table, {key: figure.to_json() for key, figure in drawn.items() if figure is not None}
