"""The demo as a newcomer runs it: real sentences, a real encoder, the package index."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fsd_tune.cli import demo_run
from fsd_tune.data import demo_input
from fsd_tune.models import onnx
from fsd_tune.report.methods import method_rows
from fsd_tune.report.results import load
from fsd_tune.settings import loader
from tests.helpers import tiny
from tests.helpers.result_folders import write_front


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_and_the_demo_again(tmp_path):
    script = Path(sys.executable).parent / "fsd-tune"
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as temporary:
        command = [script, "demo", "--folder", tmp_path / "demo", "--temp-dir", temporary]
        measured = os.environ | {"FSD_TUNE_LATENCY": "1", "FSD_TUNE_CACHE": str(tmp_path / "cache")}
        first = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False, env=measured)
        assert first.returncode == 0, first.stderr
        for said in ("teacher passes  1 over the training split", "stopping early saved", "report.html", "study.db"):
            assert said in first.stdout, first.stdout
        results = load(tmp_path / "demo" / "search")
        assert len(results.trials) >= 12 and results.summary.memory.passes == 1
        assert "equal reports for each" in first.stdout
        assert "latency: torch on cpu, 1 thread, batch 1, " in first.stdout
        latency = {name: model["p50_ms"] for name, model in (results.summary.models.models or {}).items()}
        assert 0 < latency["student"] < latency["teacher"]
        assert all(row.finished and 0.2 < row.share_of_reports < 0.5 for row in method_rows(results)), first.stdout
        # A majority-class student scores 0.53, the teacher 0.83: the search finds students that have learnt.
        assert results.best is not None and results.best["score"] > 0.7
        assert (results.summary.teacher.score or 0) > 0.78
        again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert "reused" in again.stderr
    assert load(tmp_path / "demo" / "search").trials["score"].equals(results.trials["score"])
    best = tmp_path / "demo" / "search" / "best"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(best), AutoTokenizer.from_pretrained(best)
    texts = ["A wonderful, moving film.", "A dull and pointless waste of time."]
    logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    assert [model.config.id2label[index] for index in logits.argmax(-1).tolist()] == ["positive", "negative"]


def test_the_second_demo_shares_what_the_first_one_made(tmp_path, monkeypatch, fsd_tune):
    """Its steps and what they hand on, with tiny models; search and export themselves have tests of their own."""
    folder = tmp_path / "demo"
    tiny.write_base(folder / "input" / "model")
    base = (folder / "input" / "model").resolve()
    data = demo_input.DemoInput(base, folder / "input" / "data", (1, 2), (1, 2), reused=True)
    done: list[tuple[str, object]] = []
    costs: dict[tuple[int, int | None], float] = {(2, None): 1.0, (3, None): 2.0, (4, None): 3.0}

    def fine_tune(config, **options):
        tiny.write_teacher(config.output, base)
        done.append(("teacher", config.output))

    def run(settings, **inputs):
        done.append(("search", (settings.search.objectives, inputs["teacher"], inputs["memory"], inputs["overwrite"])))
        if not inputs["output"].exists():
            trials = [(2, None, 0.7, "finished"), (3, None, 0.8, "finished"), (4, None, 0.81, "finished")]
            write_front(inputs["output"], trials, costs, {"objectives": ["score", "latency_ms"], "pick": "knee"})
            (inputs["output"] / "settings.yaml").write_text(loader.dump(settings))
        return load(inputs["output"])

    def export_student(student, output, **options):
        done.append(("int8", (student, output, options["onnx"], options["int8"], options["data"])))
        latency = {"threads": 1, "p50_ms": 1.5, "p90_ms": 1.6}
        file = {"file": "model_quantized.onnx", "runtime": "onnxruntime", "size_mb": 18.2, "latency": [latency]}
        return {"size_and_speed": {"files": [file], "int8": None, "machine": "EPYC", "length": 23, "notes": []}}

    monkeypatch.setattr(demo_run, "fetch_input", lambda *_: data)
    monkeypatch.setattr(demo_run, "fine_tune", fine_tune)
    monkeypatch.setattr("fsd_tune.search.api.run", run)
    monkeypatch.setattr(demo_run, "export_student", export_student)
    front = ("score", "latency_ms"), str(folder / "teacher"), folder / "memory", False
    exported = str(folder / "front/best"), folder / "front-int8", True, True, data.data
    code, out, err = fsd_tune("demo", "--front", "--folder", folder)
    assert code == 0, err
    assert done == [("teacher", folder / "teacher"), ("search", front), ("int8", exported)]
    text = "\n".join(out) if isinstance(out, list) else out
    assert "* 3 layers, trial 1" in text and "model_quantized.onnx" in text, "the knee, and the table of the files"
    code, _, err = fsd_tune("demo", "--front", "--folder", folder)
    assert code == 0 and done[3:] == [("search", front), ("int8", exported)], "the teacher is reused"
    monkeypatch.setattr(onnx, "lacking", lambda: ["onnxruntime"])
    code, _, err = fsd_tune("demo", "--front", "--folder", folder)
    assert code == 2 and len(err) == 1 and "--front: needs onnxruntime" in err[0] and "fsd_tune[onnx]" in err[0]
