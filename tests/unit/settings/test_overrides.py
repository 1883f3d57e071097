"""Settings from flags and Python values, in the place of what a file says."""

from pathlib import Path

import pytest

from fsd_tune.errors import InputError
from fsd_tune.settings.loader import Choice, Fixed, Range, dump, flags, load, parse_flags
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, default
from fsd_tune.settings.schema import SECTIONS, Resources
from tests.helpers.space_files import KD, load_text, problems_of


def test_every_key_has_a_documented_flag() -> None:
    rows = flags()
    keys = {key for _, key, _ in rows}
    assert keys == {
        "method", "published", "precision", "asha",
        *(f"space.{name}" for name in HYPERPARAMETERS),
        *(f"{section}.{key}" for section, model in SECTIONS.items() for key in model.model_fields),
    }  # fmt: skip
    assert len({flag for flag, _, _ in rows}) == len(rows)
    assert all(doc and "\n" not in doc for _, _, doc in rows)
    named = {flag: key for flag, key, _ in rows}
    assert named["--student-layers"] == "student.layers"
    assert named["--trials"] == named["--search-trials"] == "search.trials"
    assert named["--gamma-i"] == "space.gamma_i"
    for key in Resources.model_fields:
        flag = "--" + key.replace("_", "-")
        assert named[flag] == named[f"--resources{flag[1:]}"] == f"resources.{key}"
    assert named["--wandb"] == named["--wandb-mode"] == "wandb.mode"
    assert not {"--task", "--teacher", "--data", "--memory", "--output", "--device", "--json"} & set(named)


def test_parse_flags() -> None:
    assert parse_flags(
        ["--trials", "8", "--alpha={low: 0, high: 1}", "--gamma_i", "-1", "--asha", "off", "--student-model="]
    ) == {
        "search.trials": "8",
        "space.alpha": "{low: 0, high: 1}",
        "space.gamma_i": "-1",
        "asha": "off",
        "student.model": "",
    }
    assert parse_flags([]) == {}


def test_parse_flags_reports_everything() -> None:
    with pytest.raises(InputError) as caught:
        parse_flags(
            ["--trails", "3", "--gamma", "1", "stray", "--alpha", "--trials", "3", "--search-trials=4", "--beta",
             "--layers", "3"]
        )  # fmt: skip
    problems = caught.value.problems
    assert len(problems) == 7
    assert "--layers: unknown flag. Did you mean `--student-layers` or `--loss-layers`?" in problems
    assert "--trails: unknown flag. Did you mean `--trials`?" in problems
    assert "--gamma: unknown flag: there are `--gamma-m`, `--gamma-i`, `--gamma-l` and `--gamma-g`." in problems
    assert "--search-trials: is given twice." in problems
    assert {"--alpha: needs a value.", "--beta: needs a value."} <= set(problems)
    assert any(problem.startswith("stray: unexpected argument") for problem in problems)


def test_overrides_apply(tmp_path: Path) -> None:
    overrides = parse_flags(
        ["--alpha", "{low: 0, high: 1}", "--learning-rate", "1e-4", "--asha", "off",
         "--batch-size", "{choice: [8, 16]}", "--trials=5", "--wandb-mode", "off",
         "--temperature", "3", "--loss-layers", "[[2, 1]]"]
    )  # fmt: skip
    settings = load_text(tmp_path, KD, **overrides)
    assert settings.space == {
        "alpha": Range(low=0.0, high=1.0),
        "temperature": Fixed(value=3.0),
        "learning_rate": Fixed(value=1e-4),
        "batch_size": Choice(choice=(8, 16)),
    }
    assert settings.asha is None
    assert settings.search.trials == 5
    assert settings.loss.layers == ((2, 1),)


def test_short_flags_of_resources_and_tracking(tmp_path: Path) -> None:
    overrides = parse_flags(
        ["--cpus-per-trial", "2", "--gpus-per-trial=0.5", "--max-concurrent", "3", "--wandb", "offline"]
    )
    settings = load_text(tmp_path, KD, **overrides)
    assert settings.resources == Resources(cpus_per_trial=2, gpus_per_trial=0.5, max_concurrent=3)
    assert settings.wandb.mode == "offline"
    assert load_text(tmp_path, KD, **parse_flags(["--wandb", "off"])).wandb.mode == "off"
    with pytest.raises(InputError, match="--wandb-mode: is given twice"):
        parse_flags(["--wandb", "off", "--wandb-mode", "online"])
    assert problems_of(tmp_path, KD, {"resources.max_concurrent": "0", "wandb.mode": "of"}) == (
        "--max-concurrent: found 0, but must be in 1..1000000.",
        "--wandb: found text 'of', but must be one of off, offline, online. Did you mean `off`?",
    )


