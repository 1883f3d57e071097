"""A confirmation's runs start the student memory from the student of their own seed and shape."""

from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from fsd_tune.evaluation.confirm import run_worker
from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.settings.configuration import resolve
from fsd_tune.settings.shapes import student_of
from fsd_tune.training.inputs import load_inputs


def test_a_random_students_memory_is_matched_to_its_seed(load_settings, glue, teacher, tmp_path, one_thread):
    shapes = {"student.start": "{choice: [copy, random]}", "student.hidden_size": "{choice: [null, 8]}"}
    settings = load_settings("fsd_g", **shapes)
    inputs = load_inputs(settings, "sst2", str(teacher), glue)
    spec = MemorySpec.from_inputs(settings, inputs, tmp_path / "memory", "cpu")
    arrays = open_arrays(build_artifacts(spec, lambda *_: None), mapped=True)
    with mock.patch.object(run_worker, "fetch_arrays", lambda *_: arrays):
        worker: Any = run_worker.RunWorker(settings, spec, (SimpleNamespace(), SimpleNamespace()), 1)  # type: ignore[arg-type]
    random, copied = ({"start": start, "hidden_size": None} for start in ("random", "copy"))
    for shape, seed, changes in ((copied, 7, False), (random, spec.seed, False), (random, 7, True), (random, 7, False)):
        before, student = worker._factory.arrays, student_of(settings, shape)
        worker._match_memory(resolve(settings, shape), seed)
        after = worker._factory.arrays
        assert (after is not before) == changes
        assert all(after.starts[other] is before.starts[other] for other in spec.students if other != student)
    alone = load_settings("fsd_g", **{"student.start": "random", "search.seed": 7})
    single = MemorySpec.from_inputs(alone, inputs, tmp_path / "memory", "cpu")
    (expected,) = open_arrays(build_artifacts(single, lambda *_: None, build=False), mapped=True).starts.values()
    np.testing.assert_array_equal(worker._factory.arrays.starts[student_of(settings, random)], expected)
