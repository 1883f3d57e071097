"""Intervals against SciPy and against slow loops through the tasks' own metrics."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fsd_tune.data.splits import TASKS, compute_metrics, get_task
from fsd_tune.report.intervals import Interval, _scorer, _weights, example_error, mean_and_deviation, mean_interval


def logits_and_labels(task, seeds=3, examples=40, seed=0, skill=1.0):
    """Logits [seeds, N, C] that know something of the labels."""
    generator = np.random.default_rng(seed)
    if task.regression:
        labels = generator.uniform(0, 5, examples).astype(np.float32)
        logits = skill * labels[None, :, None] + generator.normal(0, 1.5, (seeds, examples, 1))
    else:
        labels = generator.integers(0, task.num_labels, examples)
        logits = generator.normal(0, 1, (seeds, examples, task.num_labels))
        logits += skill * (labels[:, None] == np.arange(task.num_labels))
    return logits.astype(np.float32), labels


def test_mean_and_deviation():
    values = [0.5, 0.75, 0.625]
    mean, deviation = mean_and_deviation(values)
    assert (mean, deviation) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert mean_and_deviation([0.5])[0] == 0.5 and math.isnan(mean_and_deviation([0.5])[1])
    assert all(math.isnan(value) for value in mean_and_deviation([]))


def test_the_interval_of_a_mean_is_scipys():
    scores = np.random.default_rng(0).normal(0.8, 0.02, 5)
    found = mean_interval(scores.tolist())
    expected = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert mean_interval([0.5, 0.5]) == Interval(0.5, 0.5, 0.5) and not mean_interval([0.5, 0.5]).contains_zero


OWN = {
    "macro_f1": replace(get_task("mnli"), metrics=("macro_f1",)),
    "matthews_correlation": replace(get_task("mnli"), metrics=("matthews_correlation",)),
}


@pytest.mark.parametrize("name", ["sst2", "mnli", "mrpc", "cola", "stsb", *OWN])
def test_the_bootstrap_is_the_loop_through_the_metric(name):
    task = OWN.get(name) or get_task(name)
    first, labels = logits_and_labels(task)
    second, _ = logits_and_labels(task, seed=1, skill=0.5)
    found = example_error(task, first, second[:2], labels, resamples=30, seed=3)
    generator, differences = np.random.default_rng(3), []
    for _ in range(30):
        rows = generator.integers(0, len(labels), len(labels))
        means = [
            np.mean([compute_metrics(task, one[rows], labels[rows])[task.metric] for one in logits])
            for logits in (first, second[:2])
        ]
        differences.append(means[0] - means[1])
    assert found == pytest.approx(np.std(differences, ddof=1))


@pytest.mark.parametrize("name", ["mrpc", "cola", "stsb"])
def test_constant_predictions_count_as_in_the_metric(name):
    task = get_task(name)
    _, labels = logits_and_labels(task)
    logits = np.full((2, len(labels), task.num_labels), 1 / 3, np.float32)
    weights = next(_weights(len(labels), 20, 0))
    assert _scorer(task, logits, labels)(weights).tolist() == [0.0] * 20


def test_every_task_has_its_formula():
    for task in TASKS.values():
        logits, labels = logits_and_labels(task)
        assert example_error(task, logits, logits, labels, resamples=5) == 0


def test_the_largest_dev_split_costs_less_than_its_metric_for_each_resample():
    task = get_task("qqp")
    first, labels = logits_and_labels(task, 5, 40_430)
    began = time.process_time()
    for _ in range(10):
        compute_metrics(task, first[0], labels)
    one_metric = (time.process_time() - began) / 10
    began = time.process_time()
    example_error(task, first, first[::-1].copy(), labels, resamples=2000)
    assert time.process_time() - began < 0.5 * 2000 * one_metric
