"""Means and differences of scores, and how they vary: over seeds by Student's t, over dev examples by a bootstrap."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_tune.data.splits import Task, compute_metrics

RESAMPLES = 2000
LEVEL = 0.95
# The number of float64 weights [resamples, examples] in memory at once: 64 MB.
_WEIGHTS_AT_ONCE = 8 << 20


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval from `low` to `high`."""

    estimate: float
    low: float
    high: float

    @property
    def contains_zero(self) -> bool:
        """True if the interval contains 0, so that the estimate may be noise."""
        return self.low <= 0.0 <= self.high


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the standard deviation (ddof 1) of scores.

    Args:
        values: the scores.

    Returns:
        The mean, NaN without scores, and the standard deviation, NaN for fewer than two.
    """
    mean = math.fsum(values) / len(values) if values else math.nan
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def paired(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Return the mean of `first - second` with its paired t interval, over seeds alone.

    Args:
        first: scores of a configuration, at least two.
        second: scores of another configuration on the same seeds, in the same order.
    """
    return mean_interval([a - b for a, b in zip(first, second, strict=True)])


def right_tailed_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the p-value of the paired t-test that `first` has the larger mean.

    Args:
        first: scores of a configuration, at least two.
        second: scores of another configuration on the same seeds, in the same order.

    Returns:
        The probability of a difference at least this large if the true one is 0. Without any spread it is 0, 0.5 or 1,
        by the sign of the difference.
    """
    from scipy.stats import t

    differences = [a - b for a, b in zip(first, second, strict=True)]
    assert len(differences) >= 2, len(differences)
    mean, deviation = mean_and_deviation(differences)
    if deviation == 0:
        return 0.5 - 0.5 * float(np.sign(mean))
    return float(t.sf(mean / deviation * math.sqrt(len(differences)), len(differences) - 1))


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


def example_error(
    task: Task,
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    labels: NDArray[np.generic],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Return the standard error, over dev examples, of the difference of two configurations in the selection metric.

    The metric is averaged over the seeds of each configuration. Both configurations are scored on the same resamples
    of the examples (bootstrap).

    Args:
        task: the task, which names the metric.
        first: logits [seeds, N, C] of a configuration.
        second: logits [seeds', N, C] of another one; the number of seeds may differ.
        labels: the labels [N].
        resamples: the number of draws of N examples with replacement.
        seed: the seed of the draws.
    """
    scorers = [_scorer(task, logits, labels) for logits in (first, second)]
    differences = [scorers[0](weights) - scorers[1](weights) for weights in _weights(len(labels), resamples, seed)]
    return float(np.concatenate(differences).std(ddof=1))


def _weights(examples: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield the number of times that each example was drawn, [some resamples, N], in parts that fit in memory."""
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
    resamples. Calling `evaluate` for each would take minutes. On the original examples, both must agree.
    """
    assert logits.ndim == 3 and logits.shape[1] == len(labels), (logits.shape, len(labels))
    formula = _FORMULAS[task.metric]
    if task.regression:
        predictions = logits[:, :, 0].astype(np.float64)
        truth = np.broadcast_to(labels.astype(np.float64), predictions.shape)
        # Centre first, because sums of squares of uncentred scores lose precision by cancellation.
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

    by_seed = [compute_metrics(task, seed_logits, np.asarray(labels))[task.metric] for seed_logits in logits]
    by_formula = float(score(np.ones((1, examples)))[0])
    assert math.isclose(by_formula, float(np.mean(by_seed)), abs_tol=1e-6), "the formula is not the metric's"
    return score


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ratio, 0 if the denominator is 0, because `evaluate` counts an undefined metric as 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _accuracy(examples: int, correct: NDArray[np.float64]) -> NDArray[np.float64]:
    return correct / examples


def _per_class(counts: tuple[NDArray[np.float64], ...]) -> NDArray[np.float64]:
    """Return the counts [3, C, R, S] of each class: correct predictions, predictions, and examples."""
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
    # Rounding can leave constant predictions with a variance slightly above 0.
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
