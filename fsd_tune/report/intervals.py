"""Means, differences and their intervals: over seeds by the paired t, over dev examples by a bootstrap.

A score depends on luck in two ways, so there are two intervals: for training with other seeds, and for being scored on
other examples.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_tune.data.splits import Task, compute_metrics

RESAMPLES = 2000
LEVEL = 0.95
# Of the weights [resamples, examples] held at once: 64 MB.
_WEIGHTS_AT_ONCE = 8 << 20


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval from `low` to `high`."""

    estimate: float
    low: float
    high: float

    @property
    def contains_zero(self) -> bool:
        """Whether the estimate may be noise."""
        return self.low <= 0.0 <= self.high


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the standard deviation (ddof 1) of scores.

    Args:
        values: scores. The mean of none and the deviation of fewer than two are NaN.
    """
    mean = math.fsum(values) / len(values) if values else math.nan
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def paired(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Return the mean of `first - second` with its paired t interval.

    Args:
        first: scores of a configuration, at least two.
        second: scores of another configuration on the same seeds, in the same order.
    """
    return mean_interval([a - b for a, b in zip(first, second, strict=True)])


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of scores with its t interval.

    Args:
        values: at least two scores.
    """
    from scipy.stats import t

    assert len(values) >= 2, len(values)
    mean, deviation = mean_and_deviation(values)
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def bootstrap(
    task: Task,
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    labels: NDArray[np.generic],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the difference in the selection metric, each the mean over its seeds, with an interval over examples.

    It is a percentile interval. Both configurations are scored on the same resamples of the examples.

    Args:
        task: gives the metric.
        first: logits [seeds, N, C] of a configuration.
        second: logits [seeds', N, C] of another one; the number of seeds may differ.
        labels: [N].
        resamples: how often the N examples are drawn with replacement.
        seed: of the drawing.
    """
    differences, full = [], np.ones((1, len(labels)))
    scorers = [_scorer(task, logits, labels) for logits in (first, second)]
    estimate = float((scorers[0](full) - scorers[1](full))[0])
    for weights in _weights(len(labels), resamples, seed):
        differences.append(scorers[0](weights) - scorers[1](weights))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(differences), [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def _weights(examples: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each example was drawn, [some resamples, N], in parts that fit the memory."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _WEIGHTS_AT_ONCE // examples)
    for start in range(0, resamples, at_once):
        rows = [
            np.bincount(generator.integers(0, examples, examples), minlength=examples)
            for _ in range(min(at_once, resamples - start))
        ]
        yield np.stack(rows).astype(np.float64)


def _scorer(
    task: Task, logits: NDArray[np.float32], labels: NDArray[np.generic]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return a function from weights [R, N] to the selection metric [R], the mean over the seeds.

    Every selection metric is a function of a few weighted sums over examples, so one matrix product scores all
    resamples; calling `evaluate` for each would take minutes. On the examples as they are, both must agree.
    """
    assert logits.ndim == 3 and logits.shape[1] == len(labels), (logits.shape, len(labels))
    formula = _FORMULAS[task.metric]
    if task.regression:
        predictions = logits[:, :, 0].astype(np.float64)
        truth = np.broadcast_to(labels.astype(np.float64), predictions.shape)
        # Centred first: sums of squares of uncentred scores would cancel.
        x, y = predictions - predictions.mean(axis=1, keepdims=True), truth - truth.mean()
        terms = np.stack([x, y, x * x, y * y, x * y])
    elif task.metric == "accuracy":
        terms = (logits.argmax(axis=2) == labels)[None].astype(np.float64)
    else:
        predicted = logits.argmax(axis=2)
        true = np.broadcast_to(labels, predicted.shape)
        classes = range(task.num_labels)
        terms = np.stack(
            [(predicted == k) & (true == k) for k in classes]
            + [predicted == k for k in classes]
            + [true == k for k in classes]
        ).astype(np.float64)
    seeds, examples = terms.shape[1:]
    columns = np.ascontiguousarray(terms.reshape(-1, examples).T)

    def score(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = (weights @ columns).reshape(len(weights), -1, seeds)
        values: NDArray[np.float64] = formula(examples, *np.moveaxis(sums, 1, 0)).mean(axis=1)
        return values

    whole = float(np.mean([compute_metrics(task, one, np.asarray(labels))[task.metric] for one in logits]))
    assert math.isclose(float(score(np.ones((1, examples)))[0]), whole, abs_tol=1e-6), "the formula is not the metric's"
    return score


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide, with 0 if the denominator is 0: an undefined metric counts as 0, as in `evaluate`."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _accuracy(examples: int, correct: NDArray[np.float64]) -> NDArray[np.float64]:
    return correct / examples


def _per_class(counts: tuple[NDArray[np.float64], ...]) -> NDArray[np.float64]:
    """Return [3, C, R, S]: how often each class was predicted rightly, predicted, and true."""
    return np.stack(counts).reshape(3, -1, *counts[0].shape)


def _f1(examples: int, *counts: NDArray[np.float64]) -> NDArray[np.float64]:
    both, predicted, true = _per_class(counts)[:, 1]
    return _ratio(2 * both, predicted + true)


def _macro_f1(examples: int, *counts: NDArray[np.float64]) -> NDArray[np.float64]:
    both, predicted, true = _per_class(counts)
    seen = predicted + true > 0
    mean: NDArray[np.float64] = _ratio(2 * both, predicted + true).sum(axis=0) / seen.sum(axis=0)
    return mean


def _matthews(examples: int, *counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R_K of Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient", 2004."""
    both, predicted, true = _per_class(counts)
    product = (examples**2 - (predicted**2).sum(axis=0)) * (examples**2 - (true**2).sum(axis=0))
    return _ratio(examples * both.sum(axis=0) - (predicted * true).sum(axis=0), np.sqrt(product))


def _pearson(
    examples: int,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    xx: NDArray[np.float64],
    yy: NDArray[np.float64],
    xy: NDArray[np.float64],
) -> NDArray[np.float64]:
    # Of constant predictions rounding leaves a variance that is not quite 0.
    var_x, var_y = xx - x * x / examples, yy - y * y / examples
    product = np.where((var_x > 1e-9 * xx) & (var_y > 1e-9 * yy), var_x * var_y, 0.0)
    return _ratio(xy - x * y / examples, np.sqrt(product))


_FORMULAS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews_correlation": _matthews,
    "pearson": _pearson,
}
