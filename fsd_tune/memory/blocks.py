"""Flattened features of stored teacher outputs, block by block: dense in bounded memory, whatever the split's size."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.memory.teacher_outputs import TeacherOutputs

# Small enough that a block's examples are of nearly one length, large enough for the products to be quick.
BLOCK_BYTES = 1 << 24


def dense(outputs: TeacherOutputs, layer: int, rows: NDArray[np.int64], width: int, device: torch.device) -> Tensor:
    """Flattened features of the given examples, float32 [rows, width * H]."""
    return torch.from_numpy(outputs.features(layer, rows, width)).to(device).flatten(1).float()


def blocks(
    outputs: TeacherOutputs, layer: int, rows: NDArray[np.int64] | None = None
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """All rows, or the given ones, longest first, in blocks that are dense in bounded memory, each with its width.

    Blocks of similar length need products over few positions beyond the stored ones.
    """
    lengths = np.diff(outputs.offsets)
    order = np.arange(len(outputs)) if rows is None else rows
    order = order[np.argsort(-lengths[order], kind="stable")]
    start = 0
    while start < len(order):
        width = int(lengths[order[start]])
        end = start + max(1, BLOCK_BYTES // (4 * width * outputs.width(layer)))
        yield order[start:end], width
        start = end
