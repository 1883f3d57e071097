"""Metrics from logits, computed by scikit-learn and SciPy (docs/explanation/method.md, "Metrics")."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fsd_tune.data.tasks import Task

if TYPE_CHECKING:
    import numpy as np


def compute_metrics(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return every metric of the task, the one for selection first.

    A prediction is the index of the largest logit, or for regression `logits[:, 0]`, not clipped. F1 is that of
    class 1; macro F1 is the mean over the classes that occur among predictions or labels. A correlation or F1 that is
    undefined because predictions or labels are constant is 0.

    Args:
        task: the task.
        logits: [N, num_labels], any floating dtype.
        labels: [N] int64 class indices or float32 scores.

    Returns:
        Values by metric; NaN for all if a logit is not finite, because the run has diverged.
    """
    import numpy as np

    assert logits.shape == (len(labels), task.num_labels), f"logits are {logits.shape}, labels {labels.shape}"
    assert len(labels) > 0, "no examples to evaluate"
    if not np.isfinite(logits).all():
        return dict.fromkeys(task.metrics, math.nan)
    predictions = logits[:, 0].astype(np.float64) if task.regression else logits.argmax(axis=1)
    return {metric: _METRICS[metric](labels, predictions) for metric in task.metrics}


def standard_error(metric: str, score: float, examples: int) -> float | None:
    """Return how far a score may lie from that on all possible examples, as a standard error.

    The error is sqrt(p (1 - p) / n) for accuracy and macro F1, sqrt(p (1 - p) (2 - p) / n) for F1 with as many positive
    as negative examples, (1 - r^2) / sqrt(n) for the correlations of Pearson and Spearman, and sqrt((1 - r^2) / n) for
    that of Matthews (docs/explanation/method.md, "Metrics").

    Args:
        metric: the name of the metric.
        score: the value of the metric.
        examples: the number of examples that it was measured on, at least 1.

    Returns:
        The standard error in units of the score; None for a metric of another program.
    """
    if metric not in _METRICS:
        return None
    if metric in ("pearson", "spearman"):
        return (1 - score**2) / math.sqrt(examples)
    if metric == "matthews_correlation":
        return math.sqrt((1 - score**2) / examples)
    variance = max(score * (1 - score), 0.0) * (2 - score if metric == "f1" else 1.0)
    return math.sqrt(variance / examples)


def _accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float((labels == predictions).mean())


def _f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, pos_label=1, zero_division=0.0))


def _macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def _matthews_correlation(labels: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions)) if _vary(labels, predictions) else 0.0


def _pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    from scipy.stats import pearsonr

    return _correlation(pearsonr, labels, predictions)


def _spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return _correlation(spearmanr, labels, predictions)


def _correlation(function: Callable[..., Any], labels: np.ndarray, predictions: np.ndarray) -> float:
    if not _vary(labels, predictions):
        return 0.0
    with warnings.catch_warnings():  # SciPy warns of predictions that differ only by rounding.
        warnings.simplefilter("ignore")
        value = float(function(labels.astype("float64"), predictions).statistic)
    return value if math.isfinite(value) else 0.0


def _vary(*arrays: np.ndarray) -> bool:
    return all(bool((array != array[0]).any()) for array in arrays)


_METRICS = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews_correlation": _matthews_correlation,
    "pearson": _pearson,
    "spearman": _spearman,
}
