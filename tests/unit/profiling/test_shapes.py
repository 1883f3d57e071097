"""The costs of shapes: sizes are those of built students, and each different shape is measured once."""

import pytest

from fsd_tune.data.splits import get_task
from fsd_tune.models.loading import read_model_info
from fsd_tune.models.student_init import build_student, student_config
from fsd_tune.profiling import shapes
from fsd_tune.profiling.cost import cost_of
from fsd_tune.profiling.latency import Latency, Setting
from fsd_tune.profiling.machine import Machine
from fsd_tune.settings.schema import Student
from tests.helpers import tiny

SETTING = Setting("onnxruntime", length=9)


@pytest.fixture
def teacher(tmp_path):
    base = tiny.write_base(tmp_path / "base")
    return read_model_info(str(tiny.write_teacher(tmp_path / "teacher", base)))


@pytest.fixture
def measured(monkeypatch):
    """Latency without a process: a millisecond for each layer and 16 units of width. The targets are kept."""
    asked: list[list[object]] = []

    def measure(targets, *, seconds, progress):
        asked.append(list(targets))
        times = [target.config.num_hidden_layers * target.config.hidden_size / 16 for target in targets]
        spreads = [0.5 if time == 3 else 0.1 for time in times]
        return [
            [Latency(target.settings[0], time, time, time, 100, spread)]
            for target, time, spread in zip(targets, times, spreads, strict=True)
        ]

    monkeypatch.setattr(shapes, "measure_latency", measure)
    return asked


def students(*values):
    return [Student(layers=layers, start=start, hidden_size=width) for layers, start, width in values]


def test_sizes_are_those_of_built_students(teacher, measured):
    task = get_task("sst2")
    asked = students((2, "copy", None), (2, "teacher", None), (3, "random", 8), (1, "random", None))
    found = shapes.measure_shapes(asked, teacher, task, 9, SETTING)
    assert [cost.key for cost in found.students or []] == [(1, None), (2, None), (3, 8)]
    for student in asked:
        model = build_student(student, teacher, task, seed=0)
        cost = found.of(student.layers, student.hidden_size)
        assert cost is not None
        assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert cost.size_mb == pytest.approx(4e-6 * cost.parameters) and cost.width == model.config.hidden_size
        assert cost.flops == cost_of(model.config, (9,)).flops[9]
        assert cost.latency_ms == student.layers * model.config.hidden_size / 16
    assert found.teacher is not None and (found.teacher.layers, found.teacher.latency_ms) == (4, 4)
    # Students of two layers are one shape.
    assert [len(targets) for targets in measured] == [4]
    assert found.conditions == f"onnxruntime on cpu, 1 thread, batch 1, 9 tokens; {Machine.current().text}"
    assert found.notes == []
    assert found == type(found).model_validate(found.as_json()), "it is stored in summary.json"


def test_a_busy_machine_is_noted_and_latency_can_be_left_out(teacher, measured):
    task = get_task("sst2")
    asked = students((2, "copy", None), (3, "copy", None))
    busy = shapes.measure_shapes(asked, teacher, task, 9, SETTING)
    assert len(busy.notes or []) == 1 and "1 of 3 latencies vary by more than 20%" in (busy.notes or [])[0]
    without = shapes.measure_shapes(asked, teacher, task, 9, None)
    assert len(measured) == 1 and without.conditions == "" and "latency_ms" not in (without.students or [])[0].costs


def test_of_one_shape_the_largest_cost_counts(teacher, measured, monkeypatch):
    """Students that start from different models can have different vocabularies."""

    def config(student, *others):
        found = student_config(student, *others)
        found.vocab_size += 100 * (student.start == "random")
        return found

    monkeypatch.setattr(shapes, "student_config", config)
    asked = students((2, "copy", None), (2, "random", None))
    found = shapes.measure_shapes(asked, teacher, get_task("sst2"), 9, SETTING)
    (cost,) = found.students or []
    smaller = cost_of(student_config(asked[0], teacher, get_task("sst2")), (9,))
    assert cost.parameters == smaller.parameters + 100 * tiny.HIDDEN
