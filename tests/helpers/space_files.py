"""Search spaces as text, and what loading them gives."""

from pathlib import Path

import pytest

from fsd_tune.errors import InputError
from fsd_tune.settings.loader import Settings, load

KD = "method: kd\nspace:\n  alpha: 0.5\n  temperature: {low: 1, high: 10}\n"
ILG = (
    "method: fsd_ilg\nspace:\n  alpha: 0.5\n  temperature: 5\n  beta: 1\n  gamma_i: 1\n  gamma_l: 1\n"
    "  gamma_g: {low: 1e-2, high: 10, log: true}\n  gamma_m: 0.5\n"
)
SEVERAL = "method: {choice: [kd, ce]}\nspace: {alpha: {choice: [0.1, 0.5]}, temperature: 5}\n"
WEIGHTED = (
    "method: fsd_ilg\nspace: {alpha: 0.5, temperature: 5}\n"
    "loss: {weights: {epsilon: 30, sigma: 0.5, gamma: 0.2, beta: 0.4}}\n"
)


def load_text(tmp_path: Path, text: str, **overrides: str) -> Settings:
    """Return the settings of a file with this text."""
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, overrides)


def problems_of(tmp_path: Path, text: str, overrides: dict[str, str] | None = None) -> tuple[str, ...]:
    """Return the problems of a file with this text, without its folder."""
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load(path, overrides)
    assert all("\n" not in problem for problem in caught.value.problems)
    return tuple(problem.removeprefix(f"{tmp_path}/") for problem in caught.value.problems)
