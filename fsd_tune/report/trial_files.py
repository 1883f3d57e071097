"""Reading of a search's files one by one. A damaged file is reported and does not hide the others."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fsd_tune.settings.yaml_file import parse_value
from fsd_tune.storage import json_file, layout
from fsd_tune.storage.confirmation_file import confirmation_problems
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.records import Record, TrialDescription, TrialEnding
from fsd_tune.storage.search_summary import SearchSummary

_RecordType = TypeVar("_RecordType", bound=Record)


@dataclass(frozen=True)
class Trial:
    """The content of one trial's files.

    Attributes:
        folder: the trial's folder.
        number: Optuna's number of the trial.
        config: its hyperparameters.
        ending: the content of `trial.json`; empty while the trial runs.
        reports: its reports by index, each index once.
        origin: the trial of an earlier search whose configuration it has; else empty.
    """

    folder: Path
    number: int
    config: dict[str, Any]
    ending: TrialEnding
    reports: list[dict[str, Any]]
    origin: str = ""


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
            value = json_file.parse(text)
        except ValueError as error:
            self.problem(path, str(error))
            return {}
        if not isinstance(value, dict):
            self.problem(path, f"holds a {type(value).__name__}, not a mapping")
            return {}
        return value

    def summary(self) -> SearchSummary:
        """Return the search's summary, without values of a wrong type."""
        return self.record(self.folder / layout.SUMMARY, SearchSummary)

    def record(self, path: Path, model: type[_RecordType]) -> _RecordType:
        """Return the record in a JSON file, without values that are not accepted.

        Args:
            path: the file.
            model: the class of the record.
        """
        record, problems = model.from_json(self.mapping(path), str(path.relative_to(self.folder)))
        self.problems += problems
        return record

    def confirmation(self, path: Path) -> dict[str, Any]:
        """Return the summary of a confirmation; empty if it cannot be used.

        Args:
            path: the `summary.json` of the confirmation.
        """
        value = self.mapping(path)
        problems = confirmation_problems(value) if value else []
        for problem in problems:
            self.problem(path, problem)
        return {} if problems else value

    def yaml_mapping(self, path: Path, text: str) -> dict[str, Any]:
        """Return the mapping of a YAML file; empty if it cannot be read.

        Args:
            path: the file, to name it in a problem.
            text: the text of the file.
        """
        try:
            value = parse_value(text)
        except ValueError as error:
            self.problem(path, str(error))
            return {}
        if text and not isinstance(value, dict):
            self.problem(path, f"holds a {type(value).__name__}, not a mapping")
        return value if isinstance(value, dict) else {}

    def check_numbers(self, numbers: Collection[int], summary: SearchSummary) -> None:
        """Note that trials of a finished search are missing, because their folders were deleted.

        Args:
            numbers: the numbers of the trials that were read.
            summary: the summary of the search.
        """
        named = any(f"/{layout.TRIAL_CONFIG}: " in problem for problem in self.problems)
        if summary.state != "done" or named or len(numbers) > max(numbers, default=-1):
            return
        first = next(number for number in range(len(numbers) + 1) if number not in numbers)
        missing = max(numbers) + 1 - len(numbers)
        self.problem(self.folder / layout.RESULTS, f"has no folder of trial {first} ({missing} missing in all)")

    def reports(self, path: Path) -> list[dict[str, Any]]:
        """Return the evaluations in a file of one JSON object per line, sorted by index.

        A resumed trial repeats some of them. The last line of each index counts.

        Args:
            path: the `reports.jsonl` of a trial.
        """
        reports: dict[int, dict[str, Any]] = {}
        try:
            rows = list(json_file.read_rows(path)) if path.exists() else []
        except OSError as error:
            self.problem(path, f"cannot be read: {error.strerror}")
            return []
        for number, row in rows:
            if row is None:
                if number < rows[-1][0]:  # A killed or active writer can leave the last line incomplete.
                    self.problem(path, f"line {number} is not a JSON mapping")
                continue
            if type(row.get("report")) is not int or row["report"] < 1:
                self.problem(path, f"line {number} has no whole number `report` from 1 on")
                continue
            reports[row["report"]] = {key: value for key, value in row.items() if not isinstance(value, dict | list)}
        return [reports[index] for index in sorted(reports)]


def trials_in(reader: Reader) -> Iterator[Trial]:
    """Yield every trial whose `config.json` can be read.

    Args:
        reader: the reader of the search's folder, which notes problems.
    """
    for path in sorted((reader.folder / layout.RESULTS).glob(f"*/{layout.TRIAL_CONFIG}")):
        known_problems = len(reader.problems)
        described = reader.record(path, TrialDescription)
        if described.trial is None or described.config is None:
            if len(reader.problems) == known_problems:
                reader.problem(path, "has no `trial` number or no `config`, so the trial is not shown")
            continue
        ending = reader.record(path.parent / layout.TRIAL_ENDING, TrialEnding)
        reports = path.parent / layout.TRIAL_REPORTS
        if ending.state in (TrialState.FINISHED, TrialState.STOPPED) and not reports.exists():
            reader.problem(reports, f"is missing, although the trial has {ending.state}")
        yield Trial(
            path.parent, described.trial, described.config, ending, reader.reports(reports), described.origin or ""
        )
    for folder in sorted(reader.folder.glob(f"{layout.RESULTS}/*/")):
        kept = [name for name in (layout.TRIAL_REPORTS, layout.TRIAL_ENDING) if (folder / name).exists()]
        if kept and not (folder / layout.TRIAL_CONFIG).exists():
            reader.problem(folder / layout.TRIAL_CONFIG, "is missing, so the trial is not shown")


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
