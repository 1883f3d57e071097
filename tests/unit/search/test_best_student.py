"""The best student comes from a whole checkpoint, or the next best is handed out with a note."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fsd_tune.models.folder import made_in_search
from fsd_tune.report.results import load
from fsd_tune.search import best_student
from fsd_tune.storage import checkpoints
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.model_record import ModelRecord
from fsd_tune.storage.search_summary import SearchSummary
from tests.helpers import tiny
from tests.helpers.result_folders import write_front


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
    summary, best = SearchSummary(), trials.iloc[0]
    results: Any = SimpleNamespace(folder=tmp_path, trials=trials, metric="accuracy", summary=summary, best=best)
    exported: list[Path] = []
    notes: list[str] = []
    monkeypatch.setattr(best_student, "_export", lambda results, best, student, *_: exported.append(student))

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


def test_the_chosen_student_and_those_of_the_front(tmp_path):
    """Each folder loads with transformers and says which trial it is of; what was picked before is replaced."""
    trials = [
        (2, None, 0.75, "finished"),
        (3, None, 0.8, "finished"),
        (3, None, 0.7, "finished"),
        (4, None, 0.82, "finished"),
    ]
    costs: dict[tuple[int, int | None], float] = {(2, None): 1.0, (3, None): 2.0, (4, None): 3.0}
    folder = write_front(tmp_path / "R", trials, costs, {"pick": "fastest"})
    settings = yaml.safe_load((folder / "settings.yaml").read_text()) | {"data": {"max_length": 64}}
    for number, (layers, *_) in enumerate(trials):
        checkpoint = folder / f"results/trial_{number:04d}/checkpoint_000000"
        tiny.write_teacher(checkpoint / "student", None, layers=layers)
        checkpoints.seal(checkpoint, 10)
    teacher = tiny.write_base(tmp_path / "teacher")
    experiment = ExperimentFolder(folder)
    notes: list[str] = []
    for pick, number, layers in (("fastest", 0, 2), ("best", 3, 4)):
        settings["search"]["pick"] = pick
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
        results = load(folder)
        best = best_student.export_best(results, str(teacher), experiment, notes.append)
        folders = best_student.export_front(results, str(teacher), experiment, notes.append)
        assert best is not None and best.model.config.num_hidden_layers == layers
        assert ModelRecord.read(folder / "best").trial == number
        found = [(path.name, ModelRecord.read(path).trial) for path in folders]
        assert found == [("trial-0000_2-layers", 0), ("trial-0001_3-layers", 1), ("trial-0003_4-layers", 3)]
        assert sorted(path.name for path in (folder / "best/front").iterdir()) == [name for name, _ in found]
        model, tokenizer = (
            kind.from_pretrained(folders[1]) for kind in (AutoModelForSequenceClassification, AutoTokenizer)
        )
        assert model.config.num_hidden_layers == 3 and model(
            **tokenizer("it is", return_tensors="pt")
        ).logits.shape == (1, 2)
        assert json.loads((folders[1] / "fsd_tune.json").read_text())["student"]["layers"] == 3
        assert made_in_search(folders[1]) is None, "this summary has no identity"
    assert notes == []
    shutil.rmtree(folder / "results/trial_0001/checkpoint_000000")
    assert len(best_student.export_front(load(folder), str(teacher), experiment, notes.append)) == 2
    assert len(notes) == 1 and "best/front/ lacks the students of trials 1" in notes[0]
    (folder / "summary.json").write_text(json.dumps({"identity": {}}))
    assert made_in_search(folders[0]) == folder
