"""Intervals against SciPy and against slow loops through the tasks' own metrics."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fsd_tune.data.splits import TASKS, compute_metrics, get_task
from fsd_tune.report.intervals import Interval, _scorer, _weights, bootstrap, mean_and_deviation, paired


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


def test_the_paired_interval_is_scipys():
    generator = np.random.default_rng(0)
    first, second = generator.normal(0.8, 0.02, 5), generator.normal(0.79, 0.02, 5)
    found = paired(first.tolist(), second.tolist())
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.estimate == pytest.approx((first - second).mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_differences_that_do_not_vary_have_an_interval_without_width():
    assert paired([0.5, 0.75], [0.5, 0.75]) == Interval(0, 0, 0) and paired([0.5, 0.75], [0.5, 0.75]).contains_zero
    assert not paired([0.75, 1.0], [0.5, 0.75]).contains_zero


OWN = {
    "macro_f1": replace(get_task("mnli"), metrics=("macro_f1",)),
    "matthews_correlation": replace(get_task("mnli"), metrics=("matthews_correlation",)),
}


@pytest.mark.parametrize("name", ["sst2", "mnli", "mrpc", "cola", "stsb", *OWN])
def test_the_bootstrap_is_the_loop_through_the_metric(name):
    task = OWN.get(name) or get_task(name)
    first, labels = logits_and_labels(task)
    second, _ = logits_and_labels(task, seed=1, skill=0.5)
    found = bootstrap(task, first, second[:2], labels, resamples=30, seed=3)
    generator, differences = np.random.default_rng(3), []
    for _ in range(30):
        rows = generator.integers(0, len(labels), len(labels))
        means = [
            np.mean([compute_metrics(task, one[rows], labels[rows])[task.metric] for one in logits])
            for logits in (first, second[:2])
        ]
        differences.append(means[0] - means[1])
    low, high = np.quantile(differences, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high))
    whole = [
        np.mean([compute_metrics(task, one, labels)[task.metric] for one in logits]) for logits in (first, second[:2])
    ]
    assert found.estimate == pytest.approx(whole[0] - whole[1])


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
        assert bootstrap(task, logits, logits, labels, resamples=5) == Interval(0, 0, 0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Two classifiers of equal skill: the interval of their difference contains 0 in about 95 of 100 samples."""
    task, hits = get_task("sst2"), 0
    for sample in range(100):
        first, labels = logits_and_labels(task, 1, 200, seed=sample)
        generator = np.random.default_rng(1000 + sample)
        second = generator.normal(0, 1, first.shape) + (labels[:, None] == np.arange(2))
        hits += bootstrap(task, first, second.astype(np.float32), labels, resamples=200).contains_zero
    assert 88 <= hits <= 100


def test_the_largest_dev_split_costs_less_than_its_metric_for_each_resample():
    task = get_task("qqp")
    first, labels = logits_and_labels(task, 5, 40_430)
    began = time.process_time()
    for _ in range(10):
        compute_metrics(task, first[0], labels)
    one_metric = (time.process_time() - began) / 10
    began = time.process_time()
    bootstrap(task, first, first[::-1].copy(), labels, resamples=2000)
    assert time.process_time() - began < 0.5 * 2000 * one_metric
