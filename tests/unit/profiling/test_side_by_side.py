"""A student beside its teacher: what `evaluate --teacher` and the end of a search show."""

import json

import pytest

from fsd_tune.profiling import side_by_side
from fsd_tune.profiling.latency import Latency, Setting
from fsd_tune.profiling.machine import Machine
from fsd_tune.profiling.table import side_by_side_lines
from fsd_tune.report import summary
from fsd_tune.report.results import load
from tests.helpers import result_folders, tiny


@pytest.fixture
def measured(monkeypatch):
    """Latency without a process: the teacher takes twice as long. The settings that were asked for are kept."""
    asked: list[tuple[Setting, ...]] = []

    def measure(targets, **_):
        asked.extend(target.settings for target in targets)
        return [
            [Latency(target.settings[0], 1.5 * target.config.num_hidden_layers, 7.0, 8.0, 100, 0.05)]
            for target in targets
        ]

    monkeypatch.setattr(side_by_side, "measure_latency", measure)
    monkeypatch.setenv(side_by_side.SWITCH, "1")
    return asked


def models(tmp_path):
    for name, layers in (("student", 2), ("teacher", 4)):
        tiny.write_teacher(tmp_path / name, None, layers=layers)
    return {name: (tiny.config(layers), tmp_path / name) for name, layers in (("student", 2), ("teacher", 4))}


def test_both_are_measured_at_one_setting(measured, tmp_path):
    found = side_by_side.compare_models(models(tmp_path), 12, "cuda")
    assert len(set(measured)) == 1
    (setting,) = measured[0]
    assert (setting.runtime, setting.device, setting.threads, setting.batch, setting.length) == (
        "torch",
        "cpu",
        1,
        1,
        12,
    )
    header, student, teacher, latency = side_by_side_lines(found, "accuracy", {"student": 0.75})
    assert header.split() == ["model", "accuracy", "parameters", "MB", "MFLOPs", "p50", "ms", "p90", "ms"]
    assert student.split()[:2] == ["student", "0.7500"] and student.split()[-2:] == ["3", "7"]
    assert teacher.split()[:2] == ["teacher", "-"] and teacher.split()[-2:] == ["6", "7"]
    assert latency == f"latency: torch on cpu, 1 thread, batch 1, 12 tokens; {Machine.current().text}"


def test_latency_can_be_switched_off(measured, monkeypatch, tmp_path):
    monkeypatch.setenv(side_by_side.SWITCH, "0")
    found = side_by_side.compare_models(models(tmp_path), 12)
    assert measured == [] and found["machine"] is None
    header, student, _ = side_by_side_lines(found, "accuracy", {})
    assert header.split() == ["model", "accuracy", "parameters", "MB", "MFLOPs"] and len(student.split()) == 5


def test_evaluate_shows_student_and_teacher(measured, tmp_path, glue, fsd_tune):
    models(tmp_path)
    words = ["evaluate", "--student", tmp_path / "student", "--task", "sst2", "--data", glue, "--quiet"]
    code, out, _ = fsd_tune(*words, "--teacher", tmp_path / "teacher", "--json")
    document = json.loads(out)
    alone = json.loads(fsd_tune(*words, "--json")[1])
    teacher = json.loads(fsd_tune("evaluate", "--student", tmp_path / "teacher", *words[3:], "--json")[1])
    scores = document["side_by_side"]["scores"]
    assert scores == {"student": alone["splits"]["dev"], "teacher": teacher["splits"]["dev"]}
    assert {name: value for name, value in document.items() if name != "side_by_side"} == alone
    code, out, _ = fsd_tune(*words, "--teacher", tmp_path / "teacher")
    assert code == 0 and f"teacher    {scores['teacher']['accuracy']:.4f}" in out and "latency: torch" in out
    code, _, err = fsd_tune(*words, "--teacher", tmp_path / "none")
    assert code == 2 and err[0].startswith("error: --teacher: ")


def test_the_end_of_a_search_has_the_table(measured, tmp_path):
    document = side_by_side.compare_models(models(tmp_path), 12)
    results = load(result_folders.write_search(tmp_path / "R", trials=4, study=False, models=document))
    lines = [line.split() for line in summary.summary_lines(results)]
    assert results.best is not None
    assert ["student", f"{results.best['score']:.4f}"] in [line[:2] for line in lines]
    assert ["teacher", "0.8320"] in [line[:2] for line in lines]
    assert summary.summary_document(results)["models"] == json.loads(json.dumps(document))
