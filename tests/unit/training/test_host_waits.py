"""A training step never asks for a value on the device: on a GPU the host would wait for it, once a step or more."""

import numpy as np
import pytest
import torch

from benchmarks.operations import OperationCounter, count
from fsd_tune.data.batching import collate
from fsd_tune.models.inference import predict
from fsd_tune.settings.methods import METHODS
from fsd_tune.training import setup
from tests.helpers import families, random_runs
from tests.helpers.random_runs import CPU, FIVE_PAIRS, ONE_PAIR

pytestmark = pytest.mark.usefixtures("one_thread")

# Code of these families in transformers asks for values, whatever the mask.
WAITING_FAMILIES = {"deberta": "scripted functions", "longformer": "the positions of tokens with global attention"}


def waits(run):
    run.train_step()  # also makes what is made once in a run
    return dict(count(run.train_step).waits)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("padding", ["masked", "published"])
@pytest.mark.parametrize("live", [False, True], ids=["cached", "live"])
def test_no_step_of_a_method_waits(method, padding, live):
    pairs = FIVE_PAIRS if live else ONE_PAIR
    assert waits(random_runs.distiller(method, pairs=pairs, padding=padding, live=live)) == {}


@pytest.mark.parametrize("full", [False, True], ids=["padded", "full"])
@pytest.mark.parametrize("family", [*families.FAMILIES, *families.MORE])
def test_no_step_of_a_family_waits_but_of_those_that_read_values_themselves(family, full):
    run = random_runs.distiller("fsd_ilg", family, data=random_runs.split(full=full), accumulation=2)
    found = waits(run)
    assert bool(found) == (family in WAITING_FAMILIES), found
    assert all("models/" in place for place in found), "only the family's own code waits"


def test_no_batch_of_an_evaluation_waits():
    model, data = random_runs.classifier(), random_runs.split()
    with OperationCounter() as counter:
        predict(model, data, "float32", CPU)
    assert dict(counter.waits) == {}


def test_what_waits_is_found_with_its_place(monkeypatch):
    """Each kind of read, put into a step on purpose."""
    reads = {
        "_local_scalar_dense": lambda mask: mask.sum().item(),
        "is_nonzero": lambda mask: bool(torch.is_nonzero(mask.sum())),
        "nonzero": lambda mask: mask.nonzero(),
        "index": lambda mask: mask[mask > 0],
        "masked_select": lambda mask: mask.masked_select(mask > 0),
        "equal": lambda mask: torch.equal(mask, mask),
        "_linalg_eigh": lambda mask: torch.linalg.eigh(mask.double() @ mask.double().T),
        "_linalg_svd": lambda mask: torch.linalg.svd(mask.double()),
    }
    for name, read in reads.items():

        def reading(*arguments, read=read, **named):
            batch = collate(*arguments, **named)
            read(batch["attention_mask"])
            return batch

        monkeypatch.setattr(setup, "collate", reading)
        found = waits(random_runs.distiller("kd"))
        assert len(found) == 1 and all("test_host_waits.py" in place for place in found), (name, found)
        assert name == "is_nonzero" or next(iter(found)).startswith(f"{name} at "), found


def test_operations_are_counted_the_same_in_every_step():
    run = random_runs.distiller("fsd_ilg", data=random_runs.split(full=True))
    run.train_step()
    first, second = (count(lambda: run.train_on(np.arange(4))).operations for _ in range(2))
    assert first == second and first["_fused_adamw_"] == 3 and first["view"] == 0
    plain = random_runs.distiller("ce")
    plain.train_step()
    assert sum(count(plain.train_step).operations.values()) < sum(first.values())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_fsd_ilg_launches_at_most_a_quarter_more_operations_than_plain_fine_tuning(precision):
    counts = {}
    for method in ("ce", "fsd_ilg"):
        run = random_runs.distiller(method, layers=6, precision=precision)
        run.train_step()
        counts[method] = sum(count(run.train_step).operations.values())
    assert counts["fsd_ilg"] <= 1.25 * counts["ce"], counts
