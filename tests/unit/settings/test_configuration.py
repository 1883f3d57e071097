"""Sampling, distributions, first configurations and resolving, with Optuna itself."""

import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fsd_tune.errors import InputError
from fsd_tune.settings.configuration import distributions, first_configurations, picked, resolve, sample, unconditional
from fsd_tune.settings.loader import Settings, load
from fsd_tune.settings.methods import METHODS, OPTIMISATION, default

MIXED = """
method: {choice: [fsd_g, kd, fsd_ilg]}
space:
  alpha: {low: 0.1, high: 0.4}
  temperature: {low: 1, high: 20, log: true}
  beta: {low: 1.0, high: 2.0, when: {method: [fsd_ilg]}}
  gamma_i: 2
  gamma_l: {choice: [0.5, 2.5, 8]}
  gamma_g: {low: 0.01, high: 10, log: true}
  gamma_m: {low: 0.0, high: 1.0, step: 0.3}
  epochs: {low: 2, high: 9, step: 3, when: {batch_size: [8, 64]}}
  batch_size: {choice: [8, 24, 64], when: {method: [kd, fsd_g]}}
  learning_rate: {low: 1e-4, high: 1e-3, log: true}
"""


def _load(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return load(path)


def _samples(
    settings: Settings, number: int, first: Sequence[dict[str, Any]] = ()
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(configuration, the parameters that Optuna saw) of each of `number` trials; warnings are errors."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for configuration in first:
        study.enqueue_trial(configuration)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(number):
            trial = study.ask()
            found.append((sample(settings, trial), dict(trial.params)))
    return found


def test_samples_respect_ranges_and_conditions(tmp_path: Path) -> None:
    found = _samples(_load(tmp_path, MIXED), 200)
    assert {configuration["method"] for configuration, _ in found} == {"fsd_g", "kd", "fsd_ilg"}
    for configuration, params in found:
        method = configuration["method"]
        assert next(iter(params)) == "method"
        assert set(configuration) == {"method", *METHODS[method].hyperparameters, *OPTIMISATION}
        assert 0.1 <= configuration["alpha"] <= 0.4
        assert configuration["gradient_accumulation"] == 1
        assert configuration["warmup_ratio"] == 0.0
        assert type(configuration["epochs"]) is int
        if method == "kd":
            assert not {"beta", "gamma_l", "gamma_g", "gamma_m"} & set(params)
        else:
            assert configuration["gamma_m"] in [pytest.approx(value) for value in (0.0, 0.3, 0.6, 0.9)]
        if method == "fsd_ilg":
            assert configuration["gamma_i"] == 2.0
            assert configuration["gamma_l"] in (0.5, 2.5, 8)
            assert 1 <= configuration["beta"] <= 2
            assert configuration["batch_size"] == 32
            assert "batch_size" not in params
        else:
            assert configuration["batch_size"] in (8, 24, 64)
        if method == "fsd_g":
            assert configuration["beta"] == 30.0
            assert "beta" not in params
        if configuration["batch_size"] in (8, 64):
            assert params["epochs"] in (2, 5, 8)
        else:
            assert configuration["epochs"] == 3
            assert "epochs" not in params


def test_distributions(tmp_path: Path) -> None:
    assert distributions(_load(tmp_path, MIXED)) == {
        "method": CategoricalDistribution(("fsd_g", "kd", "fsd_ilg")),
        "alpha": FloatDistribution(0.1, 0.4),
        "temperature": FloatDistribution(1.0, 20.0, log=True),
        "beta": FloatDistribution(1.0, 2.0),
        "gamma_l": CategoricalDistribution((0.5, 2.5, 8.0)),
        "gamma_g": FloatDistribution(0.01, 10.0, log=True),
        "gamma_m": FloatDistribution(0.0, 0.9, step=0.3),
        "learning_rate": FloatDistribution(1e-4, 1e-3, log=True),
        "epochs": IntDistribution(2, 8, step=3),
        "batch_size": CategoricalDistribution((8, 24, 64)),
    }
    assert next(iter(distributions(_load(tmp_path, MIXED)))) == "method"


def test_what_is_suggested_has_its_distribution(tmp_path: Path) -> None:
    settings = _load(tmp_path, MIXED)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    expected, seen = distributions(settings), set()
    for _ in range(50):
        trial = study.ask()
        sample(settings, trial)
        seen |= set(trial.distributions)
        assert {name: expected[name] for name in trial.distributions} == trial.distributions
    assert seen == set(expected)


def test_the_defaults_come_first_moved_into_the_space(tmp_path: Path) -> None:
    (first,) = first_configurations(_load(tmp_path, MIXED))
    # fsd_g is the first method: beta is conditional and at its default, and so is what only fsd_ilg uses.
    assert first == {
        "method": "fsd_g",
        "alpha": 0.4,
        "temperature": 5.0,
        "gamma_m": 0.6,
        "learning_rate": 1e-4,
        "batch_size": 24,
    }


def test_first_configurations_hold_searched_names_once(tmp_path: Path) -> None:
    settings = _load(
        tmp_path,
        "method: kd\nspace: {alpha: {low: 0, high: 1}, temperature: 5, epochs: {low: 4, high: 8}}\n"
        "search: {first: [{alpha: 0.5, epochs: 4}, {alpha: 1, temperature: 5}, {temperature: 5}, {alpha: 1},\n"
        "  {epochs: 8}]}\n",
    )
    assert first_configurations(settings) == [{"alpha": 0.5, "epochs": 4}, {"alpha": 1.0}, {"epochs": 8}]
    found = _samples(settings, 3, first_configurations(settings))
    assert [found[0][1], found[1][1]["alpha"], found[2][1]["epochs"]] == [{"alpha": 0.5, "epochs": 4}, 1.0, 8]
    assert all(configuration["temperature"] == 5.0 for configuration, _ in found)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("{low: 40, high: 50}", 40),
        ("{low: 1, high: 16}", 16),
        ("{low: 1, high: 100}", 32),
        ("{low: 2, high: 50, step: 7}", 30),
        ("{low: 2, high: 30, step: 9}", 29),
        ("{choice: [8, 30, 36]}", 30),
        ("{choice: [48, 64]}", 48),
    ],
)
def test_nearest_allowed_value_of_batch_size_to_32(tmp_path: Path, entry: str, value: int) -> None:
    (first,) = first_configurations(_load(tmp_path, f"method: ce\nspace: {{batch_size: {entry}}}\n"))
    assert first == {"batch_size": value}
    assert type(first["batch_size"]) is int


