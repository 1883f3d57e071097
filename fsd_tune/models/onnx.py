"""A student as one ONNX file, by torch's own exporter, and the proof that it computes the same.

Not by `optimum`: every release of optimum-onnx asks for transformers below 4.58. Nor by torch's older exporter,
TorchScript's: of a tiny BERT of transformers 5.23 it made a file whose logits were off by 0.1.
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
    """The packages that are not installed."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def write(path: Path, model: Any, tokenizer: Any) -> float:
    """Write `path`: inputs as the tokenizer names them, int64 [batch, tokens], to `logits` float32 [batch, labels].

    Args:
        path: the file.
        model: a sequence classifier on the CPU in eval mode.
        tokenizer: its own.

    Returns:
        The largest difference of a logit from torch's, on batches of other sizes than the traced one.

    Raises:
        FsdTuneError: the file computes something else.
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
    """A classifier with positional inputs and nothing but its logits."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**dict(zip(self.names, values, strict=True))).logits
        return logits


def _batch(tokenizer: Any, texts: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return dict(tokenizer(list(texts), padding=True, return_tensors="pt"))


def _is_large(model: Any) -> bool:
    """Whether the weights go into a second file: one ONNX file holds at most 2 GiB."""
    return 4 * int(sum(parameter.numel() for parameter in model.parameters())) > 1.9 * 2**30


def _difference(path: Path, model: Any, batch: dict[str, torch.Tensor]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}
    found = session.run(["logits"], {name: value.numpy() for name, value in batch.items() if name in wanted})[0]
    with torch.inference_mode():
        expected = model(**batch).logits.numpy()
    return float(np.abs(found - expected).max())
