"""`fsd-tune export`: what the folder holds, that transformers runs it, what the model card says, what is refused."""

import json
import re
import shutil
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import BertForSequenceClassification, BertModel, pipeline

from fsd_tune.cli import main
from fsd_tune.data.splits import get_task
from fsd_tune.deployment import export, model_card, served_files
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.models import onnx
from fsd_tune.models.loading import label_config
from fsd_tune.profiling.latency import Latency
from fsd_tune.profiling.machine import Machine
from fsd_tune.progress import Display
from fsd_tune.settings.methods import METHODS
from tests import ROOT
from tests.helpers import tiny

RECORD = {
    "task": "sst2",
    "metric": "accuracy",
    "score": 0.81,
    "last_report": {"accuracy": 0.8125, "report": 4},
    "trial": 3,
    "trials": 24,
    "config": {"method": "fsd_il", "alpha": 0.25, "gamma_i": 1.5, "learning_rate": 0.000321987},
    "teacher": {"name": "/home/somebody/teachers/big-one", "score": 0.9, "metrics": {"accuracy": 0.9}},
    "seed": 7,
    "examples": 872,
    "train_examples": 1000,
    "select_on": "dev",
    "judge_by": "mean_of_last_3",
    "student": {"layers": 2, "start": "copy"},
    "precision": "float32",
    "max_length": 32,
    "versions": {"torch": "2.13.0"},
}


def write_student(folder, record=RECORD, task="sst2"):
    folder.mkdir(parents=True)
    torch.manual_seed(4)
    model = BertForSequenceClassification(tiny.config(2, **label_config(get_task(task))))
    model.save_pretrained(folder)
    tiny.write_tokenizer(folder)
    if record is not None:
        (folder / "fsd_tune.json").write_text(json.dumps(record))
    return folder


def run(student, output, **more):
    given = {"task": None, "onnx": False, "overwrite": False, "speed": False} | more
    return export.export_student(str(student), output, display=Display(quiet=True), **given)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A student in a search's folder that was confirmed, and what exporting it gave."""
    home = tmp_path_factory.mktemp("home")
    search = home / "R"
    student = write_student(search / "best")
    (search / "summary.json").write_text(json.dumps({"identity": {}}))
    fresh = {"mean": 0.8, "deviation": 0.0123, "scores": {"2001": 0.79, "2002": 0.81}, "failed": []}
    selection = {"mean": 0.81, "deviation": 0.01, "scores": {"1001": 0.81}, "failed": []}
    winner = {"label": "trial 3 (fsd_il)", "role": "winner", "trial": 3, "config": {}, "fresh": fresh}
    winner |= {"search_score": 0.82, "selection": selection}
    other = {"label": "ce", "role": "baseline", "trial": None, "config": {}, "fresh": fresh | {"mean": 0.7}}
    made = {"winner": winner, "configurations": [winner, other], "fresh_seeds": [2001, 2002], "dev_examples": 872}
    made |= {"metric": "accuracy", "selection_seeds": [1001]}
    made["optimism"] = {"search": 0.82, "selection": 0.81, "fresh": 0.8}
    seeds = {"estimate": 0.1, "low": 0.05, "high": 0.15}
    difference = {"baseline": "ce", "verdict": "better beyond noise", "interval": seeds, "pairs": 2, "adjusted_p": 0.01}
    made["differences"] = [difference | {"sequential": False}]
    (search / "confirm").mkdir()
    (search / "confirm" / "summary.json").write_text(json.dumps(made))
    return home, student, home / "E", run(student, home / "E")


def test_transformers_runs_it_with_label_words(exported):
    _, student, folder, made = exported
    assert {"model.safetensors", "config.json", "README.md", "fsd_tune.json", "tokenizer.json"} <= set(made["files"])
    assert sorted(path.name for path in folder.iterdir()) == made["files"]
    text = "the film finds the river"
    found = pipeline("text-classification", model=str(folder), device="cpu")(text, top_k=None)
    model = BertForSequenceClassification.from_pretrained(student).eval()
    tokens = pipeline("text-classification", model=str(student), device="cpu").tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        expected = torch.softmax(model(**tokens).logits[0].double(), -1).tolist()
    assert {one["label"]: one["score"] for one in found} == pytest.approx(
        dict(zip(("negative", "positive"), expected, strict=True)), abs=1e-6
    )


