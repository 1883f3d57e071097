"""Export a classifier as one ONNX file with torch's exporter, check that it computes the same logits, and run it.

`optimum` is not used because every release of optimum-onnx requires transformers below 4.58. torch's older TorchScript
exporter is not used because its file for a tiny BERT of transformers 5.23 gave logits that were off by 0.1.
"""

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune.errors import FsdTuneError
from fsd_tune.models.inputs import inputs_for, reads_types, takes_four_dimensions

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-3
# Lengths of the examples that are traced, and of two batches of other sizes that are compared.
_TRACED = (4, 11)
_COMPARED = ((5,), (4, 11, 7) * 2)


def lacking() -> list[str]:
    """Return the packages that the export needs and that are not installed."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def input_names(model: Any) -> list[str]:
    """Return the names of a classifier's inputs, in the order of BERT's tokenizer.

    Args:
        model: a transformers classifier.
    """
    return ["input_ids", *(["token_type_ids"] if reads_types(model) else []), "attention_mask"]


def write_onnx(path: Path, model: Any, names: Sequence[str]) -> float:
    """Write a model that maps its inputs, int64 [batch, tokens], to `logits`, float32 [batch, labels].

    Args:
        path: the file.
        model: a sequence classifier on the CPU in eval mode.
        names: the names of the inputs, such as those that the model's tokenizer makes.

    Returns:
        The largest absolute difference of a logit from torch's, on batches of other sizes than the traced one.

    Raises:
        FsdTuneError: the logits differ by more than 1e-3.
    """
    batch = random_batch(model.config, names, _TRACED)
    dimensions = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), warnings_unlogged(), _plain_attention(model):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Logits(model, names), tuple(batch.values()), str(path), input_names=list(names), output_names=["logits"],
            dynamic_shapes=(tuple(dimensions for _ in names),), dynamo=True, external_data=_is_large(model),
            verbose=False,
        )  # fmt: skip
    session = open_session(path)
    difference = max(_difference(session, model, random_batch(model.config, names, lengths)) for lengths in _COMPARED)
    if not difference <= _TOLERANCE:
        raise FsdTuneError(f"The ONNX file's logits differ from the model's by {difference:.3g}; it was not kept.")
    return difference


def open_session(path: Path, threads: int | None = None) -> Any:
    """Return an ONNX Runtime session on the CPU.

    Args:
        path: an ONNX file.
        threads: threads that compute one batch; None for one on each core.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])


def run_session(session: Any, batch: dict[str, torch.Tensor]) -> NDArray[np.float32]:
    """Return the logits of one batch, float32 [B, C].

    Args:
        session: of `open_session`.
        batch: the inputs, int64 [B, n]; those that the file does not have are left out.
    """
    names = [node.name for node in session.get_inputs()]
    logits: NDArray[np.float32] = session.run(["logits"], {name: batch[name].numpy() for name in names})[0]
    return logits


def random_batch(config: Any, names: Sequence[str], lengths: Sequence[int]) -> dict[str, torch.Tensor]:
    """Return a batch of random tokens.

    Args:
        config: the model's configuration.
        names: the names of the inputs.
        lengths: the number of tokens of each example.

    Returns:
        int64 [B, n] by name, padded to the longest example.
    """
    padding = config.pad_token_id or 0
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(config.vocab_size - 1, mask.shape, generator=torch.Generator().manual_seed(0))
    ids += ids >= padding  # Any token but padding.
    values = {
        "input_ids": torch.where(mask, ids, padding),
        "attention_mask": mask.long(),
        "token_type_ids": torch.zeros_like(ids),
    }
    return {name: values[name] for name in names}


@contextmanager
def warnings_unlogged() -> Iterator[None]:
    """Silence the advice that torch's exporter and ONNX Runtime log, such as on missing torchvision."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class _Logits(torch.nn.Module):
    """A classifier with positional inputs that returns its logits alone."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        batch = dict(zip(self.names, values, strict=True))
        if takes_four_dimensions(self.model):
            batch = inputs_for(self.model, batch)
        logits: torch.Tensor = self.model(**batch).logits
        return logits


@contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """Let a model compute attention by matrix products while it is traced, for a smaller graph than sdpa's.

    For a BERT of three layers it has 108 nodes instead of 163.
    """
    before = model.config._attn_implementation
    if not takes_four_dimensions(model):
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _is_large(model: Any) -> bool:
    """Return whether the weights need a second file, because one ONNX file holds at most 2 GiB."""
    return 4 * int(sum(parameter.numel() for parameter in model.parameters())) > 1.9 * 2**30


def _difference(session: Any, model: Any, batch: dict[str, torch.Tensor]) -> float:
    with torch.inference_mode():
        expected = model(**batch).logits.numpy()
    return float(np.abs(run_session(session, batch) - expected).max())
