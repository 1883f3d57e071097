"""Reads offline runs of Weights & Biases back, by W&B's own command."""

import json
import math
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fsd_tune.report.results import load


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


def check(folder):
    """Every trial of a search is one run with each of its reports once, and the search is one more."""
    results, runs = load(folder), runs_of(folder)
    group = results.summary.group
    assert set(runs) == {f"{group}-trial-{number:04d}" for number in results.trials["number"]} | {f"{group}-search"}
    for row in results.trials.to_dict("records"):
        run = runs[f"{group}-trial-{row['number']:04d}"]
        reports = results.reports[results.reports["trial"] == row["number"]].sort_values("report")
        assert [one["report"] for one in run.rows] == reports["report"].tolist()
        for one, (_, made) in zip(run.rows, reports.iterrows(), strict=True):
            assert one["accuracy"] == made["accuracy"] and one["loss/task"] == pytest.approx(made["loss/task"])
            assert {"learning_rate", "train_seconds", "step"} <= set(one)
            for term, name in (("intra", "intra"), ("local", "local"), ("global/memory", "global")):
                if row["method"] == "fsd_ilg":
                    assert -math.log(one[f"cka/{name}"] + 1e-8) == pytest.approx(made[f"loss/{term}"], abs=1e-9)
                else:
                    assert f"cka/{name}" not in one
        assert run.group == group and run.kind == "trial" and run.exit_code == int(row["state"] == "failed")
        assert run.summary["state"] == row["state"] and run.summary["best_accuracy"] == row["best"]
        assert run.config["hp/method"] == row["method"] and run.config["task"] == "sst2"
        assert run.config["memory"] == results.summary.memory.fingerprint
        assert run.config["teacher/score"] == results.summary.teacher.score
        if not math.isnan(row["gamma_i"]):
            assert run.config["hp/gamma_i"] == row["gamma_i"]
    summary = runs[f"{group}-search"]
    assert summary.kind == "search-summary" and summary.summary["trials"] == len(results.trials)
    assert results.best is not None and summary.summary["best_accuracy"] == results.best["score"]
    assert summary.summary["teacher_passes"] == results.summary.memory.passes
    assert {"leaderboard", "history"} <= {key.split(".")[0] for key in summary.rows[0]}
    return results
