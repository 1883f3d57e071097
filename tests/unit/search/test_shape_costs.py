"""When a search measures its shapes, what its limits leave of them, and what they say."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fsd_tune.data.splits import get_task
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.models import onnx
from fsd_tune.models.loading import read_model_info
from fsd_tune.progress import Display
from fsd_tune.search import shape_costs
from fsd_tune.search.trial_shapes import TrialShapes
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.shape_costs import ShapesSummary
from tests.helpers import result_folders, tiny

COSTS: dict[tuple[int, int | None], float] = {(2, None): 3.0, (3, None): 4.5, (4, None): 9.0}
SHAPES = ShapesSummary.model_validate(result_folders.shapes(COSTS))


def settings(**search):
    student = {"layers": {"choice": [2, 3, 4]}}
    more = {"latency": search.pop("latency")} if "latency" in search else {}
    return Settings.from_dict({"method": "kd", "student": search.pop("student", student), "search": search, **more})


@pytest.fixture
def inputs(tmp_path):
    base = tiny.write_base(tmp_path / "base")
    teacher = read_model_info(str(tiny.write_teacher(tmp_path / "teacher", base)))
    dev = SimpleNamespace(lengths=np.array([4, 9, 30]))
    found: Any = SimpleNamespace(task=get_task("sst2"), teacher=teacher, dev=dev)
    return found


@pytest.fixture
def measured(monkeypatch):
    asked: list[Any] = []

    def measure(students, teacher, task, length, setting, progress):
        asked.append((len(students), length, setting))
        return SHAPES.model_copy(deep=True)

    monkeypatch.setattr(shape_costs, "measure_shapes", measure)
    return asked


@pytest.mark.parametrize(
    ("search", "needed", "is_measured"),
    [
        ({}, set(), True),
        ({"student": {"layers": 3}}, set(), False),
        ({"student": {"layers": 3}, "pick": "fastest"}, set(), False),
        ({"student": {"layers": 3}, "limits": {"size_mb": 3}}, {"size_mb"}, True),
        ({"objectives": ["score", "flops"]}, {"flops"}, True),
        ({"pick": "fastest"}, {"latency_ms"}, True),
        ({"pick": {"within": 1}}, {"latency_ms"}, True),
        ({"pick": "knee", "objectives": ["score", "size_mb"]}, {"size_mb"}, True),
    ],
)
def test_what_a_search_needs_to_know(search, needed, is_measured):
    found = settings(**search)
    assert shape_costs.needed_costs(found) == needed and shape_costs.are_measured(found) == is_measured


def test_latency_is_measured_as_the_settings_say(inputs, measured, monkeypatch):
    monkeypatch.setenv("FSD_TUNE_LATENCY", "1")
    display, nothing = Display(quiet=True), ShapesSummary()
    shape_costs.measured(settings(), inputs, "cpu", nothing, display)
    shape_costs.measured(
        settings(latency={"threads": 2, "batch_size": 8, "length": 40}), inputs, "cpu", nothing, display
    )
    assert measured[0][:2] == (3, 9) and measured[0][2].text == "onnxruntime on cpu, 1 thread, batch 1, 9 tokens"
    assert measured[1][2].text == "onnxruntime on cpu, 2 threads, batch 8, 40 tokens"
    monkeypatch.setenv("FSD_TUNE_LATENCY", "0")
    shape_costs.measured(settings(), inputs, "cpu", nothing, display)
    shape_costs.measured(settings(limits={"latency_ms": 5}), inputs, "cpu", nothing, display)
    assert measured[2][2] is None and measured[3][2] is not None, "a limit needs it whatever the variable says"


def test_a_resumed_search_keeps_its_costs(inputs, measured):
    display = Display(quiet=True)
    assert shape_costs.measured(settings(limits={"latency_ms": 5}), inputs, "cpu", SHAPES, display) is SHAPES
    assert measured == []
    sizes = ShapesSummary.model_validate(SHAPES.as_json())
    for cost in sizes.students or []:
        cost.latency_ms = None
    # `--pick fastest` of a search that has not measured latency.
    shape_costs.measured(settings(pick="fastest"), inputs, "cpu", sizes, display)
    assert len(measured) == 1


def test_without_onnxruntime(inputs, measured, monkeypatch):
    monkeypatch.setattr(onnx, "lacking", lambda: ["onnxruntime"])
    display = Display(quiet=True)
    found = shape_costs.measured(settings(limits={"latency_ms": 5}), inputs, "cpu", ShapesSummary(), display)
    assert measured[0][2].runtime == "torch" and "pip install 'fsd_tune[onnx]'" in (found.notes or [])[0]
    written = settings(limits={"latency_ms": 5}, latency={"runtime": "onnxruntime"})
    with pytest.raises(InputError, match=r"latency\.runtime: found onnxruntime, but onnxruntime .* or must be torch"):
        shape_costs.measured(written, inputs, "cpu", ShapesSummary(), display)
    assert shape_costs.measured(written, inputs, "cpu", SHAPES, display) is SHAPES, "a resumed search measures nothing"
    sizes = settings(limits={"size_mb": 5}, latency={"runtime": "onnxruntime"})
    shape_costs.measured(sizes, inputs, "cpu", ShapesSummary(), display)
    assert measured[-1][2] is None, "nothing asks for latency"


def test_a_length_beyond_the_models(inputs, measured):
    limits, display = {"latency_ms": 5}, Display(quiet=True)
    shape_costs.measured(settings(limits=limits, latency={"length": 64}), inputs, "cpu", ShapesSummary(), display)
    with pytest.raises(InputError) as error:
        shape_costs.measured(settings(limits=limits, latency={"length": 65}), inputs, "cpu", ShapesSummary(), display)
    assert list(error.value.problems) == ["latency.length: found 65, but the models take at most 64."]


def test_a_family_that_cannot_be_exported(inputs, monkeypatch):
    """Only a search that needs latency ends."""

    def measure(students, teacher, task, length, setting, progress):
        if setting is not None:
            raise FsdTuneError("The process that measures latency failed: no export")
        return SHAPES.model_copy(deep=True)

    monkeypatch.setenv("FSD_TUNE_LATENCY", "1")
    monkeypatch.setattr(shape_costs, "measure_shapes", measure)
    display = Display(quiet=True)
    found = shape_costs.measured(settings(), inputs, "cpu", ShapesSummary(), display)
    assert found.notes == ["latency is left out: The process that measures latency failed: no export"]
    with pytest.raises(FsdTuneError) as error:
        shape_costs.measured(settings(limits={"latency_ms": 5}), inputs, "cpu", ShapesSummary(), display)
    assert error.value.hint == "Another runtime may work: --latency-runtime torch"


def test_limits_that_no_shape_meets():
    least = SHAPES.of(2, None)
    assert least is not None
    with pytest.raises(InputError) as error:
        shape_costs.check_limits(settings(limits={"latency_ms": 2, "size_mb": 1.5}), SHAPES)
    assert list(error.value.problems) == [
        "search.limits.latency_ms: found 2, but must be at least 3, which the fastest shape of the student has: 2 "
        "layers (onnxruntime on cpu, 1 thread, batch 1, 23 tokens; EPYC, 2 cores).",
        f"search.limits.size_mb: found 1.5, but must be at least {least.size_mb:.4g}, which the smallest shape of the "
        "student has: 2 layers.",
    ]
    crossed = ShapesSummary.model_validate(SHAPES.as_json())
    assert crossed.students is not None
    crossed.students[0].latency_ms = 20.0
    with pytest.raises(InputError, match="no shape of the student meets all of them; the nearest, 3 layers, has"):
        shape_costs.check_limits(settings(limits={"latency_ms": 5, "size_mb": 3}), crossed)


def test_limits_that_some_shapes_meet():
    (note,) = shape_costs.check_limits(settings(limits={"latency_ms": 4.5}), SHAPES)
    assert note == "search.limits leaves out 1 of 3 shapes of the student: 4 layers (latency_ms 9)."
    assert shape_costs.check_limits(settings(limits={"latency_ms": 9}), SHAPES) == []


def test_operations_that_cannot_be_counted():
    uncounted = ShapesSummary.model_validate(SHAPES.as_json())
    for cost in uncounted.students or []:
        cost.flops = None
    with pytest.raises(
        InputError, match=r"search.objectives: flops cannot be counted .* latency_ms, parameters, size_mb"
    ):
        shape_costs.check_limits(settings(objectives=["score", "flops"]), uncounted)
    assert shape_costs.check_limits(settings(), uncounted) == []


def test_trials_as_points():
    several = TrialShapes(settings(objectives=["score", "size_mb"]), SHAPES)
    cost = SHAPES.of(3, None)
    assert cost is not None
    assert several.point(0.8, {"layers": 3}) == (0.8, -cost.size_mb)
    assert several.text({"layers": 3}) == f"{cost.size_mb:.3g} MB"
    assert several.costs({"layers": 3, "alpha": 0.5}) == cost.costs
    alone = TrialShapes(settings(student={"layers": 3}), ShapesSummary())
    assert alone.point(0.8, {}) == (0.8,) and alone.text({}) == "" and alone.costs({}) == {}


def test_the_table_of_shapes():
    lines = shape_costs.table_lines(SHAPES)
    assert [line.split()[0] for line in lines] == ["shape", "2", "3", "4", "teacher", "latency:"]
    assert "p50 ms" in lines[0] and lines[1].split()[2] == "3"
