"""One interval over seeds and examples, against SciPy, definitions written out, and worlds without a difference."""

import numpy as np
import pytest
from scipy import stats

from fsd_tune.data.splits import get_task
from fsd_tune.evaluation.confirm.comparison import compare, holm, verdict
from fsd_tune.report.intervals import example_error


def test_without_uncertainty_over_examples_it_is_the_paired_t_test():
    first, second = np.random.default_rng(0).normal(0.8, 0.02, (2, 5))
    found = compare((first - second).tolist(), 0.0)
    expected = stats.ttest_rel(first, second)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p == pytest.approx(expected.pvalue)


def test_degrees_of_freedom_are_satterthwaites():
    differences, error = [0.01, 0.03, -0.01, 0.02], 0.004
    found = compare(differences, error)
    of_seeds, of_examples = float(np.var(differences, ddof=1)) / 4, error**2
    freedom = (of_seeds + of_examples) ** 2 / (of_seeds**2 / 3)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(of_seeds + of_examples)
    assert found.interval.high - found.interval.low == pytest.approx(2 * half)
    assert found.interval.estimate == pytest.approx(np.mean(differences))


def test_equal_scores():
    found = compare([0.0, 0.0], 0.0)
    assert found.interval.contains_zero and found.p == 1
    assert compare([0.1, 0.1], 0.0).p == 0
    assert compare([0.1, 0.1], 0.01).p == pytest.approx(2 * stats.norm.sf(10))


def test_holm_rejects_what_its_steps_reject():
    generator = np.random.default_rng(0)
    for _ in range(50):
        p_values = generator.uniform(0, 0.1, 4).tolist()
        adjusted = holm(p_values)
        for level in (0.01, 0.05, 0.1, 0.2):
            rejected = set()
            for step, index in enumerate(np.argsort(p_values)):
                if p_values[index] > level / (4 - step):
                    break
                rejected.add(int(index))
            assert {index for index in range(4) if adjusted[index] <= level} == rejected
    assert holm([]) == []


def test_verdicts():
    assert [verdict(0.1, True), verdict(0.1, False), verdict(-0.1, False)] == [
        "within noise", "better beyond noise", "worse beyond noise",
    ]  # fmt: skip


def world(seed, seeds=5, examples=277):
    """Logits of two configurations that are equally good on average over all seeds and examples.

    A configuration has its own effect on each example, and each training its own on all of them: spreads of RTE.
    """
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, examples)
    difficulty = generator.normal(0.5, 1, examples)
    logits = []
    for _ in range(2):
        margin = difficulty + generator.normal(0, 0.5, examples)
        margin = margin + generator.normal(0, 0.06, (seeds, 1)) + generator.normal(0, 0.4, (seeds, examples))
        signed = np.where(labels == 1, margin, -margin)
        logits.append(np.stack([-signed, signed], axis=-1).astype(np.float32))
    return logits, labels


def test_worlds_without_a_difference_seldom_have_one():
    task, worlds = get_task("rte"), 300
    false = {"together": 0, "examples alone": 0, "seeds alone": 0}
    for number in range(worlds):
        (first, second), labels = world(number)
        scores = [(logits.argmax(-1) == labels).mean(axis=1) for logits in (first, second)]
        error = example_error(task, first, second, labels, resamples=300)
        found = compare((scores[0] - scores[1]).tolist(), error)
        false["together"] += found.p < 0.05
        false["examples alone"] += abs(found.interval.estimate) > 1.96 * error
        false["seeds alone"] += stats.ttest_rel(*scores).pvalue < 0.05
    assert false["together"] <= 0.05 * worlds, false
    assert min(false["examples alone"], false["seeds alone"]) > 0.07 * worlds, "each alone calls noise a result"
