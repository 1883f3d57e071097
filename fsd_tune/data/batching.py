"""Tokenise splits, order their batches and collate them.

GLUE fits in memory as integers, so there are no loader workers, which would outlive a killed trial. `masked` padding
pads a batch to its longest example, `published` padding to the maximum length (docs/explanation/method.md, "Data
and padding").
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.data.splits import Split
from fsd_tune.device import send
from fsd_tune.storage import artifacts

# `train_limit` keeps the same rows for every seed, because a confirmation trains on them with other seeds.
LIMIT_SEED = 0
_TOKENISED_AT_ONCE = 20_000
# Batches sorted together by `data.batching: grouped`. Longer blocks save little more padding, and leave less to chance.
_BLOCK = 50


@dataclass(frozen=True)
class TokenizedSplit:
    """A split as ragged token ids.

    Attributes:
        ids: int32 [tokens of all examples], special tokens included, cut to the maximum length.
        types: int8, shaped as `ids`: 0 for the first text, 1 for the second; None for models without token types.
        offsets: int64 [N + 1]; example i is ids[offsets[i]:offsets[i + 1]].
        labels: int64 [N], or float32 [N] for regression; -1 where the split has none.
        pad_id: the token id of padding.
        max_length: largest number of tokens of an example.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int8] | None
    offsets: NDArray[np.int64]
    labels: NDArray[Any]
    pad_id: int
    max_length: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each example, int64 [N]."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.int64]) -> "TokenizedSplit":
        """Return the given examples, in the given order.

        Args:
            rows: int64 [M], indices of examples.

        Returns:
            A split of M examples, copied.
        """
        flat = np.concatenate([np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows])
        return TokenizedSplit(
            ids=self.ids[flat],
            types=None if self.types is None else self.types[flat],
            offsets=np.concatenate([[0], np.cumsum(self.lengths[rows])]).astype(np.int64),
            labels=self.labels[rows],
            pad_id=self.pad_id,
            max_length=self.max_length,
        )


def tokenize(split: Split, tokenizer: Any, max_length: int, limit: int | None = None) -> TokenizedSplit:
    """Tokenise a split with a transformers tokenizer.

    Args:
        split: texts, with or without labels.
        tokenizer: a fast or slow transformers tokenizer.
        max_length: largest number of tokens of an example; longer ones are cut, the longer of two texts first.
        limit: keep the first `limit` examples of a seeded shuffle (`data.train_limit`); None keeps all, in order.

    Returns:
        The tokenised examples.
    """
    labels = np.full(len(split), -1, np.int64) if split.labels is None else split.labels
    rows = np.arange(len(split.first))
    if limit is not None and limit < len(rows):
        rows = np.random.default_rng(LIMIT_SEED).permutation(len(rows))[:limit]
    with_types = "token_type_ids" in tokenizer.model_input_names
    ids: list[NDArray[np.int32]] = []
    types: list[NDArray[np.int8]] = []
    # Tokenise in parts, because the tokenizer's result takes a hundred times the memory of the ids.
    for start in range(0, len(rows), _TOKENISED_AT_ONCE):
        part = rows[start : start + _TOKENISED_AT_ONCE]
        encoded = tokenizer(
            [split.first[row] for row in part],
            None if split.second is None else [split.second[row] for row in part],
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=with_types,
        )
        ids += [np.asarray(example, np.int32) for example in encoded["input_ids"]]
        types += [np.asarray(example, np.int8) for example in encoded["token_type_ids"]] if with_types else []
    return TokenizedSplit(
        ids=np.concatenate(ids),
        types=np.concatenate(types) if with_types else None,
        offsets=np.concatenate([[0], np.cumsum([len(example) for example in ids])]).astype(np.int64),
        labels=labels[rows],
        pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        max_length=max_length,
    )


def epoch_order(
    examples: int, seed: int, batch_size: int, epoch: int, lengths: NDArray[np.int64] | None = None
) -> list[NDArray[np.int64]]:
    """Return the batches of one epoch as row indices, which depend on the arguments alone.

    Every trial of a search with the same batch size sees the same batches (common random numbers), which makes
    comparisons of trials less noisy. The last batch may be smaller.

    With `lengths`, the shuffled examples are sorted by length inside blocks of about 50 batches, and the batches are
    shuffled, so that a batch has examples of similar length and little padding. A smaller last batch is the same as
    without `lengths`.

    Args:
        examples: number of examples N.
        seed: the seed of the run.
        batch_size: examples per batch.
        epoch: counted from 0.
        lengths: tokens of each example, int64 [N], to group examples by length; None to take them at random.

    Returns:
        int64 arrays of at most `batch_size` rows, together a permutation of 0..N-1.
    """
    rng = np.random.default_rng([seed, batch_size, epoch])
    order = rng.permutation(examples)
    full = examples // batch_size
    if lengths is not None and full > 0:
        batches = order[: full * batch_size].reshape(full, batch_size)
        blocks = [block.ravel() for block in np.array_split(batches, math.ceil(full / _BLOCK))]
        grouped = np.concatenate([block[np.argsort(lengths[block], kind="stable")] for block in blocks])
        order[: full * batch_size] = rng.permutation(grouped.reshape(full, batch_size)).ravel()
    return [order[start : start + batch_size] for start in range(0, examples, batch_size)]


def by_length(lengths: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Yield all rows in batches of similar length, longest first.

    The longest batch comes first, so that memory runs out at the start or never.

    Args:
        lengths: tokens of each example, int64 [N].
        batch_size: examples per batch.
    """
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def collate(
    data: TokenizedSplit, rows: NDArray[np.int64], device: torch.device, pad_to: int | None = None
) -> dict[str, Tensor]:
    """Return one batch as a model's inputs and `labels`.

    Args:
        data: the split.
        rows: int64 [B], indices of examples.
        device: the device of the tensors.
        pad_to: number of positions n; None for the length of the batch's longest example.

    Returns:
        input_ids, attention_mask and, if the split has token types, token_type_ids, int64 [B, n]; labels [B].
    """
    lengths = data.lengths[rows]
    width = int(lengths.max()) if pad_to is None else pad_to
    mask = np.arange(width) < lengths[:, None]
    ids = np.full(mask.shape, data.pad_id, np.int64)
    flat = np.concatenate([np.arange(data.offsets[row], data.offsets[row + 1]) for row in rows])
    ids[mask] = data.ids[flat]
    batch = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    if data.types is not None:
        types = np.zeros(mask.shape, np.int64)
        types[mask] = data.types[flat]
        batch["token_type_ids"] = types
    batch["labels"] = data.labels[rows]
    return {name: send(array, device) for name, array in batch.items()}


def split_digest(split: TokenizedSplit) -> str:
    """Return a digest of a split's token ids and labels, which tells whether two runs used the same examples.

    Args:
        split: the tokenised split.

    Returns:
        16 hex digits.
    """
    return artifacts.digest(split.ids, split.offsets, split.labels)
