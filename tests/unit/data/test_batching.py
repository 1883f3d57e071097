import numpy as np
import pytest
import torch

from fsd_tune.data import splits
from fsd_tune.data.batching import by_length, collate, epoch_order, tokenize
from fsd_tune.models.loading import load_tokenizer

CPU = torch.device("cpu")


def split_of(glue, task, name="train"):
    return splits.load_split(splits.get_task(task), name, glue)


def test_tokens_and_types_equal_the_tokenizers_own_batch(glue, teacher):
    tokenizer = load_tokenizer(str(teacher))
    split = split_of(glue, "rte")
    data = tokenize(split, tokenizer, 32)
    rows = np.array([3, 0, 11])
    expected = tokenizer(
        [split.first[i] for i in rows],
        [split.second[i] for i in rows],
        truncation=True,
        max_length=32,
        padding=True,
        return_tensors="pt",
    )
    batch = collate(data, rows, CPU)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(batch[name], expected[name]), name
    assert batch["labels"].tolist() == split.labels[rows].tolist()


def test_padding_to_a_given_width(glue, teacher):
    data = tokenize(split_of(glue, "sst2"), load_tokenizer(str(teacher)), 32)
    batch = collate(data, np.arange(4), CPU, pad_to=32)
    assert batch["input_ids"].shape == (4, 32)
    assert batch["attention_mask"].sum(-1).tolist() == data.lengths[:4].tolist()


def test_every_example_once_an_epoch_and_orders_differ_by_epoch_and_seed_only():
    first = epoch_order(50, 0, 16, 0)
    assert [len(batch) for batch in first] == [16, 16, 16, 2]
    assert sorted(np.concatenate(first)) == list(range(50))
    assert all(np.array_equal(a, b) for a, b in zip(first, epoch_order(50, 0, 16, 0), strict=True))
    assert not np.array_equal(first[0], epoch_order(50, 0, 16, 1)[0])
    assert not np.array_equal(first[0], epoch_order(50, 1, 16, 0)[0])


LENGTHS = np.random.default_rng(7).integers(3, 128, 1650)


def grouped_slowly(lengths, seed, batch_size, epoch):
    """The batches of `data.batching: grouped`, example by example."""
    random = np.random.default_rng([seed, batch_size, epoch])
    shuffled = random.permutation(len(lengths)).tolist()
    full = len(shuffled) // batch_size
    number, batches = -(-full // 50), []
    for block in range(number):
        # Blocks differ by at most one batch, the longer ones first.
        count = full // number + (1 if block < full % number else 0)
        taken, shuffled = shuffled[: count * batch_size], shuffled[count * batch_size :]
        ranked = [row for length in sorted(set(lengths)) for row in taken if lengths[row] == length]
        batches += [ranked[start : start + batch_size] for start in range(0, len(ranked), batch_size)]
    return ([batches[index] for index in random.permutation(full)] if full else []) + ([shuffled] if shuffled else [])


@pytest.mark.parametrize("batch_size", [1, 7, 16, 32, 1000, 1650, 2000])
def test_grouped_batches_are_those_of_a_slow_reference(batch_size):
    found = epoch_order(len(LENGTHS), 3, batch_size, 2, LENGTHS)
    assert [batch.tolist() for batch in found] == grouped_slowly(LENGTHS.tolist(), 3, batch_size, 2)
    assert sorted(np.concatenate(found)) == list(range(len(LENGTHS)))


def test_grouped_batches_differ_by_epoch_and_seed_and_need_a_tenth_of_the_padding():
    def padding(batches):
        return sum(int((LENGTHS[batch].max() - LENGTHS[batch]).sum()) for batch in batches)

    grouped, again, later, other = (
        epoch_order(len(LENGTHS), seed, 32, epoch, LENGTHS) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    random = epoch_order(len(LENGTHS), 0, 32, 0)
    assert all(map(np.array_equal, grouped, again))
    assert not any(set(grouped[0]) == set(batch) for batch in later + other)
    assert np.array_equal(grouped[-1], random[-1]) and len(random[-1]) == 1650 % 32
    assert padding(grouped[:-1]) < padding(random[:-1]) / 10
    # Long and short batches follow each other in no order.
    longest = [LENGTHS[batch].max() for batch in grouped[:-1]]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


def test_limit_keeps_a_fixed_sample(glue, teacher):
    tokenizer, split = load_tokenizer(str(teacher)), split_of(glue, "sst2")
    full, some, fewer = (tokenize(split, tokenizer, 32, limit) for limit in (None, 20, 10))
    assert (len(full), len(some), len(fewer)) == (len(split.first), 20, 10)
    assert np.array_equal(some.ids[: len(fewer.ids)], fewer.ids)
    assert not np.array_equal(full.ids[: len(fewer.ids)], fewer.ids)


def test_length_order_covers_all_rows_longest_first():
    lengths = np.array([3, 9, 1, 4, 9])
    batches = list(by_length(lengths, 2))
    assert np.concatenate(batches).tolist() == [1, 4, 3, 0, 2]
