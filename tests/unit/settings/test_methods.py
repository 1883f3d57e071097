"""The table of methods: weights of the terms, hyperparameters, and what each method uses of the teacher."""

import pytest

from fsd_tune import losses
from fsd_tune.settings import methods
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, TERMS, term_weights

KD = ("alpha", "temperature")


@pytest.mark.parametrize("method", METHODS)
def test_weights_are_the_formulas_of_the_method_table(method):
    config = {"alpha": 0.2, "beta": 3.0, "gamma_i": 0.5, "gamma_l": 2.0, "gamma_g": 4.0, "temperature": 2.0}
    config |= {"beta_distance": 6.0, "beta_angle": 7.0}
    kd = {"task": 0.2, "kd": 0.8}
    expected = {
        "ce": {"task": 1.0},
        "kd": kd,
        "fsd_i": kd | {"intra": 3.0},
        "fsd_l": kd | {"local": 3.0},
        "fsd_g": kd | {"global": 3.0},
        "fsd_il": kd | {"intra": 1.5, "local": 6.0},
        "fsd_ilg": kd | {"intra": 1.5, "local": 6.0, "global": 12.0},
        "pkd": kd | {"cls": 3.0},
        "rkd_distance": kd | {"distance": 3.0},
        "rkd_angle": kd | {"angle": 3.0},
        "rkd": kd | {"distance": 6.0, "angle": 7.0},
        "gram": kd | {"gram_intra": 1.5, "gram_local": 6.0},
        "procrustes": kd | {"procrustes_intra": 1.5, "procrustes_local": 6.0},
    }
    assert term_weights(method, config) == pytest.approx(expected[method])


def test_the_hyperparameters_of_each_method():
    assert {name: method.hyperparameters for name, method in METHODS.items()} == {
        "ce": (),
        "kd": KD,
        "fsd_i": (*KD, "beta"),
        "fsd_l": (*KD, "beta"),
        "fsd_g": (*KD, "beta", "gamma_m"),
        "fsd_il": (*KD, "beta", "gamma_i", "gamma_l"),
        "fsd_ilg": (*KD, "beta", "gamma_i", "gamma_l", "gamma_g", "gamma_m"),
        "pkd": (*KD, "beta"),
        "rkd_distance": (*KD, "beta"),
        "rkd_angle": (*KD, "beta"),
        "rkd": (*KD, "beta_distance", "beta_angle"),
        "gram": (*KD, "beta", "gamma_i", "gamma_l"),
        "procrustes": (*KD, "beta", "gamma_i", "gamma_l"),
    }


def test_what_each_method_uses_of_the_teacher():
    assert set(METHODS) - {"ce"} == methods.USES_TEACHER
    assert set(METHODS) - {"ce", "kd"} == methods.USES_FEATURES
    assert {"fsd_g", "fsd_ilg"} == methods.USES_MEMORY
    assert {"pkd"} == methods.NEEDS_EQUAL_WIDTHS
    assert {"rkd_angle", "rkd"} == methods.CUBIC_IN_BATCH


def test_the_table_names_what_exists():
    for method in METHODS.values():
        assert method.label and method.formula
        assert set(method.terms) <= set(TERMS)
        assert {name for factors in method.terms.values() for name in factors} <= set(HYPERPARAMETERS)
    assert all(callable(getattr(losses, term.loss)) for term in TERMS.values() if term.loss)


def test_formulas_name_every_weight_of_the_method():
    for method in METHODS.values():
        for factors in method.terms.values():
            assert all(name in method.formula for name in factors)