def test_a_regression_gives_its_score_without_a_softmax(tmp_path):
    student = write_student(tmp_path / "student", RECORD | {"task": "stsb", "last_report": {"pearson": 0.5}}, "stsb")
    run(student, tmp_path / "E")
    runs = pipeline("text-classification", model=str(tmp_path / "E"), device="cpu")
    text, pair = "the film finds the river", "a small dog"
    (found,) = [runs({"text": text, "text_pair": pair})]
    model = BertForSequenceClassification.from_pretrained(student).eval()
    with torch.no_grad():
        expected = float(model(**runs.tokenizer(text, pair, return_tensors="pt")).logits)
    found = found[0] if isinstance(found, list) else found
    assert found["label"] == "score" and found["score"] == pytest.approx(expected, abs=1e-6)
    assert not 0 <= expected <= 1 or found["score"] != pytest.approx(float(torch.sigmoid(torch.tensor(expected))))


def test_the_card_is_valid_and_says_what_was_recorded(exported):
    _, _, folder, _ = exported
    card = ModelCard.load(folder / "README.md")
    data = card.data
    assert (data.language, data.datasets, data.metrics, data.pipeline_tag) == (
        "en", ["nyu-mll/glue"], ["accuracy"], "text-classification"
    )  # fmt: skip
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_config) == ("accuracy", 0.8125, "sst2")
    assert (data.model_name, result.dataset_type, result.dataset_split) == ("E", "nyu-mll/glue", "validation")
    for part in (
        "`big-one`", "`fsd_il`, L_KD + beta · (gamma_i · L_I + gamma_l · L_L)", "| alpha | 0.25 |", "0.000321987",
        "| accuracy | 0.8125 |", "872 dev examples", "Seed: 7", "torch 2.13.0", "the best of 24 trials", "0.8100",
        "teacher's accuracy: 0.9000", "2001, 2002", "0.8000 ± 0.0123", "| ce | 0.7000", "max_length=32",
    ):  # fmt: skip
        assert part in card.text, part


def test_nothing_tells_where_it_was_made(exported):
    home, _, folder, _ = exported
    for path in folder.iterdir():
        content = path.read_bytes()
        for secret in (str(home), "somebody", "/home", "/tmp"):
            assert secret.encode() not in content, (path.name, secret)


def test_the_files_stand_alone(exported, tmp_path):
    """Exported again from the export itself, which lies in no search, the recorded figures are still there."""
    again = run(exported[2], tmp_path / "again")
    assert again["metrics"] == {"accuracy": 0.8125} and not again["confirmed"]


def test_what_other_data_scored_is_not_called_glue(tmp_path):
    text = model_card.card("E", get_task("sst2"), RECORD | {"examples": 400}, {}, 2)
    (tmp_path / "README.md").write_text(text)
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.datasets is None and data.eval_results[0].dataset_type == "custom"
    assert "GLUE's own dev split of SST-2 has 872 examples" in text


def test_a_holdout_scores_are_those_of_dev():
    held = RECORD | {"select_on": {"holdout": 0.1}, "examples": 100}
    assert model_card.scores(get_task("sst2"), held) == ({}, None)
    dev = {"score": 0.77, "metrics": {"accuracy": 0.77}, "examples": 872}
    assert model_card.scores(get_task("sst2"), held | {"dev": dev}) == ({"accuracy": 0.77}, 872)
    assert "judged on a part of the training split on 100 examples" in model_card.card(
        "E", get_task("sst2"), held | {"dev": dev}, {}, 2
    )


# ---------------------------------------------------------------- what is refused


def refused(*arguments, **more):
    with pytest.raises(InputError) as error:
        run(*arguments, **more)
    return error.value.problems


