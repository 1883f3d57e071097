"""The attention mask of four dimensions gives the results of the mask [B, n], in training and in evaluation."""

import numpy as np
import pytest
import torch

from fsd_tune.data.batching import collate
from fsd_tune.device import autocast
from fsd_tune.models.inputs import _FOUR_DIMENSIONS, inputs_for
from fsd_tune.models.loader import new_model
from tests.helpers import families, random_runs
from tests.helpers.random_runs import CPU

pytestmark = pytest.mark.usefixtures("one_thread")

# Eager attention in bf16 adds the mask in float32. Without padding transformers adds none, so that scores round.
ROUNDED = {"mpnet"}
BOOLEAN = ("bert", "roberta", "distilbert", "electra", "albert", "camembert", "nomic_bert", "xlm-roberta")


def results(model, inputs, precision, train):
    """Logits and hidden states, and the gradient of every weight."""
    model.train(train).zero_grad()
    torch.manual_seed(0)
    with autocast(precision, CPU):
        out = model(**inputs, output_hidden_states=True)
    (out.logits.float().square().sum() + sum(x.float().square().mean() for x in out.hidden_states)).backward()
    gradients = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    return [out.logits, *out.hidden_states, *gradients]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("family", [*BOOLEAN, "mpnet", "modernbert"])
def test_a_mask_of_four_dimensions_changes_no_bit(family, precision):
    model = new_model(families.config(family, layers=3))
    for full in (False, True):
        batch = collate(random_runs.split(full=full), np.arange(6), CPU, pad_to=None if full else 14)
        batch.pop("labels")
        given = inputs_for(model, batch)
        masks = given["attention_mask"].values() if family == "modernbert" else [given["attention_mask"]]
        assert all(mask.dim() == 4 for mask in masks)
        plain = given | {"attention_mask": batch["attention_mask"]}
        for train in (True, False):
            ours, theirs = (results(model, inputs, precision, train) for inputs in (given, plain))
            if full and precision == "bf16" and family in ROUNDED:
                torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=1e-3)
            else:
                assert all(map(torch.equal, ours, theirs)), (full, train)


@pytest.mark.parametrize("family", ["deberta", "deberta-v2", "longformer"])
def test_families_that_read_the_mask_themselves_get_it_as_it_is(family):
    assert family not in _FOUR_DIMENSIONS
    mask = torch.ones(2, 5, dtype=torch.int64)
    given = inputs_for(new_model(families.config(family)), {"input_ids": mask, "attention_mask": mask})
    assert given["attention_mask"] is mask


def test_modernbert_pools_with_the_plain_mask_if_it_takes_the_mean():
    config = families.config("modernbert")
    config.classifier_pooling = "mean"
    mask = torch.ones(2, 5, dtype=torch.int64)
    inputs = inputs_for(new_model(config), {"input_ids": mask, "attention_mask": mask})
    assert inputs["attention_mask"] is mask


@pytest.mark.parametrize("change", ["another attention", "older mask code"])
def test_a_model_that_makes_its_mask_otherwise_gets_the_plain_one(change, monkeypatch):
    model = new_model(families.config("bert"))
    if change == "another attention":
        model.config._attn_implementation_internal = "flex_attention"
    else:
        monkeypatch.delattr("transformers.models.bert.modeling_bert.create_bidirectional_mask")
    mask = torch.ones(2, 5, dtype=torch.int64)
    assert inputs_for(model, {"input_ids": mask, "attention_mask": mask})["attention_mask"] is mask
