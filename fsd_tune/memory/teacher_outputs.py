"""Teacher outputs on disk: logits and the features of the paired layers of every training example, from one pass.

Features are in half precision and ragged (real tokens only, or all positions with `padding: published`), in
memory-mapped shards. See docs/explanation/method.md, "Teacher outputs".
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.data.batching import TokenizedSplit, by_length, collate
from fsd_tune.device import autocast
from fsd_tune.errors import FsdTuneError
from fsd_tune.memory import sizes
from fsd_tune.models.inputs import inputs_for
from fsd_tune.storage import artifacts

# Called with the name of a stage, the units done and their total.
Progress = Callable[[str, int, int], None]

SHARD_BYTES = 1 << 30
# Small enough that the examples of a block have nearly one length, large enough for the products to be quick.
BLOCK_BYTES = 1 << 24
_BATCH = 64


@dataclass(frozen=True)
class TeacherOutputs:
    """Read-only teacher outputs, on disk or in Ray's object store.

    Attributes:
        logits: float32 [N, C], not softened, because the temperature is searched.
        offsets: int64 [N + 1]; example i has the stored positions offsets[i] to offsets[i + 1].
        shards: features of each layer, float16 [positions, H], cut into shards between examples.
        shard_starts: first example of each shard, and N, int64 [shards + 1].
        unchecked: folder of mapped shards, each of which is checked when it is first read; None if they are checked.
    """

    logits: NDArray[np.float32]
    offsets: NDArray[np.int64]
    shards: dict[int, list[NDArray[np.float16]]]
    shard_starts: NDArray[np.int64]
    unchecked: Path | None = None
    _checked: set[tuple[int, int]] = field(default_factory=set, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def longest(self) -> int:
        """The largest number of positions of an example."""
        return int(np.diff(self.offsets).max())

    def width(self, layer: int) -> int:
        """Return the hidden size of a layer.

        Args:
            layer: an index into `hidden_states`, one of the layers whose features are stored.
        """
        return int(self.shards[layer][0].shape[-1])

    def features(self, layer: int, rows: NDArray[np.int64], width: int) -> NDArray[np.float16]:
        """Return features of the given examples, zero beyond the stored positions of each.

        Args:
            layer: index of `hidden_states`.
            rows: examples, int64 [B].
            width: positions of the result.

        Returns:
            float16 [B, width, H].

        Raises:
            DamagedError: a shard is damaged.
        """
        out = np.zeros((len(rows), width, self.width(layer)), np.float16)
        shard_of = np.searchsorted(self.shard_starts, rows, "right") - 1
        if self.unchecked is not None:
            for shard in {int(shard) for shard in shard_of if (layer, int(shard)) not in self._checked}:
                artifacts.check_once(_shard_path(self.unchecked, layer, shard))
                self._checked.add((layer, shard))
        for i, (row, shard) in enumerate(zip(rows, shard_of, strict=True)):
            base = self.offsets[self.shard_starts[shard]]
            start, end = self.offsets[row] - base, self.offsets[row + 1] - base
            out[i, : end - start] = self.shards[layer][shard][start:end]
        return out

    @property
    def nbytes(self) -> int:
        """The size of all arrays in bytes."""
        return int(self.logits.nbytes + self.offsets.nbytes + sum(s.nbytes for x in self.shards.values() for s in x))


def outputs_key(
    teacher: str, order: Sequence[int], data: TokenizedSplit, layers: Sequence[int], padding: str, precision: str
) -> str:
    """Return the name of the outputs: a digest of everything that they depend on.

    Args:
        teacher: fingerprint of the teacher's files.
        order: index of the teacher's logit for each label of the task.
        data: token ids; they stand for sentences, tokenizer and maximum length.
        layers: indices of `hidden_states`.
        padding: masked or published.
        precision: bf16 or float32.
    """
    types = data.types if data.types is not None else b""
    facts = [teacher, list(order), sorted(layers), padding, precision, data.max_length]
    return artifacts.digest(facts, data.ids, data.offsets, types)


def write_outputs(
    folder: Path,
    model: Any,
    order: Sequence[int],
    data: TokenizedSplit,
    layers: Sequence[int],
    padding: str,
    precision: str,
    device: torch.device,
    progress: Progress,
) -> None:
    """Run the teacher once over a split and write its outputs.

    Args:
        folder: folder to write.
        model: the teacher, a sequence classifier.
        order: index of the teacher's logit for each label of the task.
        data: the split.
        layers: indices of `hidden_states` to keep.
        padding: `masked` stores real tokens only, `published` all positions up to the maximum length.
        precision: of the forward pass, bf16 or float32.
        device: where the teacher runs.
        progress: called with the number of examples done.

    Raises:
        FsdTuneError: the disk is full, or an output is not a finite number of half precision.
    """
    started = time.monotonic()
    model = model.to(device).eval()
    hidden = model.config.hidden_size
    lengths = data.lengths if padding == "masked" else np.full(len(data), data.max_length, np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    starts = _shard_starts(offsets, hidden * 2)
    logits = np.empty((len(data), len(order)), np.float32)
    needed = sizes.outputs_bytes(int(offsets[-1]), len(data), hidden, len(layers), len(order))
    with artifacts.writing(folder, bytes_needed=needed) as (temporary, facts):
        shards = {
            layer: [
                artifacts.reserved(
                    _shard_path(temporary, layer, index),
                    (int(offsets[end] - offsets[start]), hidden),
                    np.float16,
                )
                for index, (start, end) in enumerate(itertools.pairwise(starts))
            ]
            for layer in layers
        }
        done = 0
        for rows in by_length(data.lengths, _BATCH):
            batch = collate(data, rows, device, pad_to=data.max_length if padding == "published" else None)
            batch.pop("labels")
            with torch.inference_mode(), autocast(precision, device):
                out = model(**inputs_for(model, batch), output_hidden_states=True)
            logits[rows] = out.logits.float().cpu().numpy()[:, list(order)]
            _require_finite(logits[rows], "logits")
            for layer in layers:
                features = out.hidden_states[layer].half().cpu().numpy()
                for i, row in enumerate(rows):
                    shard = int(np.searchsorted(starts, row, "right")) - 1
                    begin = offsets[row] - offsets[starts[shard]]
                    stored = features[i, : lengths[row]]
                    _require_finite(stored, f"hidden states of layer {layer}")
                    shards[layer][shard][begin : begin + lengths[row]] = stored
            done += len(rows)
            progress("teacher pass", done, len(data))
        np.save(temporary / "logits.npy", logits)
        np.save(temporary / "offsets.npy", offsets)
        np.save(temporary / "shard_starts.npy", starts)
        facts.update(
            examples=len(data),
            tokens=int(offsets[-1]),
            layers=sorted(layers),
            hidden_size=hidden,
            padding=padding,
            precision=precision,
            seconds=round(time.monotonic() - started, 3),
        )


def _require_finite(values: NDArray[Any], name: str) -> None:
    """Check outputs of the teacher, as they are stored."""
    if not np.isfinite(values).all():
        reason = "not finite" if values.dtype != np.float16 else "NaN, or above 65,504, the largest number of float16"
        raise FsdTuneError(
            f"--teacher: its {name} are {reason}, so students cannot learn from them; check it with "
            "`fsd-tune evaluate`, or compare other layers (loss.layers)."
        )


def _shard_starts(offsets: NDArray[np.int64], bytes_per_position: int) -> NDArray[np.int64]:
    """Return the first example of each shard, and N; a shard has at most SHARD_BYTES, or one example."""
    starts, last = [0], len(offsets) - 1
    while starts[-1] < last:
        limit = offsets[starts[-1]] + SHARD_BYTES // bytes_per_position
        end = int(np.searchsorted(offsets, limit, "right")) - 1
        starts.append(min(max(end, starts[-1] + 1), last))
    return np.asarray(starts, np.int64)


def read_outputs(folder: Path, mapped: bool) -> TeacherOutputs:
    """Return the outputs in `folder`.

    Args:
        folder: a folder that `write_outputs` has written.
        mapped: map the files instead of reading them into memory.

    Raises:
        DamagedError: a file is damaged.
    """
    layers = sorted({int(path.name.split("_")[1]) for path in folder.glob("layer_*.npy")})
    starts = artifacts.read_array(folder / "shard_starts.npy")
    paths = {layer: [_shard_path(folder, layer, index) for index in range(len(starts) - 1)] for layer in layers}
    return TeacherOutputs(
        logits=artifacts.read_array(folder / "logits.npy"),
        offsets=artifacts.read_array(folder / "offsets.npy"),
        shards={
            # A mapped shard is checked when its first example is read.
            layer: [np.load(path, mmap_mode="r") if mapped else artifacts.read_array(path) for path in paths[layer]]
            for layer in layers
        },
        shard_starts=starts,
        unchecked=folder if mapped else None,
    )


def _shard_path(folder: Path, layer: int, shard: int) -> Path:
    return folder / f"layer_{layer:02d}_{shard:04d}.npy"


def dense(outputs: TeacherOutputs, layer: int, rows: NDArray[np.int64], width: int, device: torch.device) -> Tensor:
    """Return flattened features of the given examples.

    Args:
        outputs: the teacher's outputs.
        layer: index of `hidden_states`.
        rows: examples, int64 [B].
        width: positions of each example.
        device: the device of the result.

    Returns:
        float32 [B, width * H].
    """
    return torch.from_numpy(outputs.features(layer, rows, width)).to(device).flatten(1).float()


def blocks(
    outputs: TeacherOutputs, layer: int, rows: NDArray[np.int64] | None = None
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yield examples in blocks whose dense features fit bounded memory, longest examples first.

    The examples of a block have similar lengths, so that products run over few positions beyond the stored ones.

    Args:
        outputs: the teacher's outputs.
        layer: index of `hidden_states`.
        rows: examples, int64; None for all.

    Yields:
        The examples of a block, int64 [B], and the positions of the longest one.
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
