"""Export a student as one ONNX file with torch's exporter, and check that it computes the same logits.

`optimum` is not used because every release of optimum-onnx requires transformers below 4.58. torch's older TorchScript
exporter is not used because its file for a tiny BERT of transformers 5.23 gave logits that were off by 0.1.
"""

import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsd_tune.errors import FsdTuneError

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_TEXTS = ("A sentence.", "Another one, which is longer than the first.", "A third sentence, and the last")
_TOLERANCE = 1e-3


def lacking() -> list[str]:
    """Return the packages that the export needs and that are not installed."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def write_onnx(path: Path, model: Any, tokenizer: Any) -> float:
    """Write a model that maps the tokenizer's inputs, int64 [batch, tokens], to `logits`, float32 [batch, labels].

    Args:
        path: the file.
        model: a sequence classifier on the CPU in eval mode.
        tokenizer: the model's tokenizer.

    Returns:
        The largest absolute difference of a logit from torch's, on batches of other sizes than the traced one.

    Raises:
        FsdTuneError: the logits differ by more than 1e-3.
    """
    batch = _batch(tokenizer, _TEXTS[:2])
    names = list(batch)
    dimensions = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Logits(model, names), tuple(batch.values()), str(path), input_names=names, output_names=["logits"],
            dynamic_shapes=(tuple(dimensions for _ in names),), dynamo=True, external_data=_is_large(model),
            verbose=False,
        )  # fmt: skip
    difference = max(_difference(path, model, _batch(tokenizer, texts)) for texts in (_TEXTS[:1], _TEXTS * 2))
    if not difference <= _TOLERANCE:
        raise FsdTuneError(f"The ONNX file's logits differ from the model's by {difference:.3g}; it was not kept.")
    return difference


class _Logits(torch.nn.Module):
    """A classifier with positional inputs that returns its logits alone."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**dict(zip(self.names, values, strict=True))).logits
        return logits


def _batch(tokenizer: Any, texts: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return dict(tokenizer(list(texts), padding=True, return_tensors="pt"))


def _is_large(model: Any) -> bool:
    """Return whether the weights need a second file, because one ONNX file holds at most 2 GiB."""
    return 4 * int(sum(parameter.numel() for parameter in model.parameters())) > 1.9 * 2**30


def _difference(path: Path, model: Any, batch: dict[str, torch.Tensor]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    names = {node.name for node in session.get_inputs()}
    logits = session.run(["logits"], {name: value.numpy() for name, value in batch.items() if name in names})[0]
    with torch.inference_mode():
        expected = model(**batch).logits.numpy()
    return float(np.abs(logits - expected).max())
