"""Reading of a search's files one by one. A damaged file is reported and does not hide the others."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fsd_tune.storage import layout
from fsd_tune.storage.search_summary import SearchSummary

_CONFIRMATION = ("metric", "winner", "configurations", "differences", "optimism", "selection_seeds", "fresh_seeds")


@dataclass(frozen=True)
class Trial:
    """The content of one trial's files.

    Attributes:
        folder: the trial's folder.
        number: Optuna's number of the trial.
        config: its hyperparameters.
        ending: the content of `trial.json`; empty while the trial runs.
        reports: its reports by index, each index once.
    """

    folder: Path
    number: int
    config: dict[str, Any]
    ending: dict[str, Any]
    reports: list[dict[str, Any]]


class Reader:
    """A reader of one search's files. A file that cannot be read becomes a line of `problems` and an empty value."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []

    def problem(self, path: Path, what: str) -> None:
        """Note a problem with a file.

        Args:
            path: the file.
            what: what is wrong with it.
        """
        self.problems.append(f"{path.relative_to(self.folder)}: {what}")

    def text(self, path: Path) -> str:
        """Return a file's text; empty if there is no such file.

        Args:
            path: the file.
        """
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            self.problem(path, f"cannot be read: {error.strerror}")
            return ""

    def mapping(self, path: Path) -> dict[str, Any]:
        """Return the mapping of a JSON file; empty if there is no such file.

        Args:
            path: the file.
        """
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

    def summary(self) -> SearchSummary:
        """Return the search's summary, without values of a wrong type."""
        summary, problems = SearchSummary.from_json(self.mapping(self.folder / layout.SUMMARY))
        self.problems += problems
        return summary

    def confirmation(self, path: Path) -> dict[str, Any]:
        """Return the summary of a confirmation; empty if it lacks a key that the report needs.

        Args:
            path: the `summary.json` of the confirmation.
        """
        value = self.mapping(path)
        missing = [key for key in _CONFIRMATION if key not in value]
        if value and missing:
            self.problem(path, f"lacks {', '.join(missing)}")
        return {} if missing else value

    def yaml_mapping(self, path: Path, text: str) -> dict[str, Any]:
        """Return the mapping of a YAML file; empty if it cannot be read.

        Args:
            path: the file, to name it in a problem.
            text: the text of the file.
        """
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            self.problem(path, f"is not YAML: {str(error).splitlines()[0]}")
            return {}
        if text and not isinstance(value, dict):
            self.problem(path, f"holds a {type(value).__name__}, not a mapping")
        return value if isinstance(value, dict) else {}

    def reports(self, path: Path) -> list[dict[str, Any]]:
        """Return the evaluations in a file of one JSON object per line, sorted by index.

        A resumed trial repeats some of them. The last line of each index counts.

        Args:
            path: the `reports.jsonl` of a trial.
        """
        reports: dict[int, dict[str, Any]] = {}
        lines = self.text(path).splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                if number < len(lines):  # A killed or active writer can leave the last line incomplete.
                    self.problem(path, f"line {number} is not JSON")
                continue
            if not isinstance(row, dict) or not isinstance(row.get("report"), int):
                self.problem(path, f"line {number} has no whole number `report`")
                continue
            reports[row["report"]] = {key: value for key, value in row.items() if not isinstance(value, dict | list)}
        return [reports[index] for index in sorted(reports)]


def trials_in(reader: Reader) -> Iterator[Trial]:
    """Yield every trial whose `config.json` can be read.

    Args:
        reader: the reader of the search's folder, which notes problems.
    """
    for path in sorted((reader.folder / layout.RESULTS).glob(f"*/{layout.TRIAL_CONFIG}")):
        content = reader.mapping(path)
        number, config = content.get("trial"), content.get("config")
        if not isinstance(number, int) or not isinstance(config, dict):
            if content:
                reader.problem(path, "has no `trial` number or no `config`")
            continue
        yield Trial(
            path.parent,
            number,
            config,
            ending=reader.mapping(path.parent / layout.TRIAL_ENDING),
            reports=reader.reports(path.parent / layout.TRIAL_REPORTS),
        )


def newest_of_each(trials: list[Trial], reader: Reader) -> Iterator[Trial]:
    """Yield one folder per trial number, the newest, because Ray starts an errored trial again in a new folder.

    Args:
        trials: the trials of all folders.
        reader: the reader, which notes the numbers that have several folders.
    """
    by_number: dict[int, list[Trial]] = {}
    for trial in trials:
        by_number.setdefault(trial.number, []).append(trial)
    for number, same in sorted(by_number.items()):
        newest = max(same, key=lambda trial: (last_number(trial.reports[-1:], "timestamp", 0.0), trial.folder.name))
        if len(same) > 1:
            reader.problem(newest.folder, f"trial {number} has {len(same)} folders; this, the newest, is shown")
        yield newest


def last_number(reports: list[dict[str, Any]], key: str, absent: float) -> float:
    """Return a number of the last report.

    Args:
        reports: the reports of a trial, in order.
        key: the name of the number.
        absent: the value to return if there is no report, or the number is missing or not finite.
    """
    value = reports[-1].get(key) if reports else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else absent