def test_asha_flags(tmp_path: Path) -> None:
    off = KD + "asha: off\n"
    on = load_text(tmp_path, off, **{"asha.reports": "5", "asha": "on"})
    assert on.asha is not None
    assert on.asha.reports == 5
    assert problems_of(tmp_path, off, {"asha.reports": "5"}) == ("--asha-reports: has no effect because asha is off.",)


def test_problems_of_overrides_name_the_flag(tmp_path: Path) -> None:
    problems = problems_of(
        tmp_path,
        KD + "search: {trials: 0}\n",
        {"space.alpha": "1.7", "space.temperature": "{low: 3, high: 2}", "asha.grace": "99", "data.padding": "{x",
         "search.trails": "3", "student.layers": "!!python/name:os.system"},
    )  # fmt: skip
    assert problems[0].startswith("space.yaml:5: search.trials: found 0")
    assert "--alpha: found 1.7, but must be in 0..1." in problems
    assert "--temperature: low: found 3, but must be below high, which is 2." in problems
    assert "--asha-grace: found 99, but must be in 1..10, the number of reports." in problems
    assert any(problem.startswith("--data-padding: is not YAML") for problem in problems)
    assert "search.trails: unknown key. Did you mean `search.trials`?" in problems
    assert any(problem.startswith("--student-layers: found the tag") for problem in problems)
    assert len(problems) == 7


@pytest.mark.parametrize("method", METHODS)
def test_without_a_file_everything_has_its_default(tmp_path: Path, method: str) -> None:
    settings = load(None, {"method": method, "space.epochs": "1"})
    assert settings.space == {name: Fixed(value=default(method, name)) for name in METHODS[method].hyperparameters} | {
        "epochs": Fixed(value=1)
    }
    assert load_text(tmp_path, dump(settings)) == settings


def test_without_a_file_problems_name_flags() -> None:
    with pytest.raises(InputError) as caught:
        load(None, {"space.alpha": "2", "search.trials": "x"})
    assert [problem.split(": ")[0] for problem in caught.value.problems] == ["--method", "--trials", "--alpha"]
    with pytest.raises(InputError, match=r"^--beta: is not used by kd"):
        load(None, {"method": "kd", "space.beta": "2"})


def test_overrides_are_plain_values_or_yaml_text(tmp_path: Path) -> None:
    plain = {"space.alpha": {"low": 0, "high": 1}, "search.trials": 20, "asha": False, "loss.layers": [(2, 1)]}
    text = {"space.alpha": "{low: 0, high: 1}", "search.trials": "20", "asha": "off", "loss.layers": "[[2, 1]]"}
    path = tmp_path / "space.yaml"
    path.write_text(KD)
    assert load(path, plain) == load(path, text)
    assert load(None, {"method": "kd", "search.trials": 20}).search.trials == 20
    with pytest.raises(InputError) as caught:
        load(path, {"search.trials": 0, "space.alpha": {1}})
    assert caught.value.problems == (
        "--alpha: found a set, but must be plain text, a number, a list or a mapping.",
        "--trials: found 0, but must be in 1..1000000.",
    )


def test_a_method_flag_leaves_out_what_the_file_says_for_its_other_methods(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "method: {choice: [fsd_ilg, kd]}\n"
        "space:\n"
        "  alpha: 0.5\n  temperature: 5\n  beta: 1\n  gamma_i: {low: 0.1, high: 1}\n  gamma_l: 1\n"
        "  gamma_g: 1\n  gamma_m: 0.5\n"
        "search:\n  first: [{method: fsd_ilg, gamma_i: 0.5}, {method: kd}]\n"
    )
    settings = load(path, {"method": "kd"})
    assert settings.method == "kd" and set(settings.space) == {"alpha", "temperature"}
    assert settings.search.first == ({"method": "kd"},)
    with pytest.raises(InputError, match="--gamma-m: is not used by kd"):
        load(path, {"method": "kd", "space.gamma_m": "0.5"})


def test_a_flag_fixes_a_value_in_the_first_configurations_too(tmp_path):
    """Else the report's command, which trains a trial again, would be refused for a file with `search.first`."""
    path = tmp_path / "space.yaml"
    path.write_text(KD + "search: {first: [{alpha: 0.5, temperature: 2}, {alpha: 0.5}]}\n")
    settings = load(path, {"space.alpha": "0.25"})
    assert settings.search.first == ({"temperature": 2.0},)
    with pytest.raises(InputError, match="first"):
        load(path, {"space.temperature": "{low: 5, high: 6}"})


@pytest.mark.parametrize("flag", ["--judge-by=last", "--search-judge-by=last", "--learn_from=pruned"])
def test_a_flag_that_is_gone_says_what_replaced_it(flag: str) -> None:
    with pytest.raises(InputError, match=r"this setting is gone: .*; remove it\."):
        parse_flags([flag])
