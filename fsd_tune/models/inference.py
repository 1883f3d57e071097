"""Run a classifier over a split, and score a finished student on dev."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune.data import splits
from fsd_tune.data.batching import TokenizedSplit, by_length, collate, inputs_for
from fsd_tune.device import autocast, select_device

EVALUATION_BATCH = 64


def score_on_dev(folder: Path, task: splits.Task, dev: TokenizedSplit, precision: str, device: str) -> dict[str, Any]:
    """The score of a student's folder on dev, which has chosen nothing.

    Returns:
        {"score": the task's metric, "metrics": all of them, "examples": N}
    """
    from transformers import AutoModelForSequenceClassification

    # The driver may be a machine without the trials' GPU.
    where = select_device("auto" if device == "cuda" else device)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).to(where)
    metrics = splits.evaluate(task, predict(model, dev, precision, where), dev.labels)
    return {"score": metrics[task.metric], "metrics": metrics, "examples": len(dev)}


def predict(
    model: Any,
    data: TokenizedSplit,
    precision: str,
    device: torch.device,
    progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """Logits float32 [N, C] of a model in eval mode, in the split's order; batches are sorted by length.

    After each batch `progress` is told how many examples are done.
    """
    model.eval()
    parts, rows, done = [], [], 0
    with torch.inference_mode(), autocast(precision, device):
        for chosen in by_length(data.lengths, EVALUATION_BATCH):
            batch = collate(data, chosen, device)
            batch.pop("labels")
            parts.append(model(**inputs_for(model, batch)).logits.float())
            rows.append(chosen)
            done += len(chosen)
            progress(done)
    logits = torch.cat(parts).cpu().numpy()
    out = np.empty_like(logits)
    out[np.concatenate(rows)] = logits
    return out
