"""Run a classifier over a split, and score a finished student on dev."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune.data import splits
from fsd_tune.data.batching import TokenizedSplit, by_length, collate
from fsd_tune.device import autocast, select_device
from fsd_tune.models.loading import load_finished
from fsd_tune.models.packing import classify

EVALUATION_BATCH = 64


def score_on_dev(
    student: Path | Any, task: splits.Task, dev: TokenizedSplit, precision: str, device: str
) -> dict[str, Any]:
    """Score a finished student on a dev split that was not used for selection.

    Args:
        student: a transformers classifier, or its folder.
        task: the task.
        dev: the tokenised dev split.
        precision: float32 or bf16.
        device: the trials' device; cuda falls back to the CPU, because the driver's machine may have no GPU.

    Returns:
        {"score": the task's metric, "metrics": all of them, "examples": N}
    """
    compute_on = select_device("auto" if device == "cuda" else device)
    model = (load_finished(student) if isinstance(student, Path) else student).to(compute_on)
    metrics = splits.compute_metrics(task, predict(model, dev, precision, compute_on), dev.labels)
    return {"score": metrics[task.metric], "metrics": metrics, "examples": len(dev)}


def predict(
    model: Any,
    data: TokenizedSplit,
    precision: str,
    device: torch.device,
    progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """Return the logits of a model on a split, in the split's order.

    Batches are formed by length, which avoids padding.

    Args:
        model: a transformers classifier on `device`; switched to eval mode.
        data: the tokenised split.
        precision: float32 or bf16.
        device: the model's device.
        progress: called after each batch with the number of examples done.

    Returns:
        float32 [N, C].
    """
    model.eval()
    parts = []
    rows = []
    done = 0
    with torch.inference_mode(), autocast(precision, device):
        for chosen in by_length(data.lengths, EVALUATION_BATCH):
            batch = collate(data, chosen, device)
            batch.pop("labels")
            parts.append(classify(model, batch).logits.float())
            rows.append(chosen)
            done += len(chosen)
            progress(done)
    logits = torch.cat(parts).cpu().numpy()
    in_order = np.empty_like(logits)
    in_order[np.concatenate(rows)] = logits
    return in_order
