"""Latency: percentiles, what is measured again, and what the cache keeps."""

import json

import pytest

from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.models import onnx
from fsd_tune.profiling import api, latency, machine, process, table
from fsd_tune.profiling.latency import Latency, Setting, Target, measure_latency, noise_warnings
from fsd_tune.python_command import python
from tests.helpers import tiny

SETTING = Setting("torch", length=8)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FSD_TUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def answered(monkeypatch):
    """Instead of the child process: each request is kept, and each setting takes `spread[0]`."""
    requests, spread = [], [0.1]

    def ask(document, progress):
        requests.append(document)
        return [
            {
                "target": index,
                "setting": number,
                "latency": Latency(Setting(**setting), 2.0, 2.1, 2.4, 100, spread[0]).as_json(),
            }
            for index, target in enumerate(document["targets"])
            for number, setting in enumerate(target["settings"])
        ]

    monkeypatch.setattr(latency, "_ask", ask)
    return requests, spread


def timed(monkeypatch, milliseconds, runs, seconds=1e9):
    """The latency of runs that take the given times, after the warm-up's."""
    now = [0.0]
    times = iter([*[1.0] * process._WARM_UP_RUNS, *milliseconds])
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def run():
        now[0] += next(times) / 1e3

    return process.measure(SETTING, run, runs, seconds)


def test_percentiles_are_those_of_the_timed_runs(monkeypatch):
    found = timed(monkeypatch, [*range(1, 100), 1000], 100)
    assert (found.p50_ms, found.runs) == (50.5, 100)
    assert found.p90_ms == pytest.approx(90.1) and 99 < found.p99_ms < 1000
    assert found.spread == pytest.approx((90.1 - 10.9) / 50.5, abs=1e-3) and found.is_noisy
    assert not timed(monkeypatch, [10.0] * 99 + [50.0], 100).is_noisy, "one slow run in a hundred is no busy machine"


def test_slow_models_are_run_less_often_and_say_so(monkeypatch):
    found = timed(monkeypatch, [1000.0] * 100, 100, seconds=3)
    assert (found.runs, found.p50_ms, found.p90_ms, found.p99_ms) == (5, 1000, None, None)
    assert timed(monkeypatch, [100.0] * 100, 100, seconds=2).p90_ms == 100


def test_what_a_machine_has_measured_is_kept_by_shape(answered):
    requests, _ = answered
    config = tiny.config(2)
    first = measure_latency([Target(config, (SETTING,))])
    again = measure_latency([Target(tiny.config(2, id2label={0: "no", 1: "yes"}), (SETTING,))])
    assert len(requests) == 1 and first == again
    longer = Setting("torch", length=9)
    ((_, found),) = measure_latency([Target(config, (SETTING, longer))])
    assert [target["settings"][0]["length"] for target in requests[1]["targets"]] == [9] and found.setting == longer
    measure_latency([Target(tiny.config(3), (SETTING,))])
    measure_latency([Target(config, (SETTING,))], again=True)
    assert len(requests) == 4
    measure_latency([Target(config, (SETTING,))], runs=1000)
    assert len(requests) == 5, "a short measurement does not stand for a long one"


def test_an_int8_file_is_known_by_its_content_and_a_float_file_by_its_shape(answered, tmp_path):
    requests, _ = answered
    setting = (Setting("onnxruntime", length=8),)
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    first.write_text("a")
    second.write_text("b")
    config = tiny.config(2)
    measure_latency([Target(config, setting, onnx=first), Target(config, setting, onnx=first, quantised=True)])
    measure_latency([Target(config, setting, onnx=second), Target(config, setting, onnx=second, quantised=True)])
    assert [len(request["targets"]) for request in requests] == [2, 1]


def test_a_busy_machine_is_warned_of_and_not_kept(answered):
    requests, spread = answered
    spread[0] = 0.45
    target = Target(tiny.config(2), (SETTING,))
    ((found,),) = measure_latency([target])
    (warning,) = noise_warnings([found])
    assert "1 of 1" in warning and "45%" in warning and machine.Machine.current().text in warning
    measure_latency([target])
    spread[0] = 0.1
    ((found,),) = measure_latency([target])
    assert len(requests) == 3 and noise_warnings([found]) == []
    measure_latency([target])
    assert len(requests) == 3


