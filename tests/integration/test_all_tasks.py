"""Every task through every verb, from the official layout to the benchmark's files, on one Ray session."""

import json
import re
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, pipeline

from fsd_tune.report.results import load
from tests.helpers import glue_folders
from tests.helpers.searching import SPACE, agree

TEST_ROWS = 6
# The benchmark's file names and words by hand, as in test_predict.py; a score where there are no words.
FILES = {
    "cola": (["CoLA.tsv"], {"0", "1"}),
    "sst2": (["SST-2.tsv"], {"0", "1"}),
    "mrpc": (["MRPC.tsv"], {"0", "1"}),
    "qqp": (["QQP.tsv"], {"0", "1"}),
    "stsb": (["STS-B.tsv"], None),
    "mnli": (["AX.tsv", "MNLI-m.tsv", "MNLI-mm.tsv"], {"entailment", "neutral", "contradiction"}),
    "qnli": (["QNLI.tsv"], {"entailment", "not_entailment"}),
    "rte": (["RTE.tsv"], {"entailment", "not_entailment"}),
    "wnli": (["WNLI.tsv"], {"0", "1"}),
}
# A search is the same for all tasks but for the metric: one of each kind is enough. The others train one student.
SEARCHED = ("cola", "mrpc", "stsb", "mnli")
METRICS = {"cola": "matthews_correlation", "mrpc": "f1", "qqp": "f1", "stsb": "pearson"}


@pytest.fixture(scope="module")
def world(tmp_path_factory, base):
    root = tmp_path_factory.mktemp("tasks")
    glue_folders.write_glue(root / "glue", train=24, dev=16, test=TEST_ROWS)
    (root / "space.yaml").write_text(SPACE, encoding="utf-8")
    return root, base


@pytest.mark.slow
@pytest.mark.parametrize("task", FILES)
def test_a_task_through_the_verbs(fsd_tune, ray_session, world, task):
    """Teacher, memory, a search of three trials or one student, evaluation and predictions, as typed."""
    root, base = world
    data, teacher, folder = ("--task", task, "--data", root / "glue"), root / "teachers" / task, root / "runs" / task

    def run(*words):
        code, out, err = fsd_tune(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    made = run(
        "teacher", *data, "--model", base, "--output", teacher, "--epochs=1", "--batch-size=8", "--max-length=32",
        "--precision=float32", "--quiet",
    )  # fmt: skip
    metric = METRICS.get(task, "accuracy")
    assert made["metric"] == metric and made["base"] == str(base)
    memories = ("--memory", root / "memory")
    built = run("memory", root / "space.yaml", *data, "--teacher", teacher, *memories, "--quiet")
    assert built["passes"] == 1 and built["teacher"][metric] == pytest.approx(made["score"], abs=1e-6)
    paid = (root / "memory" / "passes.jsonl").read_text()
    inputs = (root / "space.yaml", *data, "--teacher", teacher, *memories, "--epochs=1", "--asha-reports=2", "--quiet")
    if task in SEARCHED:
        found = run("search", *inputs, "--output", folder, "--trials=3", "--max-concurrent=1")
        assert found["teacher_passes"] == 0, "the memory's pass is the only one"
        assert found["metric"] == metric and found["state"] == "done" and sum(
            found["trials"][state] for state in ("finished", "stopped")
        ) == 3  # fmt: skip
        results = load(folder)
        assert results.problems == ()
        agree(results)
        best = results.best
        assert best is not None and best["number"] == found["best"]["trial"]
        # A score is the mean of the last reports; the student is that of the last one.
        last = best["last"]
    else:
        fixed = ("--method=fsd_ilg", "--alpha=0.5", "--temperature=2", "--gamma-i=1", "--learning-rate=1e-3")
        found = run("distill", *inputs, *fixed, "--output", folder / "best")
        assert found["metric"] == metric
        last = found["reports"][-1][metric]
    assert (root / "memory" / "passes.jsonl").read_text() == paid

    student = AutoModelForSequenceClassification.from_pretrained(folder / "best")
    words = FILES[task][1]
    assert student.config.num_hidden_layers == 2 and student.config.num_labels == (1 if words is None else len(words))
    said = pipeline("text-classification", model=str(folder / "best"), device="cpu")("the film finds a letter bright")
    assert task == "stsb" or said[0]["label"] in student.config.label2id
    scores = run("evaluate", *data, "--student", folder / "best")["splits"]
    assert scores["dev"][metric] == pytest.approx(last, abs=1e-6)
    assert ("dev_mismatched" in scores) == (task == "mnli")

    made = run("predict", *data, "--student", folder / "best", "--output", root / "submission", "--quiet")
    names = FILES[task][0]
    assert sorted(made["files"]) == names
    for name in names:
        header, *rows = (root / "submission" / name).read_text().splitlines()
        assert header == "index\tprediction" and len(rows) == TEST_ROWS
        for index, row in enumerate(rows):
            number, word = row.split("\t")
            assert number == str(index)
            assert word in words if words else re.fullmatch(r"[0-5]\.\d{3}", word) and float(word) <= 5


@pytest.mark.slow
def test_the_set_of_all_tasks(fsd_tune, world):
    """After the nine: nothing is predicted again, and the set is complete."""
    root, _ = world
    code, out, err = fsd_tune(
        "predict", "--all", "--student", root / "runs/{task}/best", "--data", root / "glue",
        "--output", root / "submission", "--json",
    )  # fmt: skip
    assert code == 0, err
    made = json.loads(out)
    assert made["missing"] == [] and not any(facts["new"] for facts in made["files"].values())
    assert sorted(made["files"]) == sorted(name for names, _ in FILES.values() for name in names)
    assert made["zip"] == str(root / "submission" / "submission.zip") and Path(made["zip"]).is_file()
