"""The official files of GLUE, where they are: every row is read, as plain lines say, and `predict` answers every row.

The files are not part of the repository. These tests look for them beside the checkout.
"""

import json
from collections import Counter

import pytest

from fsd_tune.data.splits import get_task, load_split
from fsd_tune.evaluation import glue_submission
from fsd_tune.progress import Display
from tests import ROOT
from tests.helpers import tiny

GLUE = ROOT.parent / "shared" / "glue"
pytestmark = pytest.mark.skipif(not GLUE.is_dir(), reason="the official GLUE files are not in ../shared/glue")

# Task, folder, split and number of examples. MRPC's train.tsv of this download lacks one of the 3,668 pairs.
SPLITS = [
    ("cola", "CoLA", "train", 8551), ("cola", "CoLA", "dev", 1043), ("cola", "CoLA", "test", 1063),
    ("sst2", "SST-2", "train", 67_349), ("sst2", "SST-2", "dev", 872), ("sst2", "SST-2", "test", 1821),
    ("mrpc", "MRPC", "train", 3667), ("mrpc", "MRPC", "dev", 408), ("mrpc", "MRPC", "test", 1725),
    ("stsb", "STS-B", "train", 5749), ("stsb", "STS-B", "dev", 1500), ("stsb", "STS-B", "test", 1379),
    ("qnli", "QNLI", "dev", 5463),
    ("rte", "RTE", "train", 2490), ("rte", "RTE", "dev", 277), ("rte", "RTE", "test", 3000),
    ("wnli", "WNLI", "train", 635), ("wnli", "WNLI", "dev", 71), ("wnli", "WNLI", "test", 146),
]  # fmt: skip
# Columns of the texts and of the label, from 0; CoLA's train and dev have no header.
COLUMNS = {
    "cola": ((3,), 1), "sst2": ((0,), 1), "mrpc": ((3, 4), 0), "stsb": ((7, 8), 9),
    "qnli": ((1, 2), 3), "rte": ((1, 2), 3), "wnli": ((1, 2), 3),
}  # fmt: skip
TEST_COLUMNS = COLUMNS | {"cola": ((1,), None), "sst2": ((1,), None)}
WORDS = {"entailment": 0, "not_entailment": 1}


def plain(path, header=True):
    """The cells of each line of a file."""
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    return [line.rstrip("\r").split("\t") for line in lines[header:] if line]


def examples(split):
    """The texts and the label of each example; None without labels."""
    labels = [None] * len(split) if split.labels is None else split.labels.tolist()
    return list(zip(split.first, split.second or split.first, labels, strict=True))


@pytest.mark.parametrize(("task", "folder", "name", "rows"), SPLITS)
def test_every_row_of_a_file_is_an_example(task, folder, name, rows):
    split = load_split(get_task(task), name, GLUE)
    assert (len(split), split.skipped) == (rows, 0)
    columns, label = TEST_COLUMNS[task] if name == "test" else COLUMNS[task]
    expected = []
    for cells in plain(GLUE / folder / f"{name}.tsv", header=task != "cola" or name == "test"):
        value = None
        if name != "test":
            assert label is not None
            value = WORDS[cells[label]] if cells[label] in WORDS else float(cells[label])
        expected.append((cells[columns[0]], cells[columns[-1]], value))
    found = examples(split)
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    if name != "test":
        assert [row[2] for row in found] == pytest.approx([row[2] for row in expected])
    else:
        assert split.labels is None


def test_both_forms_of_mrpc_give_the_same_examples(tmp_path):
    original = tmp_path / "MRPC"
    original.mkdir()
    for name in ("dev_ids.tsv", "msr_paraphrase_train.txt", "msr_paraphrase_test.txt"):
        (original / name).symlink_to(GLUE / "MRPC" / name)
    task = get_task("mrpc")
    for name in ("train", "dev", "test"):
        tables, texts = (examples(load_split(task, name, data)) for data in (GLUE, tmp_path))
        if name == "test":  # Only the original form has its labels.
            tables, texts = ([row[:2] for row in rows] for rows in (tables, texts))
        lacking = Counter(texts) - Counter(tables)
        assert len(lacking) == (name == "train"), lacking
        assert tables == [row for row in texts if row not in lacking]
    assert len(load_split(task, "train", tmp_path)) == 3668


def test_the_diagnostic_set(tmp_path):
    """It lies beside MNLI's folder, which this download lacks."""
    (tmp_path / "MNLI").mkdir()
    (tmp_path / "diagnostic").symlink_to(GLUE / "diagnostic")
    split = load_split(get_task("mnli"), "ax", tmp_path)
    expected = [(cells[1], cells[2]) for cells in plain(GLUE / "diagnostic" / "diagnostic.tsv")]
    assert [row[:2] for row in examples(split)] == expected and len(split) == 1104


@pytest.mark.slow
def test_predict_answers_every_row_of_the_test_files(tmp_path):
    tasks = ["cola", "sst2", "mrpc", "stsb", "rte", "wnli"]
    students = [tiny.write_teacher(tmp_path / task, None, 1 if task == "stsb" else 2, layers=1) for task in tasks]
    for task, student in zip(tasks, students, strict=True):
        (student / "fsd_tune.json").write_text(json.dumps({"task": task, "max_length": 8}))
    document = glue_submission.write_submission(
        tasks, [str(student) for student in students], data=GLUE, output=tmp_path / "out", device="cpu",
        precision="float32", overwrite=False, zipped=False, display=Display(quiet=True),
    )  # fmt: skip
    folders = {task: folder for task, folder, _, _ in SPLITS}
    for task in tasks:
        rows = plain(tmp_path / "out" / f"{folders[task]}.tsv")
        assert [row[0] for row in rows] == [str(index) for index in range(len(rows))]
        assert len(rows) == len(plain(GLUE / folders[task] / "test.tsv"))
    assert glue_submission.notes(document) == []
