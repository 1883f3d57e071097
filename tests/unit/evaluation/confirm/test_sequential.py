import math

import numpy as np
import pytest
from scipy import integrate, stats

from fsd_tune.evaluation.confirm import power, sequential
from fsd_tune.evaluation.confirm.sequential import Decision, confidence_sequence, decide


@pytest.mark.parametrize("seeds", [5, 12, 60])
def test_the_bound_inverts_the_bayes_factor(seeds):
    """The factor as an integral of noncentral t densities over effect sizes."""
    bound = sequential._bound(seeds, 0.05)

    def integrand(effect):
        return stats.nct.pdf(bound, seeds - 1, effect * math.sqrt(seeds)) * stats.norm.pdf(effect)

    evidence, _ = integrate.quad(integrand, -8, 8, limit=200)
    assert evidence / stats.t.pdf(bound, seeds - 1) == pytest.approx(1 / 0.05, rel=1e-4)


def test_few_seeds_have_no_interval():
    found = confidence_sequence([0.1, 0.1, 0.1], 0.0)
    assert found.low == -math.inf and found.high == math.inf
    assert decide([0.1, 0.1], 0.0, 10) is Decision.OPEN and decide([0.1, 0.1], 0.0, 2) is Decision.HOPELESS


def test_seeds_that_agree_decide_and_equal_scores_do_not():
    assert decide([0.1] * 6, 0.0, 10) is Decision.DECIDED
    assert decide([0.0] * 6, 0.0, 10) is Decision.HOPELESS
    assert decide([0.1] * 6, 0.1, 10) is Decision.HOPELESS, "no seed makes the dev examples more certain"


def stopped(differences, error=0.0):
    """The decision on a sequence of differences, and the number of seeds that it took."""
    for seeds in range(2, len(differences) + 1):
        decision = decide(differences[:seeds], error, len(differences))
        if decision is not Decision.OPEN:
            return decision, seeds
    raise AssertionError("open after the last seed")


@pytest.mark.parametrize("spread", [0.0112, 0.0234])
def test_simulated_worlds(spread):
    """Spreads of BERT-large on RTE; the fixed number finds the paper's difference in 80% of the worlds."""
    generator = np.random.default_rng(0)
    fixed = power.seeds_needed(power.Spread(spread, 0.0, ""), 0.0106, 900)
    assert fixed is not None
    found = {}
    for difference in (0.0, 0.0106, 0.0212):
        worlds = generator.normal(difference, math.sqrt(2) * spread, (300, fixed))
        outcomes = [stopped(world.tolist()) for world in worlds]
        found[difference] = (
            np.mean([decision is Decision.DECIDED for decision, _ in outcomes]),
            np.mean([seeds for _, seeds in outcomes]) / fixed,
        )
    assert found[0.0][0] <= 0.05, "false claims"
    assert found[0.0212][0] >= 0.9
    assert all(share <= 0.7 for _, share in found.values()), found


def test_looking_after_each_seed_does_not_raise_the_error_with_examples():
    """The examples' part is drawn once for each world, the seeds' part for each seed."""
    generator, false = np.random.default_rng(1), 0
    for _ in range(300):
        differences = generator.normal(generator.normal(0, 0.01), 0.02, 40)
        false += any(
            not confidence_sequence(differences[:seeds].tolist(), 0.01).contains_zero for seeds in range(3, 41)
        )
    assert false <= 0.05 * 300