def test_a_damaged_cache_is_measured_again(answered, tmp_path):
    target = Target(tiny.config(2), (SETTING,))
    expected = measure_latency([target])
    (file,) = (tmp_path / "cache" / "latency").iterdir()
    assert json.loads(file.read_text())["machine"]["cores"] == machine.cores()
    (key,) = json.loads(file.read_text())["latencies"]
    for content in ("{", '{"latencies": 3}', json.dumps({"latencies": {key: {"p50_ms": 1}}})):
        file.write_text(content)
        assert measure_latency([target]) == expected


def test_a_noisy_result_is_measured_twice(monkeypatch):
    """The steadier one counts."""
    spreads = iter([0.5, 0.1, 0.3])
    monkeypatch.setattr(process, "measure", lambda setting, *_: Latency(setting, 1.0, 1.1, None, 50, next(spreads)))
    target = Target(tiny.config(1), (Setting("torch", length=8), Setting("torch", length=9)))
    request = {"runs": 5, "seconds": 1, "busy": 0.2, "targets": [target.as_json(target.settings)]}
    found = [(answer["setting"], answer["latency"]["spread"]) for answer in process.answers(request)]
    assert found == [(0, 0.5), (1, 0.1), (0, 0.3)]


def test_a_failing_process_says_why(monkeypatch):
    monkeypatch.setattr(latency, "python", lambda *_: python("-c", "raise MemoryError('no room')"))
    with pytest.raises(FsdTuneError, match="MemoryError: no room"):
        measure_latency([Target(tiny.config(2), (SETTING,))])


# ---------------------------------------------------------------- the whole


@pytest.fixture
def students(tmp_path):
    for name, layers in (("student", 2), ("teacher", 4)):
        tiny.write_teacher(tmp_path / name, None, layers=layers)
    return tmp_path / "student", tmp_path / "teacher"


def test_student_and_teacher_side_by_side(answered, students, fsd_tune):
    words = ["measure", "--student", students[0], "--teacher", students[1], "--quiet"]
    code, out, err = fsd_tune(*words, "--length", "8,16,128", "--batch", "1,4", "--threads", "1")
    assert (code, err) == (0, [])
    assert "note: lengths left out, because a model takes at most 64 tokens: 128." in out
    for part in ("MFLOPs, 8 tokens", "tokenizer", "onnxruntime", "p50 / p90 / p99 of 100 runs, on", "1.00"):
        assert part in out, part
    code, out, _ = fsd_tune(*words, "--length", "8", "--batch", "1", "--threads", "1", "--json")
    document = json.loads(out)
    student, teacher = document["models"]["student"], document["models"]["teacher"]
    assert student["parameters"] < teacher["parameters"] and (student["layers"], teacher["layers"]) == (2, 4)
    runtimes = {one["runtime"] for one in student["latency"]}
    assert runtimes == {"torch", "onnxruntime", "tokenizer"} and len(student["latency"]) == 3


def test_without_onnxruntime_torch_alone_is_measured(answered, students, monkeypatch):
    monkeypatch.setattr(onnx, "lacking", lambda: ["onnxruntime"])
    document = api.measure(students[0], lengths=(8,), batches=(1,), threads=(1,))
    assert [one["runtime"] for one in document["models"]["student"]["latency"]] == ["torch", "tokenizer"]
    assert "pip install 'fsd_tune[onnx]'" in document["notes"][0]
    assert "note: ONNX Runtime is left out" in "\n".join(table.measure_lines(document))


def test_all_problems_are_said_at_once(students, fsd_tune):
    with pytest.raises(InputError) as error:
        api.measure("no/model", "no/teacher")
    assert [problem.split(":")[0] for problem in error.value.problems] == ["--student", "--teacher"]
    with pytest.raises(InputError, match="--length: found 128, but must be at most 64"):
        api.measure(students[0], lengths=(65, 128))
    code, _, err = fsd_tune("measure", "--student", students[0], "--batch", "1,many")
    assert code == 2 and err == ["error: --batch: found many, but must be a whole number from 1 to 4096."]
    code, _, err = fsd_tune("measure", "--student", students[0], "--length", "8,")
    assert code == 2 and err[0].startswith("error: --length: found nothing between commas, but must be")
