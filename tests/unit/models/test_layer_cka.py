"""CKA between the layers of two models, against loops in float64."""

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from fsd_tune.data.batching import tokenize
from fsd_tune.data.splits import get_task, load_split
from fsd_tune.models import layer_cka
from fsd_tune.models.loading import load_tokenizer
from tests.helpers import reference, tiny


@pytest.fixture(scope="module")
def dev(teacher, glue):
    return tokenize(load_split(get_task("sst2"), "dev", glue), load_tokenizer(str(teacher)), 32)


def models():
    torch.manual_seed(5)
    return BertForSequenceClassification(tiny.config(3)), BertForSequenceClassification(tiny.config(2, hidden=8))


def test_against_loops(dev):
    teacher, student = models()
    found = layer_cka.layer_cka(teacher, student, dev, torch.device("cpu"))
    expected = np.zeros((3, 4))
    for row in range(len(dev)):
        ids = torch.from_numpy(dev.ids[dev.offsets[row] : dev.offsets[row + 1]].astype(np.int64))[None]
        with torch.no_grad():
            theirs = teacher(input_ids=ids, output_hidden_states=True).hidden_states
            ours = student(input_ids=ids, output_hidden_states=True).hidden_states
        for i, x in enumerate(ours):
            for j, y in enumerate(theirs):
                expected[i, j] += reference.cka(x[0].double().numpy(), y[0].double().numpy()) / len(dev)
    assert np.array(found) == pytest.approx(expected, abs=1e-4)


def test_a_model_is_like_itself(dev):
    teacher, _ = models()
    found = np.array(layer_cka.layer_cka(teacher, teacher, dev, torch.device("cpu")))
    assert np.diag(found) == pytest.approx(1, abs=1e-5) and found == pytest.approx(found.T, abs=1e-5)


def test_what_no_sentence_defines_is_nan(dev):
    teacher, student = models()
    with torch.no_grad():
        student.bert.embeddings.LayerNorm.weight.zero_()  # every token alike
    found = np.array(layer_cka.layer_cka(teacher, student, dev, torch.device("cpu")))
    assert np.isnan(found[0]).all()
