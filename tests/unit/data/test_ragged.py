import numpy as np
import pytest
import torch

from fsd_tune.data import splits
from fsd_tune.data.batching import collate, tokenize
from fsd_tune.data.ragged import RaggedTensors, ResidentSplit
from fsd_tune.models.loading import load_tokenizer

CPU = torch.device("cpu")


@pytest.mark.parametrize("pad_to", [None, 32])
@pytest.mark.parametrize("task", ["sst2", "rte", "stsb"])
def test_a_resident_split_gives_the_same_batches(glue, teacher, task, pad_to):
    data = tokenize(splits.load_split(splits.get_task(task), "train", glue), load_tokenizer(str(teacher)), 32)
    resident = ResidentSplit(data, CPU)
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(len(data))[:7]
        expected = collate(data, rows, CPU, pad_to)
        got = resident.collate(rows, pad_to)
        assert got.keys() == expected.keys()
        for name, values in expected.items():
            assert got[name].dtype == values.dtype and torch.equal(got[name], values), name


def test_ragged_tensors_keep_the_parts_of_an_array_in_order():
    offsets = np.array([0, 2, 2, 5])
    values = np.arange(1.0, 11).reshape(5, 2)
    tensors = RaggedTensors({"x": ([values[:2], values[2:]], 0), "y": ([values[:, 0]], -1)}, offsets, CPU)
    got = tensors.gather(np.array([2, 0, 1]), 3)
    assert got["x"].tolist() == [
        [[5, 6], [7, 8], [9, 10]],
        [[1, 2], [3, 4], [0, 0]],
        [[0, 0]] * 3,
    ]
    assert got["y"].tolist() == [[5, 7, 9], [1, 3, -1], [-1, -1, -1]]
