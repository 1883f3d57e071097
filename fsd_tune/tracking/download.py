"""Download a group of runs from Weights & Biases as a search's folder, to compare searches and native sweeps.

A separate process talks to W&B, because it can be ended and leaves no state in this one.
"""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fsd_tune.errors import InputError
from fsd_tune.python_command import python
from fsd_tune.storage import artifacts, layout
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.search_summary import SearchSummary

PREFIX = "wandb:"
_TIMEOUT_SECONDS = 300.0
_JOB_TYPES = ("trial", "distill")
# Entries of a run's configuration that describe its search, so that searches can be compared.
SHARED = ("task", "metric", "select_on", "judge_by")
DEV_SPLIT = "dev split"


def download(address: str, into: Path) -> Path:
    """Download a group's runs as the folder of a search: its trials with their learning curves, without a study.

    Args:
        address: `wandb:entity/project/group`; a sweep's id in place of the group stands for the sweep's runs.
        into: the folder in which the search's folder is created; it must be empty.

    Returns:
        The search's folder, below `into`.

    Raises:
        InputError: the address is malformed, W&B refuses or does not answer, or there are no such runs.
    """
    parts = address.removeprefix(PREFIX).split("/")
    if len(parts) != 3 or not all(parts):
        raise InputError(f"{address}: must be {PREFIX}entity/project/group.")
    folder = into / (re.sub(r"[^\w.-]", "-", parts[2]) or "group")
    command = python("-m", "fsd_tune.tracking.download", *parts, str(folder))
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(f"{address}: W&B has not answered within {_TIMEOUT_SECONDS:g} s.") from None
    if process.returncode:
        lines = process.stdout.strip().splitlines() or process.stderr.strip().splitlines() or ["no answer"]
        key = os.environ.get("WANDB_API_KEY")
        raise InputError(f"{address}: {lines[-1].replace(key, '***') if key else lines[-1]}")
    return folder


def write_search(folder: Path, name: str, runs: Iterable[Any]) -> int:
    """Write runs, as `wandb.Api().runs` returns them, as a search's folder, and return the number of trials.

    Args:
        folder: the folder to create.
        name: the name of the search.
        runs: the runs, with `config`, `summary`, `state`, `job_type`, `created_at` and `scan_history`.
    """
    trials = sorted((run for run in runs if run.job_type in _JOB_TYPES), key=lambda run: str(run.created_at))
    for index, run in enumerate(trials):
        config = dict(run.config)
        # The runs of a native sweep have no trial number.
        number = int(config["trial"]) if config.get("trial") is not None else index
        trial = folder / layout.RESULTS / f"{number:04d}_{index}"
        hyperparameters = {key.removeprefix("hp/"): value for key, value in config.items() if key.startswith("hp/")}
        artifacts.write_json(trial / layout.TRIAL_CONFIG, {"trial": number, "config": hyperparameters})
        rows = [_report(row) for row in run.scan_history() if isinstance(row.get("report"), int | float)]
        artifacts.write_text(trial / layout.TRIAL_REPORTS, "".join(json.dumps(row) + "\n" for row in rows))
        if run.state != "running":
            run_summary = dict(run.summary)
            state = run_summary.get("state") or _STATES.get(run.state, TrialState.FAILED)
            ending = {"state": state, "reason": run_summary.get("reason") or ""}
            artifacts.write_json(trial / layout.TRIAL_ENDING, ending)
    # Each run records the facts of its search.
    facts: dict[str, Any] = next((dict(run.config) for run in trials if run.config), {})
    search_facts = {key: facts.get(key) for key in SHARED}
    search_facts["teacher"] = {"name": "", "score": facts.get("teacher/score")}
    summary = SearchSummary.from_json(search_facts, "summary.json")[0]
    summary.update(name=name, mode="max", state="done", trials=len(trials))
    summary.update(identity={"settings": {}, DEV_SPLIT: facts.get(DEV_SPLIT)})
    summary.write(folder)
    return len(trials)


# W&B calls a run `killed` if the sweep's early termination ended it.
_STATES = {"finished": TrialState.FINISHED, "killed": TrialState.STOPPED}


def _report(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a run's history as a report, without W&B's own columns."""
    report = {
        key: value
        for key, value in row.items()
        if not key.startswith("_") and isinstance(value, bool | int | float | str)
    }
    # W&B stores NaN as the string "NaN".
    report = {key: math.nan if value == "NaN" else value for key, value in report.items()}
    return report | {"report": int(row["report"])} | {"timestamp": row.get("timestamp", row.get("_timestamp", 0))}


def main() -> None:
    """Download a group. The command's arguments are entity, project, group and the folder to write."""
    entity, project, group, folder = sys.argv[1:]
    try:
        import wandb

        api = wandb.Api(timeout=10)
        runs = api.runs(f"{entity}/{project}", filters={"$or": [{"group": group}, {"sweep": group}]})
        if not write_search(Path(folder), group, runs):
            print(f"no trial of the project belongs to a group or sweep {group}.", flush=True)
            os._exit(1)
    except Exception as error:  # Any error of W&B becomes one line.
        print(next(iter(str(error).splitlines()), type(error).__name__), flush=True)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
