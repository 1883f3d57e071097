"""Without padding a model computes what it computes with it, in training, evaluation and the live teacher's pass."""

import json

import numpy as np
import pytest
import torch

from fsd_tune.data.batching import collate
from fsd_tune.device import autocast
from fsd_tune.models import packing
from fsd_tune.models.inference import predict
from fsd_tune.models.inputs import inputs_for
from fsd_tune.models.loader import new_model
from fsd_tune.models.packing import can_pack, classify
from fsd_tune.settings.methods import METHODS
from fsd_tune.training.loss_terms import loss_terms
from tests.helpers import families, random_runs
from tests.helpers.random_runs import CPU, FIVE_PAIRS, ONE_PAIR

pytestmark = pytest.mark.usefixtures("one_thread")

PACKED = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
# (relative, absolute) differences by rounding. bf16 keeps eight bits, and sums are formed in another order.
ROUNDING = {"float32": (1e-4, 1e-5), "bf16": (5e-2, 2e-2)}


def without_packing(call):
    """The result of `call` with every batch padded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "can_pack", lambda model: False)
        return call()


@pytest.fixture
def lengths_seen(monkeypatch):
    """The number of packed tokens of each call of an attention."""
    seen = []

    def attention(module, query, *arguments, plain=packing._attention, **named):
        seen.append(query.shape[2])
        return plain(module, query, *arguments, **named)

    packing._register.cache_clear()
    monkeypatch.setattr(packing, "_attention", attention)
    yield seen
    packing._register.cache_clear()


def classifier(family, layers=3):
    """A model whose weights are large enough that tokens, types and positions matter."""
    torch.manual_seed(0)
    model = new_model(families.config(family, layers))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) / 10)
    return model


def batch_of(width=14, full=False):
    data = random_runs.split(full=full)
    data.types[1::3] = 1
    batch = collate(data, np.arange(6), CPU, pad_to=width)
    batch.pop("labels")
    return batch


def results(model, batch, precision="float32", packed=True):
    """Logits, hidden states of real tokens, and the gradient of every weight."""
    model.eval().zero_grad()
    with autocast(precision, CPU):
        out = classify(model, batch, hidden_states=True, packed=packed)
    real = batch["attention_mask"].bool()
    states = [state.float()[real] for state in out.hidden_states]
    (out.logits.float().square().sum() + sum(state.square().mean() for state in states)).backward()
    return [out.logits, *states, *(weight.grad.clone() for weight in model.parameters() if weight.grad is not None)]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("family", PACKED)
def test_packed_equals_padded(family, precision, lengths_seen):
    model, batch = classifier(family), batch_of()
    packed = results(model, batch, precision)
    assert lengths_seen == [int(batch["attention_mask"].sum())] * 3
    padded = results(model, batch, precision, packed=False)
    assert len(lengths_seen) == 3 and len(packed) == len(padded) > 10
    relative, absolute = ROUNDING[precision]
    # Gradients of the keys' biases are zero but for rounding.
    floor = float(np.median([part.detach().abs().max().item() for part in padded]))
    for one, other in zip(packed, padded, strict=True):
        scale = float(other.detach().float().abs().max())
        torch.testing.assert_close(one.float(), other.float(), rtol=relative, atol=absolute * max(scale, floor))
    # A token in another place, or of the other text, is another token.
    types = {"token_type_ids": 1 - batch["token_type_ids"]}
    if "token_type_ids" in inputs_for(model, batch):
        assert not torch.allclose(packed[0], results(model, batch | types, precision)[0], rtol=relative)


def test_hidden_states_are_padded_with_zeros_and_are_a_sequence():
    model, batch = classifier("bert").eval(), batch_of()
    states = classify(model, batch, hidden_states=True).hidden_states
    assert len(states) == 4 and [state.shape for state in states] == [(6, 14, families.HIDDEN)] * 4
    assert states[-1] is states[3] and states[-1] is list(states)[3] and states[1:3] == (states[1], states[2])
    assert not states[2][batch["attention_mask"] == 0].any() and states[2][batch["attention_mask"] == 1].all()
    with pytest.raises(IndexError):
        states[4]
    assert classify(model, batch).hidden_states is None


@pytest.mark.parametrize("family", ["albert", "deberta-v2", "longformer", "modernbert", "mpnet", "nomic_bert"])
def test_other_families_stay_padded(family, lengths_seen):
    model, batch = classifier(family, layers=4).eval(), batch_of()
    assert not can_pack(model)
    with torch.no_grad():
        assert torch.equal(classify(model, batch).logits, model(**inputs_for(model, batch)).logits)
    assert not lengths_seen


@pytest.mark.parametrize("case", ["little padding", "no padding", "eager attention", "relative positions"])
def test_batches_and_models_that_stay_padded(case, lengths_seen):
    model = classifier("bert").eval()
    batch = batch_of(width=None if case == "little padding" else 14)
    if case == "little padding":
        keep = batch["attention_mask"].sum(-1) >= batch["attention_mask"].shape[1] - 1
        batch = {name: value[keep] for name, value in batch.items()}
        assert len(batch["input_ids"]) > 1 and not batch["attention_mask"].all()
    if case == "no padding":
        batch = batch_of(width=random_runs.LENGTH, full=True)
    if case == "eager attention":
        model.set_attn_implementation("eager")
    if case == "relative positions":
        model.config.position_embedding_type = "relative_key"
    classify(model, batch)
    assert not lengths_seen


def test_a_model_is_left_as_it_was(tmp_path):
    model, batch = classifier("bert").eval(), batch_of()
    model.save_pretrained(tmp_path / "before")
    classify(model, batch)

    def fail(*_):
        raise RuntimeError("out of memory")

    handle = model.bert.encoder.layer[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        classify(model, batch)
    handle.remove()
    assert model.config._attn_implementation == "sdpa"
    assert not model.bert._forward_hooks and not model.bert._forward_pre_hooks
    model.save_pretrained(tmp_path / "after")
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("before", "after"))
    assert before == after


@pytest.mark.parametrize("live", [False, True], ids=["cached", "live"])
@pytest.mark.parametrize("method", METHODS)
def test_terms_and_gradients_are_those_of_padded_batches(method, live, lengths_seen):
    def terms():
        run = random_runs.distiller(method, pairs=FIVE_PAIRS if live else ONE_PAIR, live=live)
        run.model.eval()
        found = loss_terms(run.setup, run.model, run.memory, run.weights.keys(), np.array([0, 3, 5, 7, 9, 2]))
        torch.stack([found[name] for name in run.weights]).sum().backward()
        parts = [*run.model.parameters(), *([] if run.memory is None else [run.memory])]
        return {**found, **{str(place): part.grad for place, part in enumerate(parts) if part.grad is not None}}

    packed = terms()
    runs = len(lengths_seen)
    assert runs == (3 if live and method != "ce" else 1), "one layer of the student, two of a live teacher"
    padded = without_packing(terms)
    assert len(lengths_seen) == runs and packed.keys() == padded.keys()
    for name, value in padded.items():
        torch.testing.assert_close(packed[name], value, rtol=2e-4, atol=1e-6)


def test_published_padding_is_computed(lengths_seen):
    run = random_runs.distiller("fsd_ilg", padding="published", live=True)
    run.train_step()
    assert not lengths_seen


def test_an_evaluation_packs_batches_with_padding(lengths_seen):
    model, data = classifier("bert"), random_runs.split()
    logits = predict(model, data, "float32", CPU)
    assert lengths_seen == [int(data.lengths.sum())] * 3
    padded = without_packing(lambda: predict(model, data, "float32", CPU))
    np.testing.assert_allclose(logits, padded, rtol=1e-4, atol=1e-5)


def test_dropout_is_that_of_the_seed_and_acts_on_tokens(lengths_seen):
    model, batch = classifier("bert").train(), batch_of()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(classify(model, batch).logits)
    assert torch.equal(drawn[0], drawn[1]) and not torch.allclose(drawn[0], drawn[2])
    assert len(lengths_seen) == 9
