"""Ragged arrays of a whole split on a GPU, from which a batch is gathered without reading the host's arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.data.batching import TokenizedSplit
from fsd_tune.device import send


def positions(offsets: NDArray[np.int64], rows: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return the positions of examples in a ragged array.

    Args:
        offsets: int64 [N + 1]; example i has the positions offsets[i] to offsets[i + 1].
        rows: examples, int64 [B].
        width: positions n of the result.

    Returns:
        int64 [B, n]; offsets[N], one after the last position, beyond an example's end.
    """
    found = offsets[rows][:, None] + np.arange(width)
    return np.where(found < offsets[rows + 1][:, None], found, offsets[-1])


class RaggedTensors:
    """Ragged tensors with the same offsets on a device."""

    def __init__(
        self, arrays: Mapping[str, tuple[Sequence[NDArray[Any]], int]], offsets: NDArray[np.int64], device: torch.device
    ) -> None:
        """Copy the arrays to the device.

        Args:
            arrays: by name the consecutive parts of each array, [positions, ...], and the value beyond an example's
                end.
            offsets: int64 [N + 1], as for `positions`.
            device: where the tensors lie.
        """
        self._offsets = offsets
        self._device = device
        self._tensors: dict[str, Tensor] = {}
        for name, (parts, padding) in arrays.items():
            rows = int(offsets[-1])
            sample = torch.from_numpy(np.array(parts[0][:1]))
            tensor = torch.empty((rows + 1, *sample.shape[1:]), dtype=sample.dtype, device=device)
            start = 0
            for part in parts:
                # torch warns about read-only arrays, such as those of files and of Ray's store, so copy them.
                tensor[start : start + len(part)] = torch.from_numpy(np.array(part))
                start += len(part)
            tensor[rows] = padding
            self._tensors[name] = tensor

    def gather(self, rows: NDArray[np.int64], width: int) -> dict[str, Tensor]:
        """Return the given examples, padded.

        Args:
            rows: examples, int64 [B].
            width: positions n of the result.

        Returns:
            [B, n, ...] by name.
        """
        if not self._tensors:
            return {}
        index = send(positions(self._offsets, rows, width), self._device)
        return {name: tensor[index] for name, tensor in self._tensors.items()}


class ResidentSplit:
    """A split that lies on a device, and makes its batches there."""

    def __init__(self, split: TokenizedSplit, device: torch.device) -> None:
        """Copy the split to the device.

        Args:
            split: the split.
            device: where batches are made.
        """
        arrays: dict[str, tuple[Sequence[NDArray[Any]], int]] = {"input_ids": ([split.ids], split.pad_id)}
        if split.types is not None:
            arrays["token_type_ids"] = ([split.types], 0)
        self._ragged = RaggedTensors(arrays, split.offsets, device)
        self._lengths = split.lengths
        self._labels = torch.from_numpy(np.array(split.labels)).to(device)
        self._device = device

    def collate(self, rows: NDArray[np.int64], pad_to: int | None = None) -> dict[str, Tensor]:
        """Return one batch, equal to that of `batching.collate`.

        Args:
            rows: int64 [B], indices of examples.
            pad_to: number of positions n; None for the length of the batch's longest example.
        """
        lengths = self._lengths[rows]
        width = int(lengths.max()) if pad_to is None else pad_to
        batch = {name: values.long() for name, values in self._ragged.gather(rows, width).items()}
        mask = (np.arange(width) < lengths[:, None]).astype(np.int64)
        batch["attention_mask"] = send(mask, self._device)
        batch["labels"] = self._labels[send(rows, self._device)]
        return batch
