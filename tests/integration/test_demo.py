"""The demo as a newcomer runs it: real sentences, a real encoder, the package index."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fsd_tune.report.methods import method_rows
from fsd_tune.report.results import load


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