def test_every_problem_is_said_at_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "E").mkdir()
    (tmp_path / "E" / "notes.txt").write_text("mine")
    words = ["--student", str(tmp_path / "none/x"), "--output", str(tmp_path / "E"), "--task", "rtee", "--quiet"]
    monkeypatch.setattr(sys, "argv", ["fsd-tune", "export", *words])
    with pytest.raises(SystemExit) as end:
        main.main()
    err = capsys.readouterr().err
    assert end.value.code == 2 and "Traceback" not in err
    for part in ("holds other files", "Did you mean `rte`", "--student: "):
        assert part in err, part
    assert [path.name for path in (tmp_path / "E").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda made: made[:40], "cannot be read"),
        (lambda made: made.replace('"dev_examples": 872', '"dev": 872'), "dev_examples: field required"),
        (
            lambda made: made.replace('"trial": 3', '"trial": 4').replace('"config": {}', '"config": {"a": 1}'),
            "confirms trial 3",
        ),
    ],
    ids=["torn", "a key is missing", "of another student"],
)  # fmt: skip
def test_why_a_confirmation_is_left_out_is_said(exported, tmp_path, damage, said):
    search = shutil.copytree(exported[0] / "R", tmp_path / "R")
    summary = search / "confirm" / "summary.json"
    summary.write_text(damage(summary.read_text()))
    made = run(search / "best", tmp_path / "E")
    assert not made["confirmed"] and made["remark"].startswith(f"{summary}: ") and said in made["remark"]
    assert exported[3]["confirmed"] and exported[3]["remark"] == ""


def test_no_student(tmp_path, teacher, base, exported):
    assert "is a teacher" in refused(teacher, tmp_path / "E", task="sst2")[0]
    assert "has no classification head" in refused(base, tmp_path / "E", task="sst2")[0]
    folder = exported[1].parent
    (folder / "settings.yaml").write_text("")
    assert f"give its student, {folder / 'best'}" in refused(folder, tmp_path / "E", task="sst2")[0]
    # A classifier by name whose weights are an encoder's alone: what `describe` finds before anything is loaded.
    student = write_student(tmp_path / "student")
    config = (student / "config.json").read_text()
    BertModel(tiny.config(2)).save_pretrained(student)
    (student / "config.json").write_text(config)
    assert "has no classification head" in refused(student, tmp_path / "E")[0]
    assert not (tmp_path / "E").exists() and not list(tmp_path.glob(".*"))


def test_the_task_is_the_students(tmp_path, exported):
    student = write_student(tmp_path / "student", record=None)
    assert "records no task" in refused(student, tmp_path / "E")[0]
    assert run(student, tmp_path / "E", task="SST-2")["task"] == "sst2"
    assert "records sst2" in refused(exported[1], tmp_path / "F", task="rte")[0]
    assert "has 2 labels" in refused(student, tmp_path / "F", task="mnli")[0]


def test_what_is_there_is_kept_unless_told_otherwise(tmp_path):
    student = write_student(tmp_path / "student")
    run(student, tmp_path / "E")
    assert "--overwrite" in refused(student, tmp_path / "E")[0]
    (tmp_path / "E" / "stale").write_text("")
    run(student, tmp_path / "E", overwrite=True)
    assert not (tmp_path / "E" / "stale").exists()


# ---------------------------------------------------------------- ONNX


def test_onnx_without_its_packages_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "lacking", lambda: ["onnxscript"])
    (problem,) = refused(write_student(tmp_path / "student"), tmp_path / "E", onnx=True)
    assert problem == "--onnx: needs onnxscript, which are not installed: pip install 'fsd_tune[onnx]'."


def test_int8_needs_onnx_and_the_tasks_data(tmp_path):
    student = write_student(tmp_path / "student")
    without_onnx, without_data = refused(student, tmp_path / "E", int8=True, data=tmp_path / "none")
    assert without_onnx == "--int8: needs --onnx, because it quantises that file." and "none" in without_data
    assert refused(student, tmp_path / "E", max_drop=0.5) == ("--max-drop: needs --int8, whose loss it bounds.",)
    assert not (tmp_path / "E").exists()