def test_a_fixed_space_has_nothing_to_search(tmp_path: Path) -> None:
    settings = _load(tmp_path, "method: kd\nspace: {alpha: 0.2, temperature: 3, epochs: 1}\n")
    assert distributions(settings) == {}
    assert first_configurations(settings) == []
    expected = {
        "method": "kd", "alpha": 0.2, "temperature": 3.0, "learning_rate": 5e-5, "epochs": 1, "batch_size": 32,
        "warmup_ratio": 0.0, "weight_decay": 0.0, "gradient_accumulation": 1,
    }  # fmt: skip
    assert resolve(settings) == expected
    assert _samples(settings, 1) == [(expected, {})]


def test_resolve_names_the_flags_that_fix(tmp_path: Path) -> None:
    settings = _load(tmp_path, MIXED)
    with pytest.raises(InputError) as caught:
        resolve(settings, {"method": "fsd_ilg", "beta": 1})
    assert caught.value.problems == tuple(
        f"space.{name}: is searched, but one run needs one value: give --{name.replace('_', '-')} VALUE."
        for name in ("alpha", "temperature", "gamma_l", "gamma_g", "gamma_m", "learning_rate")
    )
    with pytest.raises(InputError, match="method: is searched, but one run needs one value: give --method VALUE"):
        resolve(settings)


def test_resolve_asks_only_for_what_is_in_force(tmp_path: Path) -> None:
    settings = _load(tmp_path, MIXED)
    given = {"method": "kd", "alpha": 0.9, "temperature": 2, "learning_rate": 1e-3, "batch_size": 24}
    found = resolve(settings, given)
    assert {name: found[name] for name in given} == given
    assert found["epochs"] == default("kd", "epochs")
    assert set(found) == {"method", *METHODS["kd"].hyperparameters, *OPTIMISATION}


def test_what_is_given_comes_before_what_is_fixed(tmp_path: Path) -> None:
    settings = _load(tmp_path, "method: kd\nspace: {alpha: 0.2, temperature: 3}\n")
    found = resolve(settings, {"alpha": 1, "epochs": 2.0})
    assert (found["alpha"], found["temperature"], found["epochs"]) == (1.0, 3.0, 2)
    assert type(found["epochs"]) is int


def test_resolve_refuses_what_no_hyperparameter_can_take(tmp_path: Path) -> None:
    settings = _load(tmp_path, "method: kd\nspace: {alpha: 0.2, temperature: 3}\n")
    with pytest.raises(InputError) as caught:
        resolve(settings, {"alpha": 3, "tempreature": 1, "method": "dk", "epochs": "x"})
    assert len(caught.value.problems) == 4
    assert "alpha: found 3, but must be in 0..1." in caught.value.problems
    assert "tempreature: unknown hyperparameter. Did you mean `temperature`?" in caught.value.problems


@pytest.mark.parametrize("method", METHODS)
def test_defaults_resolve_for_every_method(method: str) -> None:
    found = resolve(load(None, {"method": method}))
    names = [*METHODS[method].hyperparameters, *OPTIMISATION]
    assert found == {"method": method} | {name: default(method, name) for name in names}


def test_resolving_does_not_import_optuna() -> None:
    code = (
        "import sys; from fsd_tune.settings import loader as settings, configuration as space; "
        "s = settings.load(None, {'method': 'kd'}); space.resolve(s);"
        "space.first_configurations(s); print('optuna' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_what_was_picked_is_found_in_the_full_configuration(tmp_path: Path) -> None:
    settings = _load(tmp_path, MIXED)
    for full, seen in _samples(settings, 40):
        assert picked(settings, full) == seen
        assert set(unconditional(settings)) <= set(seen)
    assert set(unconditional(settings)) == {"method", "alpha", "temperature", "learning_rate"}
