import os

import numpy as np
import pytest
import torch

from fsd_tune.data import splits
from fsd_tune.data.batching import collate, tokenize
from fsd_tune.errors import DamagedError, FsdTuneError
from fsd_tune.memory import teacher_outputs
from fsd_tune.models.loading import load_classifier, load_tokenizer
from fsd_tune.storage import artifacts

CPU = torch.device("cpu")
SST2 = splits.get_task("sst2")


@pytest.fixture(scope="module")
def data(glue, teacher):
    return tokenize(splits.load_split(SST2, "train", glue), load_tokenizer(str(teacher)), 32)


def write(folder, teacher, data, padding="masked", order=(0, 1), scale=1.0):
    model = load_classifier(str(teacher), SST2)
    model.bert.encoder.layer[2].output.LayerNorm.weight.data.mul_(scale)
    seen = []

    def progress(what, done, total):
        seen.append((done, total))

    teacher_outputs.write_outputs(folder, model, order, data, (2, 3), padding, "float32", CPU, progress)
    return model, seen


@pytest.mark.parametrize("padding", ["masked", "published"])
@pytest.mark.parametrize("shard_bytes", [1 << 30, 2000])
def test_every_example_keeps_its_own_logits_and_features(tmp_path, teacher, data, padding, shard_bytes, monkeypatch):
    monkeypatch.setattr(teacher_outputs, "SHARD_BYTES", shard_bytes)
    model, seen = write(tmp_path / "o", teacher, data, padding, order=(1, 0))
    outputs = teacher_outputs.read_outputs(tmp_path / "o", mapped=True)
    assert seen[-1] == (len(data), len(data))
    assert (len(outputs.shards[2]) > 1) == (shard_bytes == 2000)
    width = 32
    for row in range(len(data)):
        batch = collate(data, np.array([row]), CPU, pad_to=width)
        batch.pop("labels")
        with torch.no_grad():
            out = model(**batch, output_hidden_states=True)
        np.testing.assert_allclose(outputs.logits[row], out.logits[0].numpy()[[1, 0]], atol=1e-4)
        for layer in (2, 3):
            expected = out.hidden_states[layer][0].numpy()
            if padding == "masked":
                expected = expected * batch["attention_mask"][0].numpy()[:, None]
            got = outputs.features(layer, np.array([row]), width)[0]
            np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("scale", "said"), [(1e6, "hidden states of layer 3 are .*65,504"), (float("nan"), "logits")])
def test_outputs_that_cannot_be_stored(tmp_path, teacher, data, scale, said):
    with pytest.raises(FsdTuneError, match=f"^--teacher: its {said}"):
        write(tmp_path / "o", teacher, data, scale=scale)
    assert not (tmp_path / "o").exists()


def test_the_name_follows_everything_that_the_outputs_depend_on(data, glue, teacher):
    other = tokenize(splits.load_split(SST2, "dev", glue), load_tokenizer(str(teacher)), 32)
    shorter = tokenize(splits.load_split(SST2, "train", glue), load_tokenizer(str(teacher)), 31)
    plain = ("t", (0, 1), data, (3,), "masked", "float32")
    variants = [
        plain,
        ("u", *plain[1:]),
        ("t", (1, 0), *plain[2:]),
        ("t", (0, 1), other, *plain[3:]),
        ("t", (0, 1), shorter, *plain[3:]),
        (*plain[:3], (2, 3), "masked", "float32"),
        (*plain[:4], "published", "float32"),
        (*plain[:5], "bf16"),
    ]
    assert len({teacher_outputs.outputs_key(*variant) for variant in variants}) == len(variants)
    assert teacher_outputs.outputs_key(*plain) == teacher_outputs.outputs_key(*plain)


def test_bytes_are_what_the_formula_says(tmp_path, teacher, data):
    write(tmp_path / "o", teacher, data)
    outputs = teacher_outputs.read_outputs(tmp_path / "o", mapped=False)
    tokens, hidden, layers, classes = int(data.offsets[-1]), 16, 2, 2
    n = len(data)
    assert outputs.nbytes == 2 * tokens * hidden * layers + 4 * n * classes + 8 * (n + 1)
    facts = artifacts.facts_of(tmp_path / "o")
    assert facts is not None and facts["tokens"] == tokens


def test_a_damaged_shard_is_found_when_it_is_first_read(tmp_path, teacher, data, monkeypatch):
    monkeypatch.setattr(teacher_outputs, "SHARD_BYTES", 2000)
    folder = tmp_path / "o"
    write(folder, teacher, data)
    shard = folder / "layer_02_0001.npy"
    status = shard.stat()
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    # Another node has read no file yet.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    assert artifacts.facts_of(folder) is not None
    outputs = teacher_outputs.read_outputs(folder, mapped=True)
    first, second = (np.asarray([row]) for row in outputs.shard_starts[:2])
    outputs.features(2, first, 32)
    outputs.features(3, second, 32)
    for _ in range(2):
        with pytest.raises(DamagedError, match=r"layer_02_0001\.npy: is damaged"):
            outputs.features(2, second, 32)
    with pytest.raises(DamagedError):
        teacher_outputs.read_outputs(folder, mapped=False)
    assert artifacts.facts_of(folder) is None
    shard.write_bytes(shard.read_bytes()[:100])
    assert artifacts.damaged_files(folder) == [shard.name]
