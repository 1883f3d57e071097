"""Single runs that are interrupted: the same call continues them and ends with the same model."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fsd_tune.errors import FsdTuneError
from fsd_tune.progress import Display
from fsd_tune.training.api import distill
from fsd_tune.training.teacher import TeacherConfig, fine_tune
from fsd_tune.training.unfinished import unfinished_folder

CONFIG = {
    "learning_rate": 1e-3, "epochs": 4, "batch_size": 8, "warmup_ratio": 0.1, "weight_decay": 0.01,
    "gradient_accumulation": 1,
}  # fmt: skip


class Interrupted(Display):
    """Interrupts the run after some evaluations."""

    def __init__(self, evaluations):
        super().__init__(quiet=True)
        self.left = evaluations
        self.lines = []

    def line(self, text):
        self.lines.append(text)
        if text.startswith("  epoch"):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt


@pytest.fixture
def config(base, glue, tmp_path):
    return TeacherConfig(str(base), "sst2", glue, tmp_path / "t", CONFIG, 32, False, 0, 4, "cpu", "float32")


def same(folder, other):
    weights = [load_file(path / "model.safetensors") for path in (folder, other)]
    assert weights[0].keys() == weights[1].keys()
    return all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def figures(record):
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in record["reports"]]


def test_an_interrupted_teacher_is_continued_to_the_same_model(config, tmp_path):
    with pytest.raises(KeyboardInterrupt) as interruption:
        fine_tune(config, False, Interrupted(2))
    kept = unfinished_folder(config.output)
    note = f"what was trained up to evaluation 2 of 4 is kept in {kept}"
    assert interruption.value.__notes__ == [note] and not config.output.exists()

    # A run of other settings with the same output neither continues it nor deletes it.
    display = Interrupted(100)
    other = fine_tune(replace(config, seed=7), False, display)
    assert not any("continuing" in line for line in display.lines) and len(other["reports"]) == 4
    assert [path.name for path in kept.glob("*/checkpoint_*")] == ["checkpoint_000002"]

    display = Interrupted(100)
    continued = fine_tune(config, True, display)
    assert f"continuing after evaluation 2 of 4: {kept}" in display.lines
    assert len([line for line in display.lines if line.startswith("  epoch")]) == 2
    assert not kept.exists()
    whole = fine_tune(replace(config, output=tmp_path / "whole"), False, Display(quiet=True))
    assert figures(continued) == figures(whole) and same(config.output, tmp_path / "whole")


def test_a_damaged_checkpoint_is_not_continued(config):
    with pytest.raises(KeyboardInterrupt):
        fine_tune(config, False, Interrupted(1))
    state = next(unfinished_folder(config.output).glob("*/checkpoint_*/state.pt"))
    state.write_bytes(state.read_bytes()[:-1])
    display = Interrupted(100)
    assert len(fine_tune(config, False, display)["reports"]) == 4
    assert not any("continuing" in line or "cannot keep" in line for line in display.lines)
    assert not unfinished_folder(config.output).exists()


def test_a_run_that_diverged_leaves_nothing_to_continue(config):
    # A step of 1 with a decay of 10 multiplies the weights by -9.
    too_fast = {"learning_rate": 1.0, "weight_decay": 10.0, "warmup_ratio": 0.0, "epochs": 12}
    diverging = replace(config, config=CONFIG | too_fast, reports=12)
    with pytest.raises(FsdTuneError, match="Training diverged"):
        fine_tune(diverging, False, Display(quiet=True))
    assert not unfinished_folder(config.output).exists() and not config.output.exists()


def test_training_goes_on_when_checkpoints_have_no_room(config, monkeypatch):
    monkeypatch.setattr("fsd_tune.training.unfinished._ROOM", 1e15)
    display = Interrupted(100)
    assert len(fine_tune(config, False, display)["reports"]) == 4
    assert len([line for line in display.lines if "cannot keep the training so far" in line]) == 1


def test_a_student_is_distilled_from_plain_values(teacher, glue, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    settings = {
        "method": "kd", "space": {"epochs": 1, "batch_size": 8}, "student": {"layers": 2}, "data": {"max_length": 32},
        "precision": "float32",
    }  # fmt: skip
    student = distill(settings, task="sst2", teacher=teacher, data=glue, device="cpu")
    assert tmp_path in student.folder.parents and student.config["method"] == "kd"
    assert student.metrics == {"accuracy": student.reports[-1]["accuracy"]} and student["task"] == "sst2"
    model, tokenizer = student.load()
    assert model.config.num_hidden_layers == 2 and tokenizer("a")["input_ids"]
