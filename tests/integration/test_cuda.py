"""On a real GPU: the same numbers as on the CPU, checkpoints, and a search that uses it without being asked."""

import os

import numpy as np
import pytest
import torch

from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.search import run
from fsd_tune.settings.configuration import resolve
from fsd_tune.settings.methods import METHODS, USES_TEACHER
from fsd_tune.training.factory import DistillerFactory
from fsd_tune.training.inputs import load_inputs
from fsd_tune.training.loss_terms import loss_terms
from tests.helpers.searching import short_folder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


@pytest.fixture
def factory(load_settings, glue, teacher, tmp_path):
    """A function that makes the factory of a method's runs on a device, with artefacts built on the CPU."""

    def make(method, device, **overrides):
        settings = load_settings(method=method, **overrides)
        inputs = load_inputs(settings, "sst2", str(teacher), glue)
        folder = tmp_path / "memory"
        arrays = None
        if method in USES_TEACHER:
            spec = MemorySpec.from_inputs(settings, inputs, folder, "cpu")
            arrays = open_arrays(build_artifacts(spec, lambda *_: None), mapped=True)
        spec = MemorySpec.from_inputs(settings, inputs, folder, device)
        return DistillerFactory(settings, spec, arrays), resolve(settings)

    return make


def terms_of(distiller):
    names = distiller.weights.keys()
    terms = loss_terms(distiller.setup, distiller.model.eval(), distiller.memory, names, np.arange(6))
    return {name: value.item() for name, value in terms.items()}


@pytest.mark.parametrize("layers", ["penultimate", "[[1, 1], [2, 2]]"])
@pytest.mark.parametrize("method", METHODS)
def test_terms_are_those_of_the_cpu(factory, method, layers):
    found = {}
    for device in ("cpu", "cuda"):
        made, config = factory(method, device, precision="float32", **{"loss.layers": layers})
        found[device] = terms_of(made.distiller(config, 1))
        if device == "cuda":
            made.keep_on_host()
            found["host batches"] = terms_of(made.distiller(config, 1))
    assert found["cuda"] == pytest.approx(found["cpu"], rel=1e-3, abs=1e-4)
    assert found["host batches"] == pytest.approx(found["cuda"], rel=1e-5, abs=1e-6)


@pytest.fixture
def deterministic():
    """Restores torch's switch, which a factory sets for its process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_continues_from_its_checkpoint_to_the_last_bit(factory, method, precision, tmp_path, deterministic):
    made, config = factory(method, "cuda", precision=precision, **{"resources.deterministic": True})
    whole = made.distiller(config, 3)
    for _ in range(3):
        whole.train_to_next_evaluation()
    first = made.distiller(config, 3)
    first.train_to_next_evaluation()
    first.save(tmp_path / "checkpoint")
    second = made.distiller(config, 3)
    second.load(tmp_path / "checkpoint")
    for _ in range(2):
        second.train_to_next_evaluation()
    assert np.array_equal(second.logits, whole.logits)
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, second.model.state_dict()[name]), name


@pytest.mark.parametrize("live", [False, True])
def test_a_search_uses_the_gpu_without_being_asked(load_settings, glue, teacher, tmp_path, live):
    limit = {"memory.spool_limit_gb": 0} if live else {}
    settings = load_settings(method="fsd_ilg", precision="auto", **{"search.trials": 4}, **limit)
    assert settings.resources.gpus_per_trial == "auto"
    with short_folder() as temporary:
        results = run(
            settings, task="sst2", teacher=str(teacher), data=glue, output=tmp_path / "run",
            memory=tmp_path / "memory", ray_temporary=temporary,
        )  # fmt: skip
    assert len(results.trials) == 4 and results.best is not None
    share = results.summary.gpus_per_trial
    assert share is not None and 0 < share <= 1
    assert results.summary.workers == min(4, os.cpu_count() or 1, round(1 / share))
