import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from fsd_tune.data.metrics import standard_error
from fsd_tune.data.splits import TASKS, Task, compute_metrics


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_classification_metrics_are_those_of_scikit_learn(dtype):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(200, 2)).astype(dtype)
    labels = generator.integers(2, size=200)
    predicted = logits.argmax(axis=1)
    accuracy = sklearn_metrics.accuracy_score(labels, predicted)
    f1 = sklearn_metrics.f1_score(labels, predicted)
    matthews = sklearn_metrics.matthews_corrcoef(labels, predicted)
    assert list(compute_metrics(TASKS["mrpc"], logits, labels)) == ["f1", "accuracy"]
    assert compute_metrics(TASKS["qqp"], logits, labels) == pytest.approx({"f1": f1, "accuracy": accuracy})
    assert compute_metrics(TASKS["cola"], logits, labels) == pytest.approx(
        {"matthews_correlation": matthews, "accuracy": accuracy}
    )
    assert compute_metrics(TASKS["rte"], logits, labels) == pytest.approx({"accuracy": accuracy})


def test_three_classes():
    logits = np.eye(3)[[0, 1, 2, 2]]
    assert compute_metrics(TASKS["mnli"], logits, np.array([0, 1, 2, 0])) == {"accuracy": 0.75}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_regression_metrics_are_those_of_scipy_and_scores_are_not_clipped(dtype):
    generator = np.random.default_rng(1)
    labels = generator.uniform(0, 5, size=100).astype(np.float32)
    logits = (3 * labels - 4 + generator.normal(size=100)).astype(dtype)[:, None]
    assert logits.max() > 5 and logits.min() < 0
    scores = logits[:, 0].astype(np.float64)
    expected = {
        "pearson": stats.pearsonr(labels.astype(np.float64), scores).statistic,
        "spearman": stats.spearmanr(labels, scores).statistic,
    }
    assert compute_metrics(TASKS["stsb"], logits, labels) == pytest.approx(expected, abs=1e-12)


def test_metrics_do_not_depend_on_the_order_of_examples():
    generator = np.random.default_rng(2)
    order = generator.permutation(50)
    for task in TASKS.values():
        logits = generator.normal(size=(50, task.num_labels))
        labels = generator.uniform(0, 5, 50) if task.regression else generator.integers(task.num_labels, size=50)
        assert compute_metrics(task, logits[order], labels[order]) == pytest.approx(
            compute_metrics(task, logits, labels)
        )


def own_task(metric: str, labels: int) -> Task:
    words = tuple("abcdef"[:labels])
    return replace(TASKS["stsb" if labels == 0 else "rte"], id="own", labels=words, metrics=(metric,))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_metrics_of_more_labels_are_those_of_scikit_learn(classes):
    """Of one's own tasks; the last label is never true, and the one before never predicted."""
    generator = np.random.default_rng(classes)
    labels = generator.integers(classes - 1, size=90)
    logits = generator.normal(size=(90, classes))
    logits[:, classes - 2] = -9
    predicted = logits.argmax(axis=1)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
        "macro_f1": sklearn_metrics.f1_score(labels, predicted, average="macro", zero_division=0),
        "matthews_correlation": sklearn_metrics.matthews_corrcoef(labels, predicted),
    }
    for metric, value in expected.items():
        assert compute_metrics(own_task(metric, classes), logits, labels) == pytest.approx({metric: value})


def test_a_constant_prediction_has_a_defined_value_in_every_task():
    """The majority's share, F1 of a class that is never or always predicted, and 0 for every correlation."""
    generator = np.random.default_rng(3)
    for task in [*TASKS.values(), own_task("macro_f1", 4), own_task("matthews_correlation", 3)]:
        labels = generator.uniform(0, 5, 40).astype(np.float32) if task.regression else np.arange(40) % task.num_labels
        for predicted in range(task.num_labels):
            logits = np.tile(np.eye(task.num_labels)[predicted], (40, 1))
            share = (labels == predicted).mean()
            f1 = 2 * share / (1 + share)
            known = {"accuracy": share, "f1": f1 if predicted == 1 else 0.0, "macro_f1": f1 / task.num_labels}
            values = compute_metrics(task, logits, labels)
            assert values == pytest.approx({metric: known.get(metric, 0.0) for metric in task.metrics}), task.id


def test_constant_predictions_give_defined_values():
    labels = np.array([0, 1, 1, 0])
    negative = np.tile([1.0, 0.0], (4, 1))
    assert compute_metrics(TASKS["cola"], negative, labels) == {"matthews_correlation": 0.0, "accuracy": 0.5}
    assert compute_metrics(TASKS["mrpc"], negative, labels) == {"f1": 0.0, "accuracy": 0.5}
    assert compute_metrics(TASKS["cola"], negative, np.zeros(4, int)) == {"matthews_correlation": 0.0, "accuracy": 1.0}
    assert compute_metrics(TASKS["mrpc"], negative, np.zeros(4, int)) == {"f1": 0.0, "accuracy": 1.0}
    scores = np.array([1, 2, 3, 5], dtype=np.float32)
    nothing = {"pearson": 0.0, "spearman": 0.0}
    assert compute_metrics(TASKS["stsb"], np.full((4, 1), 2.5), scores) == nothing
    assert compute_metrics(TASKS["stsb"], scores[:, None], np.full(4, 2.5, np.float32)) == nothing
    assert compute_metrics(TASKS["stsb"], np.ones((1, 1)), np.ones(1, np.float32)) == nothing


def test_nearly_constant_or_huge_scores_warn_of_nothing():
    scores = np.array([1, 2, 3, 5], dtype=np.float32)
    for logits in (1 + np.arange(4) * 1e-16, np.array([1e300, -1e300, 1e300, 1.0])):
        values = compute_metrics(TASKS["stsb"], logits[:, None], scores)
        assert all(-1 <= value <= 1 for value in values.values())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_diverged_logits_give_nan_for_every_metric(bad):
    for task in TASKS.values():
        logits = np.zeros((3, task.num_labels), np.float32)
        logits[1, 0] = bad
        values = compute_metrics(task, logits, np.array([0, 1, 0]))
        assert tuple(values) == task.metrics
        assert all(math.isnan(value) for value in values.values())


@pytest.mark.parametrize("name", ["rte", "mrpc", "cola", "stsb"])
def test_the_standard_error_is_the_spread_over_draws_of_examples(name):
    """Drawn from a world in which half of the examples are positive; F1, Matthews and Pearson of about 0.8."""
    generator = np.random.default_rng(0)
    task, examples, scores = TASKS[name], 400, []
    for _ in range(400):
        if name == "stsb":
            labels = generator.normal(size=examples).astype("float32")
            logits = (0.8 * labels + 0.6 * generator.normal(size=examples))[:, None]
        else:
            labels = generator.integers(2, size=examples)
            wrong = generator.random(examples) < 0.15
            logits = np.eye(2)[np.where(wrong, 1 - labels, labels)]
        scores.append(compute_metrics(task, logits, labels)[task.metrics[0]])
    error = standard_error(task.metrics[0], float(np.mean(scores)), examples)
    assert error == pytest.approx(np.std(scores), rel=0.15)
