"""Parameters, bytes and operations, compared with formulas and with the model itself."""

import pytest
from transformers import BertForSequenceClassification, DistilBertConfig, LongformerConfig

from fsd_tune.profiling.cost import cost_of, shape_of
from tests.helpers import tiny


@pytest.mark.parametrize("length", [8, 33])
def test_operations_of_bert_are_those_of_the_formula(length):
    """Two for each multiplication and addition: projections, scores and their products, two layers, pooler, head."""
    config = tiny.config(3, num_labels=4)
    h, i = config.hidden_size, config.intermediate_size
    layer = 2 * length * (4 * h * h + 2 * h * i) + 4 * length * length * h
    assert cost_of(config, (length,)).flops == {length: 3 * layer + 2 * h * h + 2 * h * 4}


def test_parameters_and_bytes_are_those_of_the_stored_model(tmp_path):
    config = tiny.config(2)
    model = BertForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    found = cost_of(config, (8,), tmp_path)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.size_mb == (tmp_path / "model.safetensors").stat().st_size / 1e6
    assert cost_of(config, (8,)).size_mb == pytest.approx(4e-6 * found.parameters)


def test_other_families():
    small = {"n_layers": 2, "dim": 16, "n_heads": 2, "hidden_dim": 32, "vocab_size": 50}
    count = cost_of(DistilBertConfig(**small), (8,)).flops[8]
    assert count is not None and count > 2 * 2 * 8 * (4 * 16 * 16 + 2 * 16 * 32)
    longformer = LongformerConfig(
        num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=32, vocab_size=50,
        attention_window=[4],
    )  # fmt: skip
    assert cost_of(longformer, (8,)).flops == {8: None}, "its attention reads values, which are not there"


def test_a_shape_is_what_decides_the_speed():
    shape = shape_of(tiny.config(2, id2label={0: "no", 1: "yes"}, hidden_dropout_prob=0.3))
    assert shape == shape_of(tiny.config(2))
    others = [tiny.config(3), tiny.config(2, hidden=32), tiny.config(2, num_labels=3)]
    assert all(shape_of(other) != shape for other in others)
