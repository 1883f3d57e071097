"""Reads offline runs of Weights & Biases back, by W&B's own command."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class OfflineRun:
    id: str
    group: str = ""
    kind: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def read(path):
    """One run's file."""
    words = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", path]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
    run = OfflineRun(Path(path).stem.removeprefix("run-"))
    for line in done.stdout.splitlines():
        record = json.loads(line)
        match record["type"]:
            case "run":
                told = record["run"]
                run.group, run.kind = told.get("run_group", ""), told["job_type"]
                run.tags = told.get("tags", [])
                run.config |= {k: v for k, v in told["config"]["update"].items() if k != "_wandb"}
            case "history":
                run.rows.append({k: v for k, v in record["history"]["item"].items() if not k.startswith("_")})
            case "summary":
                update = record["summary"].get("update", {})
                run.summary |= {k: v for k, v in update.items() if not k.startswith("_")}
            case "exit":
                run.exit_code = record["exit"].get("exit_code", 0)
    return run


def runs_of(folder):
    """All offline runs below a folder, by id; one that is there twice is an error."""
    found = [read(path) for path in sorted(Path(folder).glob("wandb/offline-run-*/*.wandb"))]
    ids = [run.id for run in found]
    assert len(set(ids)) == len(ids), ids
    return {run.id: run for run in found}
