"""A search in Weights & Biases: its offline files say what its folder says; of a killed one in test_resume.py."""

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
from tests.helpers.searching import SPACE, short_folder
from tests.helpers.wandb_files import check, runs_of

KEY = "fedcba9876543210" * 3


def settings_of(tmp_path, *flags):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return loader.load(path, loader.parse_flags(flags))


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
    assert download.write_search(into, "there", served) == len(here.trials)
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
        assert check(folder).summary.memory.passes == 1
        check_download(folder, tmp_path / "downloaded")
        made = confirm.confirm(folder, top=1, seeds=1, fresh_seeds=2)
    found, group = runs_of(folder / "confirm"), load(folder).summary.group
    assert set(found) == {f"{group}-confirm-{one['run']}" for one in made["runs"]}
    for one in made["runs"]:
        run = found[f"{group}-confirm-{one['run']}"]
        assert run.kind == "confirm" and run.summary["score"] == one["score"] and run.config["seed"] == one["seed"]
    held = [path for path in [*tmp_path.rglob("*"), *folder.rglob(".*")] if path.is_file()]
    assert not [path for path in held if KEY.encode() in path.read_bytes()], "the key is nowhere"
