"""CKA between all layers of a student and all layers of its teacher, from live models or from stored features."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsd_tune.cka import CentredGram, centred_gram, cka_of
from fsd_tune.data.batching import TokenizedSplit, by_length, collate
from fsd_tune.device import autocast, select_device
from fsd_tune.models.inputs import inputs_for
from fsd_tune.models.loading import load_finished

_BATCH = 32
_EXAMPLES = 256

# Per batch: the student's layers and the teacher's, each [B, n, width], and the mask [B, n] of real tokens.
LayerFeatures = tuple[Sequence[Tensor], Sequence[Tensor], Tensor]
# Per batch: the centred Gram matrices of the student's layers and of the teacher's, each [..., n, n].
LayerGrams = tuple[Sequence[CentredGram], Sequence[CentredGram]]


def layer_cka(
    teacher: Any, student: Any, data: TokenizedSplit, device: torch.device, precision: str = "float32"
) -> list[list[float]]:
    """Return the token-wise linear CKA of each layer of the student with each layer of the teacher.

    This is the value that L_I compares (docs/explanation/method.md, "Loss terms"), for all pairs of layers.

    Args:
        teacher: a transformers classifier.
        student: a transformers classifier that reads the same token ids, of any width.
        data: the examples; only the first 256 are used.
        device: the device that both models run on.
        precision: float32 or bf16 for the models; CKA itself is computed in float32.

    Returns:
        [student layers + 1][teacher layers + 1], embeddings first, the mean over the examples for which CKA is
        defined; NaN if it is defined for none.
    """
    data = data.take(np.arange(min(len(data), _EXAMPLES)))
    models = [model.eval().to(device) for model in (student, teacher)]

    def features() -> Iterator[LayerFeatures]:
        for rows in by_length(data.lengths, _BATCH):
            batch = collate(data, rows, device)
            batch.pop("labels")
            student_layers, teacher_layers = (_hidden_states(model, batch, precision) for model in models)
            yield student_layers, teacher_layers, batch["attention_mask"]

    with torch.inference_mode():
        return token_cka(features())


def token_cka(batches: Iterable[LayerFeatures]) -> list[list[float]]:
    """Return the token-wise CKA of each pair of layers, the mean over examples, from features by layer.

    Args:
        batches: for each batch the student's layers [B, n, H'], the teacher's layers [B, n, H] and the mask [B, n].

    Returns:
        [student layers][teacher layers]; NaN if CKA is defined for no example.
    """
    return mean_cka(
        ([centred_gram(layer, mask) for layer in student], [centred_gram(layer, mask) for layer in teacher])
        for student, teacher, mask in batches
    )


def mean_cka(batches: Iterable[LayerGrams]) -> list[list[float]]:
    """Return the CKA of each pair of layers, the mean over all batch entries for which it is defined.

    Args:
        batches: for each batch the student's and the teacher's layers as centred Gram matrices [..., n, n].

    Returns:
        [student layers][teacher layers]; NaN if CKA is defined for no entry.
    """
    total: Tensor | None = None
    for student, teacher in batches:
        parts = torch.stack(
            [torch.stack([_sum_and_count(*cka_of(row, column)) for column in teacher]) for row in student]
        )
        total = parts if total is None else total + parts
    assert total is not None, "no examples"
    mean: list[list[float]] = (total[..., 0] / total[..., 1]).cpu().tolist()
    return mean


def of_teacher(teacher: str, student: Any, data: TokenizedSplit, device: str) -> dict[str, Any]:
    """Load the teacher of a student and return their `layer_cka` as plain JSON.

    Args:
        teacher: folder or hub id.
        student: a transformers classifier.
        data: the examples; only the first 256 are used.
        device: the trials' device; cuda falls back to the CPU, because the driver's machine may have no GPU.

    Returns:
        {"examples": N, "cka": [student layers + 1][teacher layers + 1], None in place of NaN}
    """
    compute_on = select_device("auto" if device == "cuda" else device)
    values = layer_cka(load_finished(teacher), student, data, compute_on)
    table = [[round(value, 4) if math.isfinite(value) else None for value in row] for row in values]
    return {"examples": min(len(data), _EXAMPLES), "cka": table}


def _hidden_states(model: Any, batch: dict[str, Tensor], precision: str) -> Sequence[Tensor]:
    with autocast(precision, batch["input_ids"].device):
        hidden: Sequence[Tensor] = model(**inputs_for(model, batch), output_hidden_states=True).hidden_states
    return hidden


def _sum_and_count(value: Tensor, defined: Tensor) -> Tensor:
    """Return the sum and the number of the defined values, as one tensor [2]."""
    return torch.stack([torch.where(defined, value, 0.0).sum(), defined.sum().to(value.dtype)])