def test_int8_that_cannot_hold_the_bound_writes_nothing(tmp_path, glue, monkeypatch):
    def refuse(source, folder, calibration, score, max_drop, display):
        (folder / "dynamic.onnx").write_text("tried")
        raise FsdTuneError(f"no int8 file is within {max_drop}")

    monkeypatch.setattr(onnx, "lacking", list)
    monkeypatch.setattr(served_files, "write_onnx", lambda path, model, names: path.write_text("float") and 0.0)
    monkeypatch.setattr(served_files, "find_int8", refuse)
    with pytest.raises(FsdTuneError, match="no int8 file is within 0\\.25"):
        run(write_student(tmp_path / "student"), tmp_path / "E", onnx=True, int8=True, max_drop=0.25, data=glue)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student"]


def test_the_card_has_size_and_speed(tmp_path, monkeypatch):
    def measured(targets, **_):
        return [[Latency(setting, 1.5, 1.75, 2.0, 100, 0.1) for setting in target.settings] for target in targets]

    monkeypatch.setattr(served_files, "measure_latency", measured)
    monkeypatch.setattr(served_files, "cores", lambda: 2)
    made = run(write_student(tmp_path / "student"), tmp_path / "E", speed=True)
    text = (tmp_path / "E" / "README.md").read_text()
    parameters = made["size_and_speed"]["parameters"]
    size = (tmp_path / "E" / "model.safetensors").stat().st_size / 1e6
    assert f"{parameters:,} parameters" in text and Machine.current().text in text and "of 64 tokens (batch 1)" in text
    assert f"| `model.safetensors` | torch | {size:.1f} | 1.50 / 1.75 | 1.50 / 1.75 |" in text
    assert "| file | runtime | MB | 1 thread | 2 threads |" in text
    plain = run(write_student(tmp_path / "other"), tmp_path / "F")
    assert "| file | runtime | MB |\n" in (tmp_path / "F" / "README.md").read_text()
    assert plain["size_and_speed"]["machine"] is None


def test_every_method_has_its_formula_in_the_card():
    for name, method in METHODS.items():
        record = RECORD | {"config": {"method": name}}
        assert method.formula in model_card.card("E", get_task("sst2"), record, {}, 2)


def test_a_students_own_task_is_asked_for_and_named_in_the_card(tmp_path):
    file = ROOT / "examples" / "own_task" / "my_task.yaml"
    own = get_task(file)
    student = tmp_path / "student"
    student.mkdir()
    torch.manual_seed(4)
    BertForSequenceClassification(tiny.config(2, **label_config(own))).save_pretrained(student)
    tiny.write_tokenizer(student)
    (student / "fsd_tune.json").write_text(json.dumps(RECORD | {"task": own.id}))
    with pytest.raises(InputError, match="--task-file: is missing"):
        run(student, tmp_path / "E")
    made = run(student, tmp_path / "E", task=file)
    text = (tmp_path / "E" / "README.md").read_text()
    assert made["labels"] == list(own.labels) and f"the task {own.id}" in text and "GLUE" not in text


@pytest.mark.parametrize(
    ("teacher", "shown"),
    [
        ("/home/somebody/teachers/big-one", "big-one"),
        ("~/teachers/big-one", "big-one"),
        ("../teachers/big-one", "big-one"),
        ("textattack/bert-base-uncased-RTE", "textattack/bert-base-uncased-RTE"),
    ],
)
def test_a_card_names_the_teacher_without_an_absolute_path(teacher, shown):
    record = RECORD | {"teacher": {"name": teacher, "score": 0.9}, "student": {"start": "copy", "model": "/data/base"}}
    text = model_card.card("E", get_task("sst2"), record, {}, 2)
    assert f"the teacher `{shown}` by fsd_tune" in text
    assert not re.search(r"(^|[^\w:/.])[~/]+\w", text, re.MULTILINE)
