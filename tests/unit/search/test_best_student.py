"""The best student comes from a whole checkpoint, or the next best is handed out with a note."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from fsd_tune.search import best_student
from fsd_tune.storage import checkpoints
from fsd_tune.storage.experiment_folder import ExperimentFolder


def truncate(checkpoint):
    (checkpoint / "student/model.safetensors").write_bytes(b"hal")


def same_size(checkpoint):
    (checkpoint / "student/model.safetensors").write_bytes(b"x" * 10)


@pytest.mark.parametrize(
    "damage", [truncate, same_size, shutil.rmtree, lambda path: (path / "checkpoint.json").unlink()]
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, monkeypatch, damage):
    for number in (0, 1, 2):
        checkpoint = tmp_path / f"results/{number}/checkpoint_000000"
        (checkpoint / "student").mkdir(parents=True)
        (checkpoint / "student/model.safetensors").write_bytes(bytes(10))
        checkpoints.seal(checkpoint, 4)
    rows = [(1, "finished", 0.9), (0, "finished", 0.8), (2, "stopped", 0.95)]
    trials = pd.DataFrame(rows, columns=["number", "state", "score"]).assign(folder=lambda t: t["number"].astype(str))
    results: Any = SimpleNamespace(folder=tmp_path, trials=trials, metric="accuracy")
    exported: list[Path] = []
    notes: list[str] = []
    monkeypatch.setattr(best_student, "_export", lambda results, best, student, tokenizer: exported.append(student))

    def export():
        best_student.export_best(results, "teacher", ExperimentFolder(tmp_path), notes.append)

    export()
    assert exported == [tmp_path / "results/1/checkpoint_000000/student"] and notes == []
    damage(tmp_path / "results/1/checkpoint_000000")
    export()
    assert exported[1:] == [tmp_path / "results/0/checkpoint_000000/student"]
    assert len(notes) == 1 and "trial 1 (accuracy 0.9000) has lost its student" in notes[0]
    damage(tmp_path / "results/0/checkpoint_000000")
    export()
    assert len(exported) == 2 and len(notes) == 3
