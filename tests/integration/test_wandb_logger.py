"""A search in Weights & Biases: its offline files say what its folder says, also after it was killed and resumed."""

import math
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fsd_tune.cluster import connection
from fsd_tune.evaluation.confirm import api as confirm
from fsd_tune.report.compare import compare
from fsd_tune.report.results import load
from fsd_tune.search import api as search
from fsd_tune.settings import loader
from fsd_tune.tracking import download
from tests.helpers.searching import SCRIPT, SPACE, command, gone, kill, short_folder
from tests.helpers.wandb_files import runs_of

KEY = "fedcba9876543210" * 3


def settings_of(tmp_path, *flags):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return loader.load(path, loader.parse_flags(flags))


def check(folder):
    """Every trial is one run with each of its reports once, and the search is one more."""
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
    assert summary.summary["teacher_passes"] == 1
    assert {"leaderboard", "history"} <= {key.split(".")[0] for key in summary.rows[0]}
    return results


@dataclass
class ServedRun:
    """A run as W&B's public API has it, made of an offline one."""

    config: dict[str, Any]
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    job_type: str
    state: str
    created_at: str

    def scan_history(self):
        return iter(self.rows)


def check_download(folder, into):
    """What W&B knows of a search is enough to compare it: the same table comes back."""
    served = [
        ServedRun(run.config, run.summary, run.rows, run.kind, "failed" if run.exit_code else "finished", run.id)
        for run in runs_of(folder).values()
    ]
    here = load(folder)
    assert download.write(into, "there", served) == len(here.trials)
    there = load(into)
    columns = ["number", "state", "score", "last", "best", "reports", "steps", "method", "gamma_i", "learning_rate"]
    assert there.trials[columns].equals(here.trials[columns])
    compared = compare([folder, into])
    assert not compared.remarks, "the same task, metric, split and judge"
    table = compared.table()
    assert table["best"].nunique() == table["steps"].nunique() == 1


@pytest.mark.slow
def test_a_search_and_its_confirmation(glue, teacher, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    settings = settings_of(tmp_path, "--trials=4", "--wandb=offline", "--wandb-tags=[a, '</b>']")
    folder = tmp_path / "R"
    with short_folder() as temporary, connection.connect(temporary=Path(temporary)):
        search.run(settings, task="sst2", teacher=str(teacher), data=glue, output=folder)
        check(folder)
        check_download(folder, tmp_path / "downloaded")
        made = confirm.confirm(folder, top=1, seeds=1, fresh_seeds=2)
    found, group = runs_of(folder / "confirm"), load(folder).summary.group
    assert set(found) == {f"{group}-confirm-{one['run']}" for one in made["runs"]}
    for one in made["runs"]:
        run = found[f"{group}-confirm-{one['run']}"]
        assert run.kind == "confirm" and run.summary["score"] == one["score"] and run.config["seed"] == one["seed"]
    held = [path for path in [*tmp_path.rglob("*"), *folder.rglob(".*")] if path.is_file()]
    assert not [path for path in held if KEY.encode() in path.read_bytes()], "the key is nowhere"


@pytest.mark.slow
def test_killed_and_resumed(glue, teacher, tmp_path):
    folder, space_file = tmp_path / "R", tmp_path / "space.yaml"
    space_file.write_text(SPACE.replace("epochs: 2", "epochs: 60"))
    with short_folder() as temporary:
        words = command(glue, teacher, folder, space_file, temporary, "--wandb=offline")
        driver = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
        deadline = time.monotonic() + 240
        while not list(folder.glob("results/*/trial.json")):
            assert driver.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        kill(driver, "driver")
        gone(driver)
    with short_folder() as temporary:
        environment = os.environ | {"HOME": str(tmp_path)}
        words = [SCRIPT, "resume", folder, "--temp-dir", temporary]
        subprocess.run(words, env=environment, check=True, timeout=300)
    assert len(check(folder).trials) == 6
