"""`fsd-tune predict`: every file against predictions made one example at a time with transformers alone."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fsd_tune.data.splits import get_task
from fsd_tune.evaluation.glue_submission import predictions
from tests.helpers import glue_folders, tiny

# The benchmark's files, written out by hand: (task, split, words in the order of the hub's labels).
ENTAILMENT = ("entailment", "not_entailment")
OFFICIAL = {
    "CoLA.tsv": ("cola", "test", ("0", "1")),
    "SST-2.tsv": ("sst2", "test", ("0", "1")),
    "MRPC.tsv": ("mrpc", "test", ("0", "1")),
    "QQP.tsv": ("qqp", "test", ("0", "1")),
    "STS-B.tsv": ("stsb", "test", None),
    "MNLI-m.tsv": ("mnli", "test", ("entailment", "neutral", "contradiction")),
    "MNLI-mm.tsv": ("mnli", "test_mismatched", ("entailment", "neutral", "contradiction")),
    "QNLI.tsv": ("qnli", "test", ENTAILMENT),
    "RTE.tsv": ("rte", "test", ENTAILMENT),
    "WNLI.tsv": ("wnli", "test", ("0", "1")),
    "AX.tsv": ("mnli", "ax", ("entailment", "neutral", "contradiction")),
}
SINGLE = ("cola", "sst2")
ROWS = 14
LENGTH = 32


def logits_one_by_one(folder, expected, single, length=LENGTH):
    """Logits [N, C] of a model's folder, each example by itself in float64."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for first, second in zip(expected.first, expected.second, strict=True):
        inputs = tokenizer(first, None if single else second, truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            found.append(model(**inputs).logits[0].numpy())
    return np.stack(found)


def wanted(logits, words):
    lines = [f"{min(max(row[0], 0), 5):.3f}" for row in logits] if words is None else []
    lines = lines or [words[list(row).index(max(row))] for row in logits]
    return "index\tprediction\n" + "".join(f"{index}\t{line}\n" for index, line in enumerate(lines))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The nine tasks, and for each a student that does not say the same of every example."""
    root = tmp_path_factory.mktemp("predict")
    expected = glue_folders.write_glue(root / "glue", train=8, dev=8, test=ROWS)
    base = tiny.write_base(root / "base", layers=2)
    for number, (task, labels) in enumerate(glue_folders.LABELS.items()):
        more = {"problem_type": "regression"} if task == "stsb" else {}
        count = 1 if task == "stsb" else len(labels)
        folder = tiny.write_teacher(root / "students" / task, base, count, layers=2, seed=number, **more)
        centred = -logits_one_by_one(folder, expected[task, "test"], task in SINGLE).mean(0)
        change(folder, lambda weights, by=centred: weights["classifier.bias"].add_(torch.tensor(by)))
        if task == "stsb":
            change(folder, lambda weights: [weights[f"classifier.{name}"].mul_(40) for name in ("weight", "bias")])
        (folder / "fsd_tune.json").write_text(json.dumps({"task": task, "max_length": LENGTH, "precision": "float32"}))
    return root, expected


def change(folder, how):
    weights = load_file(folder / "model.safetensors")
    how(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def arguments(root, output, task=None, student=None):
    which = ("--all",) if task is None else ("--task", task)
    student = student or root / "students" / "{task}"
    return ("predict", *which, "--student", student, "--data", root / "glue", "--output", output)


def test_every_file_and_the_zip(fsd_tune, world, tmp_path):
    root, expected = world
    code, out, err = fsd_tune(*arguments(root, tmp_path / "out"), "--json")
    assert code == 0, err
    made = json.loads(out)
    assert sorted(made["files"]) == sorted(OFFICIAL) and made["missing"] == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [*OFFICIAL, "submission.zip", "fsd_tune.json"]
    )
    with zipfile.ZipFile(tmp_path / "out" / "submission.zip") as archive:
        assert sorted(archive.namelist()) == sorted(OFFICIAL)
        packed = {name: archive.read(name).decode() for name in OFFICIAL}
    for name, (task, split, words) in OFFICIAL.items():
        text = (tmp_path / "out" / name).read_text()
        logits = logits_one_by_one(root / "students" / task, expected[task, split], task in SINGLE)
        assert len(text.splitlines()) == ROWS + 1 and packed[name] == text
        if words is not None:
            assert text == wanted(logits, words), name
            assert len(set(text.split()[3::2])) > 1, f"{name}: a student that says the same of all proves nothing"
            continue
        header, *rows = text.splitlines()
        assert header == "index\tprediction" and [row.split("\t")[0] for row in rows] == list(map(str, range(ROWS)))
        scores = [float(row.split("\t")[1]) for row in rows]
        assert np.allclose(scores, np.clip(logits[:, 0], 0, 5), atol=0.0006, rtol=1e-5)
        assert min(scores) == 0 and any(0 < score < 5 for score in scores)
    (note,) = [line for line in err if line.startswith("note:")]
    assert "CoLA.tsv has 14 rows, but the benchmark's server expects 1,063" in note


def test_scores_are_clipped():
    logits = np.array([[-1.0], [-0.0001], [2.34567], [5.5], [-0.0]], np.float32)
    assert predictions(get_task("stsb"), logits) == ["0.000", "0.000", "2.346", "5.000", "0.000"]


def test_labels_in_another_order_give_the_same_file(fsd_tune, world, tmp_path):
    """A student's own label words decide: heads in the order contradiction, entailment, neutral."""
    root, _ = world
    other = tmp_path / "permuted"
    shutil.copytree(root / "students" / "mnli", other)
    order = [2, 0, 1]
    change(other, lambda weights: weights.update({k: v[order] for k, v in weights.items() if k.startswith("classi")}))
    config = json.loads((other / "config.json").read_text())
    words = ["contradiction", "entailment", "neutral"]
    config |= {"id2label": dict(enumerate(words)), "label2id": {word: index for index, word in enumerate(words)}}
    (other / "config.json").write_text(json.dumps(config))
    assert fsd_tune(*arguments(root, tmp_path / "a", "mnli"))[0] == 0
    assert fsd_tune(*arguments(root, tmp_path / "b", "mnli", other))[0] == 0
    for name in ("MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not (tmp_path / "a" / "submission.zip").exists(), "one task is no set"


def test_the_recorded_length_and_precision_hold(fsd_tune, world, tmp_path):
    """Those that the student was trained with, for predict and evaluate alike."""
    root, expected = world
    short = tmp_path / "short"
    shutil.copytree(root / "students" / "rte", short)
    (short / "fsd_tune.json").write_text(json.dumps({"task": "qnli", "max_length": 9, "precision": "bf16"}))
    code, out, err = fsd_tune(*arguments(root, tmp_path / "out", "rte", short), "--precision", "float32")
    assert code == 0 and out == f"{tmp_path}/out/RTE.tsv: 14 rows (float32)\n"
    assert f"note: {short} was made for qnli, not for rte." in err
    text = (tmp_path / "out" / "RTE.tsv").read_text()
    by_length = {n: wanted(logits_one_by_one(short, expected["rte", "test"], False, n), ENTAILMENT) for n in (9, 32)}
    assert text == by_length[9] != by_length[32]
    code, out, _ = fsd_tune(*arguments(root, tmp_path / "bf16", "rte", short), "--json")
    assert json.loads(out)["files"]["RTE.tsv"]["precision"] == "bf16"
    code, out, _ = fsd_tune("evaluate", "--student", short, "--task", "rte", "--data", root / "glue", "--json")
    assert json.loads(out)["precision"] == "bf16"


def test_some_students_and_no_diagnostic_set(fsd_tune, world, tmp_path):
    root, _ = world
    shutil.copytree(root / "glue" / "MNLI", tmp_path / "glue" / "MNLI")
    shutil.copytree(root / "glue" / "RTE", tmp_path / "glue" / "RTE")
    for task in ("mnli", "rte"):
        shutil.copytree(root / "students" / task, tmp_path / "students" / task)
    code, out, err = fsd_tune(*arguments(tmp_path, tmp_path / "out"))
    assert code == 0, err
    assert [line.split(":")[0].rpartition("/")[2] for line in out.splitlines()] == [
        "MNLI-m.tsv", "MNLI-mm.tsv", "RTE.tsv", "submission.zip",
    ]  # fmt: skip
    notes = [line for line in err if line.startswith("note:")]
    assert notes[0] == "note: no student exists for cola, sst2, mrpc, qqp, stsb, qnli, wnli."
    assert notes[1].startswith("note: no AX.tsv: ") and "diagnostic" in notes[1]
    assert notes[3].startswith("note: submission.zip lacks CoLA.tsv, ") and " AX.tsv, " in notes[3]
    (tmp_path / "glue" / "AX").mkdir()
    (tmp_path / "glue" / "AX" / "AX.tsv").write_text("index\tsentence1\n0\ta\n")
    code, out, err = fsd_tune(*arguments(tmp_path, tmp_path / "out"))
    assert code == 2 and out == "" and err[-1].startswith(f"error: {tmp_path}/glue/AX/AX.tsv:1: the header has")


def test_what_is_there_is_not_made_again_nor_replaced(fsd_tune, world, tmp_path):
    root, _ = world
    output = tmp_path / "out"
    assert fsd_tune(*arguments(root, output, "rte"))[0] == 0
    before = (output / "RTE.tsv").stat().st_mtime_ns
    # Another task goes beside it, and the set is packed.
    code, out, _ = fsd_tune(*arguments(root, output, "rte,wnli"), "--quiet")
    assert code == 0 and out.splitlines()[0] == f"{output}/RTE.tsv: 14 rows (float32), there already"
    assert (output / "RTE.tsv").stat().st_mtime_ns == before
    packed = (output / "submission.zip").read_bytes()
    other = (*arguments(root, output, "rte", root / "students" / "qnli"), "--quiet")
    code, out, err = fsd_tune(*other)
    assert code == 2 and out == "" and err[-1].startswith(f"error: --output: {output} holds RTE.tsv of another student")
    assert (output / "submission.zip").read_bytes() == packed and (output / "RTE.tsv").stat().st_mtime_ns == before
    assert fsd_tune(*other, "--overwrite")[0] == 0
    assert (output / "submission.zip").read_bytes() != packed, "the set follows its files"
    # A file that somebody has changed is not ours any more.
    (output / "WNLI.tsv").write_text("index\tprediction\n")
    assert fsd_tune(*arguments(root, output, "wnli"))[0] == 2
    (output / "letter.txt").write_text("dear")
    code, _, err = fsd_tune(*arguments(root, output, "wnli"), "--overwrite")
    assert code == 2 and err == [f"error: --output: {output} holds other files (letter.txt); give a new folder."]
    assert (output / "WNLI.tsv").read_text() == "index\tprediction\n"


def test_a_test_split_with_holes_is_refused(fsd_tune, world, tmp_path):
    """The reader skips such rows of QQP; here each index needs its prediction."""
    root, _ = world
    shutil.copytree(root / "glue" / "QQP", tmp_path / "QQP")
    with (tmp_path / "QQP" / "test.tsv").open("a") as stream:
        stream.write("14\tonly one\n")
    words = arguments(root, tmp_path / "out", "qqp")
    code, out, err = fsd_tune(*(tmp_path if word == root / "glue" else word for word in words))
    assert code == 2 and out == "" and "test.tsv: 1 rows have missing columns" in err[-1]
    assert not (tmp_path / "out").exists()


def test_a_student_that_has_diverged(fsd_tune, world, tmp_path):
    root, _ = world
    shutil.copytree(root / "students" / "cola", tmp_path / "nan")
    change(tmp_path / "nan", lambda weights: weights["classifier.bias"].fill_(float("nan")))
    code, out, err = fsd_tune(*arguments(root, tmp_path / "out", "cola", tmp_path / "nan"), "--quiet")
    assert code == 2 and out == ""
    assert err == [
        f"error: --student: {tmp_path}/nan gives logits that are not finite for 14 of 14 examples of "
        f"{root}/glue/CoLA/test.tsv in float32; it has diverged in training."
    ]
    assert not (tmp_path / "out").exists()
