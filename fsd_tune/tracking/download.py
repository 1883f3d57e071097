"""A group of runs in Weights & Biases as a search's folder, to compare searches and native sweeps from there.

W&B is asked by a process of its own, which can be ended and leaves no state behind in this one.
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
from fsd_tune.storage import artifacts
from fsd_tune.storage.search_summary import SearchSummary

PREFIX = "wandb:"
_SECONDS = 300.0
_KINDS = ("trial", "distill")
# What a run says of the search that it belongs to, for whether searches compare.
SHARED = ("task", "metric", "select_on", "judge_by")
DEV_SPLIT = "dev split"


def download(address: str, into: Path) -> Path:
    """Write a group's runs as the folder of a search; its trials' learning curves, without a study.

    Args:
        address: `wandb:entity/project/group`; a sweep's id in the place of a group means its runs.
        into: an empty folder.

    Returns:
        The search's folder, below `into`.

    Raises:
        InputError: the address is none, W&B refuses or does not answer, or holds no such runs.
    """
    parts = address.removeprefix(PREFIX).split("/")
    if len(parts) != 3 or not all(parts):
        raise InputError(f"{address}: must be {PREFIX}entity/project/group.")
    folder = into / (re.sub(r"[^\w.-]", "-", parts[2]) or "group")
    words = [sys.executable, "-m", "fsd_tune.tracking.download", *parts, str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(f"{address}: W&B has not answered within {_SECONDS:g} s.") from None
    if done.returncode:
        lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no answer"]
        key = os.environ.get("WANDB_API_KEY")
        raise InputError(f"{address}: {lines[-1].replace(key, '***') if key else lines[-1]}")
    return folder


def write(folder: Path, name: str, runs: Iterable[Any]) -> int:
    """Write runs, as `wandb.Api().runs` gives them, as a search's folder; returns how many trials there were.

    Args:
        folder: new.
        name: of the search.
        runs: with `config`, `summary`, `state`, `job_type`, `created_at` and `scan_history`.
    """
    found = sorted((run for run in runs if run.job_type in _KINDS), key=lambda run: str(run.created_at))
    told: dict[str, Any] = {}
    for place, run in enumerate(found):
        config = dict(run.config)
        told = told or config
        # An agent's runs of a native sweep have no number of their own.
        number = int(config["trial"]) if config.get("trial") is not None else place
        trial = folder / "results" / f"{number:04d}_{place}"
        hyperparameters = {key.removeprefix("hp/"): value for key, value in config.items() if key.startswith("hp/")}
        artifacts.write_json(trial / "config.json", {"trial": number, "config": hyperparameters})
        rows = [_report(row) for row in run.scan_history() if isinstance(row.get("report"), int | float)]
        artifacts.write_text(trial / "reports.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        if run.state != "running":
            ended = dict(run.summary)
            state = ended.get("state") or _STATES.get(run.state, "failed")
            artifacts.write_json(trial / "trial.json", {"state": state, "reason": ended.get("reason") or ""})
    known = {key: told.get(key) for key in SHARED} | {"teacher": {"name": "", "score": told.get("teacher/score")}}
    summary = SearchSummary.from_json(known)[0]
    summary.update(name=name, mode="max", state="done", trials=len(found))
    summary.update(identity={"settings": {}, DEV_SPLIT: told.get(DEV_SPLIT)})
    summary.write(folder)
    return len(found)


# A run that its sweep's early termination ends is `killed`.
_STATES = {"finished": "finished", "killed": "stopped"}


def _report(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in row.items()
        if not key.startswith("_") and isinstance(value, bool | int | float | str)
    }
    # W&B says NaN by a word.
    kept = {key: math.nan if value == "NaN" else value for key, value in kept.items()}
    return kept | {"report": int(row["report"])} | {"timestamp": row.get("timestamp", row.get("_timestamp", 0))}


def main() -> None:
    """Ask W&B: entity, project, group and the folder to write are the arguments."""
    entity, project, group, folder = sys.argv[1:]
    try:
        import wandb

        api = wandb.Api(timeout=10)
        runs = api.runs(f"{entity}/{project}", filters={"$or": [{"group": group}, {"sweep": group}]})
        if not write(Path(folder), group, runs):
            print(f"no trial there belongs to a group or sweep {group}.", flush=True)
            os._exit(1)
    except Exception as error:  # whatever W&B raises is said in one line
        print(next(iter(str(error).splitlines()), type(error).__name__), flush=True)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
