"""How alike teacher and student see the same sentences, layer by layer."""

import math
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsd_tune.cka import CentredGram, centred_gram, cka_of
from fsd_tune.data.batching import TokenizedSplit, by_length, collate, inputs_for
from fsd_tune.device import autocast, select_device
from fsd_tune.models.loading import quiet_transformers

_BATCH = 32
_EXAMPLES = 256


def layer_cka(
    teacher: Any, student: Any, data: TokenizedSplit, device: torch.device, precision: str = "float32"
) -> list[list[float]]:
    """Linear CKA between the tokens of an example in each layer of the student and of the teacher.

    What L_I compares (method.md, "Intra-feature"), for all pairs of layers; the mean over the examples for which it
    is defined.

    Args:
        teacher, student: classifiers of transformers that read the same token ids, of any widths.
        data: the examples, the first 256 of them used.
        device: where both compute.
        precision: float32 or bf16; CKA itself is in float32.

    Returns:
        [student layers + 1][teacher layers + 1], the embeddings first; NaN where no example defines it.
    """
    data = data.take(np.arange(min(len(data), _EXAMPLES)))
    models = [model.eval().to(device) for model in (student, teacher)]

    def grams() -> Iterator[list[list[CentredGram]]]:
        for rows in by_length(data.lengths, _BATCH):
            batch = collate(data, rows, device)
            batch.pop("labels")
            yield [_grams(model, batch, precision) for model in models]

    with torch.inference_mode():
        return mean_cka(grams())


def mean_cka(batches: Iterable[list[list[CentredGram]]]) -> list[list[float]]:
    """CKA of each pair of layers, the mean over the examples for which it is defined.

    Args:
        batches: for each batch the student's and the teacher's layers, each as Gram matrices [B, n, n].

    Returns:
        [student's layers][teacher's layers]; NaN where no example defines it.
    """
    total: torch.Tensor | None = None
    for ours, theirs in batches:
        parts = torch.stack([torch.stack([_sums(*cka_of(mine, other)) for other in theirs]) for mine in ours])
        total = parts if total is None else total + parts
    assert total is not None, "no examples"
    mean: list[list[float]] = (total[..., 0] / total[..., 1]).cpu().tolist()
    return mean


def of_folders(teacher: str, student: Path, data: TokenizedSplit, device: str) -> dict[str, Any]:
    """`layer_cka` of two models in folders (the teacher's may be an id of the hub).

    Returns:
        {"examples": N, "cka": as `layer_cka` gives it, None for NaN}
    """
    from transformers import AutoModelForSequenceClassification

    quiet_transformers()
    # The search's machine may lack the GPU that its trials had.
    where = select_device("auto" if device == "cuda" else device)
    load = partial(AutoModelForSequenceClassification.from_pretrained, dtype=torch.float32)
    found = layer_cka(load(teacher), load(student), data, where)
    table = [[round(value, 4) if math.isfinite(value) else None for value in row] for row in found]
    return {"examples": min(len(data), _EXAMPLES), "cka": table}


def _grams(model: Any, batch: dict[str, torch.Tensor], precision: str) -> list[CentredGram]:
    with autocast(precision, batch["input_ids"].device):
        hidden = model(**inputs_for(model, batch), output_hidden_states=True).hidden_states
    return [centred_gram(layer, batch["attention_mask"]) for layer in hidden]


def _sums(value: torch.Tensor, defined: torch.Tensor) -> torch.Tensor:
    """Sum and number of the defined ones."""
    return torch.stack([value[defined].sum(), defined.sum().to(value.dtype)])
