import numpy as np
import pytest
from scipy import stats

from fsd_tune.evaluation.confirm import power
from fsd_tune.evaluation.confirm.power import Spread


def found_in(spread, seeds, difference, worlds=4000):
    """The share of simulated worlds in which a paired t-test finds a difference."""
    generator = np.random.default_rng(0)
    scores = generator.normal(0, spread, (2, worlds, seeds))
    scores[0] += difference
    return (stats.ttest_rel(scores[0], scores[1], axis=1).pvalue < 0.05).mean()


@pytest.mark.parametrize("seeds", [3, 5, 20])
def test_power_is_the_share_of_simulated_worlds(seeds):
    spread = Spread(0.015, 0.0, "")
    difference = power.detectable(spread, seeds)
    assert found_in(0.015, seeds, difference) == pytest.approx(0.8, abs=0.02)
    assert power.power(spread, seeds, difference / 2) == pytest.approx(
        found_in(0.015, seeds, difference / 2), abs=0.025
    )


@pytest.mark.parametrize(("shown", "needed"), [(0.026, 18), (0.054, 72)])
def test_the_figures_of_bert_large_on_rte(shown, needed):
    """With spreads in which five seeds show 2.6 or 5.4 points, the paper's 1.06 points need 18 or 72 seeds."""
    unit = power.detectable(Spread(1.0, 0.0, ""), 5)
    assert power.seeds_needed(Spread(shown / unit, 0.0, ""), 0.0106, 900) == pytest.approx(needed, rel=0.1)


def test_the_number_of_seeds_is_the_smallest():
    spread = Spread(0.02, 0.002, "")
    needed = power.seeds_needed(spread, 0.015, 900)
    assert needed is not None
    assert power.power(spread, needed, 0.015) >= 0.8 > power.power(spread, needed - 1, 0.015)
    assert power.shortage(spread, needed, 0.015, 900) == ""
    assert f"it needs {needed}" in power.shortage(spread, needed - 1, 0.015, 900)


def test_dev_examples_can_hide_a_difference_from_any_number_of_seeds():
    assert power.seeds_needed(Spread(0.01, 0.02, ""), 0.02, 900) is None
    assert "not even 900 seeds" in power.shortage(Spread(0.01, 0.02, ""), 5, 0.02, 900)


def test_the_spread_of_runs_is_within_configurations():
    def run(alpha, seed, score):
        return {"config": {"alpha": alpha}, "seed": seed, "score": score}

    runs = [run(0.1, 1, 0.8), run(0.1, 2, 0.82), run(0.1, 3, 0.81), run(0.9, 1, 0.5), run(0.9, 2, 0.56)]
    runs += [run(0.9, 3, None), runs[0]]
    expected = np.sqrt((2 * np.var([0.8, 0.82, 0.81], ddof=1) + np.var([0.5, 0.56], ddof=1)) / 3)
    found = power.spread_of_runs(runs, "x")
    assert found is not None and found.seeds == pytest.approx(expected)
    assert power.spread_of_runs(runs[:3], "x") is None


def test_trials_give_a_rough_guess():
    scores = [0.9, 0.88, 0.87, 0.85, 0.5, 0.4, 0.3, 0.2]
    found = power.spread_of_trials(scores)
    assert found is not None and found.seeds == pytest.approx(np.std(scores[:4], ddof=1))
    assert power.spread_of_trials(scores[:7]) is None
