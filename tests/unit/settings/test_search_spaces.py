"""The shipped search spaces: each loads, samples, reads back from its dump, and holds its method's defaults."""

from pathlib import Path

import optuna
import pytest

from fsd_tune.settings.configuration import distributions, first_configurations, sample
from fsd_tune.settings.domains import Choice, Fixed, contains
from fsd_tune.settings.loader import dump, load
from fsd_tune.settings.methods import METHODS, OPTIMISATION, default
from tests import ROOT

SPACES = ROOT / "search_spaces"
FILES = sorted(SPACES.rglob("*.yaml"))
METHOD_FILES = [path for path in FILES if path.parent == SPACES and path.stem in METHODS]
PAPER_FILES = [path for path in FILES if path.parent.name == "paper"]


def test_one_file_per_method() -> None:
    assert {path.stem for path in METHOD_FILES} == set(METHODS) - {"ce"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_samples_and_reads_back(path: Path, tmp_path: Path) -> None:
    settings = load(path)
    copy = tmp_path / "settings.yaml"
    copy.write_text(dump(settings), encoding="utf-8")
    assert load(copy) == settings

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        configuration = sample(settings, study.ask())
        assert configuration["method"] in settings.methods
        held = {name: entry for name, entry in settings.space.items() if name in configuration}
        assert all(contains(entry, configuration[name]) for name, entry in held.items())
    for name in distributions(settings):
        assert len({trial.params[name] for trial in study.trials if name in trial.params}) > 1


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda path: path.stem)
def test_each_method_file_holds_its_defaults(path: Path) -> None:
    settings = load(path)
    method = path.stem
    assert settings.methods == (method,)
    for name in (*METHODS[method].hyperparameters, *OPTIMISATION):
        if name in settings.space:
            assert contains(settings.space[name], default(method, name)), name
    assert first_configurations(settings)[0] == {name: default(method, name) for name in distributions(settings)}
    assert set(METHODS[method].hyperparameters) <= set(settings.space)


@pytest.mark.parametrize("method", [name for name, entry in METHODS.items() if "gamma_l" in entry.hyperparameters])
def test_beta_is_fixed_where_the_gammas_are_searched(method: str) -> None:
    settings = load(next(path for path in METHOD_FILES if path.stem == method))
    assert settings.space["beta"] == Fixed(value=1.0)
    assert all(
        getattr(settings.space[name], "log", False)
        for name in METHODS[method].hyperparameters
        if name in ("gamma_i", "gamma_l", "gamma_g")
    )


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda path: path.stem)
def test_each_method_file_names_the_command_that_prints_the_rest(path: Path) -> None:
    assert f"fsd-tune validate search_spaces/{path.name}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAPER_FILES, ids=lambda path: path.stem)
def test_the_papers_spaces_search_its_setting_alone(path: Path) -> None:
    """Sections 4.2 and 4.3; ranges of raw distances are logarithmic, because they span orders of magnitude."""
    settings = load(path)
    assert settings.published is True and settings.asha is None and settings.loss.distance == "raw"
    assert settings.loss.layers == {"fsd_l": "last", "pkd": "all"}.get(path.stem, "penultimate")
    assert (settings.student.layers, settings.student.start, settings.data.max_length) == (6, "copy", 128)
    assert settings.space["batch_size"] == Fixed(value=32)
    assert settings.space["alpha"] == Choice(choice=(0.2, 0.5, 0.7))
    for name in ("gamma_m", "gamma_g"):
        if name in settings.space:
            assert getattr(settings.space[name], "log", False) and getattr(settings.space[name], "low", 1) <= 6e-7


def test_the_papers_systems_have_a_space_each() -> None:
    assert [path.stem for path in PAPER_FILES] == ["fsd", "fsd_g", "fsd_i", "fsd_il", "fsd_l", "pkd", "rkd", "vkd"]
