"""The command line that trains a trial's configuration again."""

import itertools
import shlex
from typing import Any

import pandas as pd

from fsd_tune.report.results import Results
from fsd_tune.settings.shapes import SHAPE
from fsd_tune.storage import layout

# Options of the search's command line that a single run needs too.
_SHARED_OPTIONS = ("--task", "--task-file", "--teacher", "--data", "--memory")


def distill_command(results: Results, row: "pd.Series[Any]") -> str:
    """Return the command line that trains a trial's configuration again.

    Args:
        results: the results of the search.
        row: the trial's row of `Results.trials`.
    """
    typed_options = _options(results.command)
    recorded_options = {"--teacher": results.summary.teacher.name}
    if "--task-file" not in typed_options:
        recorded_options["--task"] = results.summary.task
    if (results.folder / layout.MEMORY).is_dir():
        recorded_options["--memory"] = str(results.folder / layout.MEMORY)
    words = ["fsd-tune", "distill", str(results.folder / layout.SETTINGS)]
    for name in _SHARED_OPTIONS:
        value = typed_options.get(name) or recorded_options.get(name)
        words += [name, str(value)] if value else []
    for name in results.hyperparameters:
        flag = f"--{'student-' if name in SHAPE else ''}{name.replace('_', '-')}"
        if not pd.isna(row[name]):
            words += [flag, _exact(row[name])]
        elif name in SHAPE:
            words += [flag, "null"]
    return shlex.join([*words, "--output", f"{results.folder}-trial-{row['number']}"])


def _options(command: str) -> dict[str, str]:
    """Return the `--name value` and `--name=value` of a command line."""
    try:
        words = shlex.split(command)
    except ValueError:
        return {}
    joined = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    return joined | {word: after for word, after in itertools.pairwise(words) if word.startswith("--")}


def _exact(value: Any) -> str:
    """Return a hyperparameter for a command line: with every digit, whole numbers without a decimal point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
