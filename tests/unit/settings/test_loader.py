"""Settings: defaults, what a file implies, Python values, and dumping."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fsd_tune.errors import InputError
from fsd_tune.settings.loader import Choice, Fixed, Range, Settings, dump, load, parse_flags
from fsd_tune.settings.methods import METHODS
from fsd_tune.settings.objectives import Within
from fsd_tune.settings.schema import SECTIONS
from fsd_tune.settings.search_section import seconds
from tests.helpers.space_files import ILG, KD, SEVERAL, WEIGHTED, load_text


@pytest.mark.parametrize("given", ["[runs/cola, ~/mrpc]", "runs/cola,~/mrpc", "runs/cola, ~/mrpc"])
def test_earlier_searches_are_a_list_or_words_with_commas(tmp_path: Path, given: str) -> None:
    settings = load_text(tmp_path, KD, **{"search.warm_from": given})
    assert settings.search.warm_from == ("runs/cola", str(Path.home() / "mrpc"))
    assert load_text(tmp_path, dump(settings)) == settings
    off = load_text(tmp_path, KD, **{"search.warm_from": "off"})
    assert off.search.warm_from == "off" and load_text(tmp_path, dump(off)) == off


@pytest.mark.parametrize("given", ["[score, size_mb]", "score,size_mb", "score, size_mb"])
def test_objectives_are_a_list_or_words_with_commas(tmp_path: Path, given: str) -> None:
    settings = load_text(tmp_path, KD, **{"search.objectives": given})
    assert settings.search.objectives == ("score", "size_mb")
    assert load_text(tmp_path, dump(settings)) == settings


@pytest.mark.parametrize("given", ["{within: 1}", "within 1.0", "within: 1.0"])
def test_a_pick_within_points_is_a_mapping_or_words(tmp_path: Path, given: str) -> None:
    settings = load_text(tmp_path, KD, **{"search.pick": given})
    assert settings.search.pick == Within(within=1.0)
    assert load_text(tmp_path, dump(settings)) == settings
    assert load_text(tmp_path, KD, **{"search.pick": "knee"}).search.pick == "knee"


def test_limits_are_numbers_by_cost(tmp_path: Path) -> None:
    settings = load_text(tmp_path, KD + "search: {limits: {latency_ms: 8, flops: 1e9}}\n")
    assert settings.search.limits == {"latency_ms": 8.0, "flops": 1e9}
    assert load_text(tmp_path, KD, **{"search.limits": "latency_ms: 8"}).search.limits == {"latency_ms": 8.0}
    assert load_text(tmp_path, KD, **{"search.limits": ""}).search.limits == {}
    # Limits alone contradict no sampler but the grid.
    assert load_text(tmp_path, KD + "search: {limits: {size_mb: 30}, sampler: cmaes, stop_when: noise}\n")


def test_defaults_are_those_of_the_interface(tmp_path: Path) -> None:
    settings = load_text(tmp_path, KD)
    expected = yaml.safe_load(
        """
        student: {model: null, layers: 6, start: copy, hidden_size: null, memory_start: matched,
                  freeze_embeddings: false}
        data: {max_length: 128, padding: masked, batching: random, train_limit: null}
        loss: {layers: penultimate, distance: relative, weights: null}
        memory: {centroids: null, algorithm: kmeans, spool_limit_gb: 50}
        search: {trials: 64, seed: 0, sampler: tpe, objectives: [score], limits: {}, pick: best,
                 compare_methods: null, first: [], warm_from: auto,
                 select_on: dev, time_budget: null, stop_after_stalled: null, stop_when: null, price_per_hour: null}
        asha: {reports: 10, grace: 1, reduction_factor: 3}
        latency: {runtime: onnxruntime, threads: 1, batch_size: 1, length: null}
        precision: auto
        resources:
          {cpus_per_trial: 1, gpus_per_trial: auto, max_concurrent: null, placement: pack, deterministic: false}
        wandb: {mode: "off", project: fsd_tune, entity: null, tags: []}
        """
    )
    found = settings.model_dump(mode="json")
    assert {key: found[key] for key in expected} == expected
    assert settings.method == "kd"
    assert settings.methods == ("kd",)
    assert settings.space == {"alpha": Fixed(value=0.5), "temperature": Range(low=1.0, high=10.0)}


def test_entries_have_their_hyperparameters_type(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path, KD + "  batch_size: {choice: [16, 32.0]}\n  epochs: {low: 1, high: 4.0}\n  weight_decay: 1e-2\n"
    )
    batch_size, epochs, temperature = (settings.space[name] for name in ("batch_size", "epochs", "temperature"))
    assert isinstance(batch_size, Choice) and isinstance(epochs, Range) and isinstance(temperature, Range)
    assert [type(value) for value in batch_size.choice] == [int, int]
    assert (type(epochs.low), type(epochs.high)) == (int, int)
    assert (type(temperature.low), type(temperature.high)) == (float, float)
    assert settings.space["weight_decay"] == Fixed(value=0.01)


def test_the_interfaces_example_loads(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path,
        """
method: fsd_ilg
space:
  alpha: 0.5
  temperature: {low: 1.0, high: 10.0}
  beta: 1
  gamma_i: {low: 0.01, high: 10.0, log: true}
  gamma_l: {low: 0.0, high: 1.0, step: 0.25}
  gamma_m: 0.5
  batch_size: {choice: [16, 32]}
  epochs: 3
  gamma_g: {low: 0.01, high: 10.0, log: true, when: {method: [fsd_g, fsd_ilg]}}
loss: {layers: [[11, 5]]}
search: {select_on: {holdout: 0.1}, time_budget: 1h30m, first: [{alpha: 0.5, gamma_i: 2, batch_size: 16}]}
asha: off
wandb: {mode: off, tags: [a, off]}
""",
    )
    assert settings.space["gamma_g"] == Range(low=0.01, high=10.0, log=True, when={"method": ("fsd_g", "fsd_ilg")})
    assert settings.asha is None
    assert settings.wandb.mode == "off"
    assert settings.wandb.tags == ("a", "off")
    assert settings.loss.layers == ((11, 5),)
    assert settings.search.first == ({"alpha": 0.5, "gamma_i": 2.0, "batch_size": 16},)
    assert settings.search.time_budget_seconds == 5400


# ---------------------------------------------------------------- what is implied


def test_published_padding_implies_the_published_choices(tmp_path: Path) -> None:
    settings = load_text(tmp_path, KD + "data: {padding: published}\n")
    assert (settings.loss.distance, settings.student.memory_start) == ("raw", "published")
    kept = load_text(
        tmp_path, KD + "data: {padding: published}\nloss: {distance: relative}\nstudent: {memory_start: matched}\n"
    )
    assert (kept.loss.distance, kept.student.memory_start) == ("relative", "matched")
    by_flag = load_text(tmp_path, KD, **{"data.padding": "published", "student.memory_start": "matched"})
    assert (by_flag.loss.distance, by_flag.student.memory_start) == ("raw", "matched")
    for each in (settings, kept, by_flag):
        assert load_text(tmp_path, dump(each)) == each


def test_published_weights_are_the_same_loss(tmp_path: Path) -> None:
    epsilon, sigma, gamma = 30, 0.5, 0.2
    space = {
        name: entry.value for name, entry in load_text(tmp_path, WEIGHTED).space.items() if isinstance(entry, Fixed)
    }
    assert space["beta"] * space["gamma_g"] == pytest.approx(epsilon * sigma)
    assert space["beta"] * space["gamma_i"] == pytest.approx(epsilon * (1 - sigma) * gamma / 2)
    assert space["beta"] * space["gamma_l"] == pytest.approx(epsilon * (1 - sigma) * (1 - gamma) / 2)
    assert space["gamma_m"] == 0.4


@pytest.mark.parametrize(
    ("text", "total"), [("2h", 7200), ("30m", 1800), ("1h30m", 5400), ("90s", 90), ("1h1m1s", 3661)]
)
def test_durations(text: str, total: int) -> None:
    assert seconds(text) == total


@pytest.mark.parametrize("text", ["", "h", "1d", "1.5h", "-1h", "30m1h", "0s", "1 h", "1H"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        seconds(text)


@pytest.mark.parametrize(
    "text", ["search:\nasha:\n", "asha: on\n", "asha: true\n", "search: {first: }\nwandb: {tags: }\n"]
)
def test_keys_with_nothing_below_are_defaults(tmp_path: Path, text: str) -> None:
    assert load_text(tmp_path, KD + text) == load_text(tmp_path, KD)


@pytest.mark.parametrize("word", ["off", "false", "'off'", "False"])
def test_off_is_off(tmp_path: Path, word: str) -> None:
    settings = load_text(tmp_path, KD + f"asha: {word}\nwandb: {{mode: {word}}}\n")
    assert settings.asha is None
    assert settings.wandb.mode == "off"


def test_numbers_that_a_person_means(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path,
        KD + "  learning_rate: {low: 1e-5, high: 1E-3, log: yes}\ndata: {train_limit: 1e4, max_length: 64.0}\n",
    )
    assert settings.space["learning_rate"] == Range(low=1e-5, high=1e-3, log=True)
    assert (settings.data.train_limit, settings.data.max_length) == (10_000, 64)
    assert type(settings.data.train_limit) is int


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load_text(tmp_path, KD)
    with pytest.raises(ValueError, match="frozen"):
        settings.search.trials = 3
    with pytest.raises(ValueError, match="frozen"):
        settings.method = "ce"


# ---------------------------------------------------------------- Python values


def test_from_dict_is_what_a_file_with_these_values_is(tmp_path: Path) -> None:
    values = {
        "method": "kd",
        "space": {"alpha": {"low": 0.1, "high": 0.9}, "temperature": 5, "batch_size": {"choice": (8, 16)}},
        "loss": {"layers": [(2, 1), (11, 5)]},
        "search": {"trials": 20, "first": [{"alpha": 0.5}], "select_on": {"holdout": 0.1}},
        "asha": False,
        "student": {"model": Path("models/small")},
    }
    settings = Settings.from_dict(values)
    text = (
        "method: kd\nspace: {alpha: {low: 0.1, high: 0.9}, temperature: 5, batch_size: {choice: [8, 16]}}\n"
        "loss: {layers: [[2, 1], [11, 5]]}\nstudent: {model: models/small}\n"
        "search: {trials: 20, first: [{alpha: 0.5}], select_on: {holdout: 0.1}}\nasha: off\n"
    )
    assert settings == load_text(tmp_path, text)
    assert values["search"] == {"trials": 20, "first": [{"alpha": 0.5}], "select_on": {"holdout": 0.1}}


@pytest.mark.parametrize("method", METHODS)
def test_from_dict_gives_what_is_not_named_its_default(method: str) -> None:
    assert Settings.from_dict({"method": method}) == load(None, {"method": method})
    assert Settings.from_dict({"method": method, "space": None, "search": None}) == load(None, {"method": method})


def test_numbers_of_numpy_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    space = {"alpha": numpy.float32(0.5), "epochs": numpy.int64(4), "temperature": numpy.float64(3)}
    settings = Settings.from_dict({"method": "kd", "space": space})
    assert settings.space == {name: Fixed(value=value) for name, value in space.items()}
    assert all(type(entry.value) in (int, float) for entry in settings.space.values() if isinstance(entry, Fixed))


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({"space": {}}, ["method: is missing, must be one of ce, kd"]),
        (
            {"method": "kd", "space": {"alpha": 2, "tempreature": 1}, "search": {"trials": "20"}, "trails": 3},
            [
                "space.alpha: found 2, but must be in 0..1.",
                "space.tempreature: unknown hyperparameter, must be",
                "search.trials: found text '20', but must be a whole number in 1..",
                "trails: unknown key, must be",
            ],
        ),
        (
            {"method": "kd", "student": {"layers": object()}, "search": {1: 2}},
            [
                "student.layers: found a object, but must be plain text, a number, a list or a mapping.",
                "search: found a key that is not plain text.",
            ],
        ),
        ({"method": "kd", "search": {"seed": 10**5000}}, ["search.seed: found inf, but must be"]),
        ({"method": "fsd_g", "search": {"first": [{"beta": -1}]}}, ["search.first[0].beta: found -1, but must be"]),
        ([("method", "kd")], ["found a list, but must be a mapping of settings such as {method: kd}."]),
    ],
)
def test_from_dict_names_problems_by_their_key(values: Any, problems: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        Settings.from_dict(values)
    assert len(caught.value.problems) == len(problems), caught.value.problems
    for start in problems:
        assert any(problem.startswith(start) for problem in caught.value.problems), caught.value.problems


def test_a_value_that_holds_itself_is_refused() -> None:
    first: list[Any] = []
    first.append(first)
    with pytest.raises(InputError, match="is nested more than 50 deep"):
        Settings.from_dict({"method": "kd", "search": {"first": first}})


# ---------------------------------------------------------------- dump


VARIANTS = [
    KD,
    ILG,
    WEIGHTED,
    "method: ce\n",
    KD + "asha: off\nprecision: bf16\n",
    KD + "search: {select_on: {holdout: 0.25}, time_budget: 2h, sampler: gp, first: [{alpha: 0.5, temperature: 3}]}\n",
    KD + "wandb: {project: '1e5', entity: 'off', tags: [yes, '1', 'a: b', ü]}\nstudent: {model: '~', start: last}\n",
    KD
    + "  learning_rate: {low: 1e-5, high: 1e-3, log: true}\n  epochs: {low: 1, high: 5, step: 2}\n"
    + "  weight_decay: 1e-2\n",
    ILG + "loss: {layers: [[2, 1], [11, 5]], distance: raw}\nmemory: {centroids: 20, spool_limit_gb: 0}\n",
    ILG.replace("method: fsd_ilg", "method: {choice: [kd, fsd_ilg]}").replace(
        "log: true}", "log: true, when: {method: fsd_ilg}}"
    )
    + "  batch_size: {choice: [8, 16], when: {method: [kd]}}\n  epochs: {choice: [1, 2], when: {batch_size: [8]}}\n",
    KD + "search: {objectives: [score, latency_ms], limits: {size_mb: 30.5}, pick: {within: 0.5}}\n",
    KD + "student: {start: random, hidden_size: 128}\nresources: {gpus_per_trial: 0.25, max_concurrent: 3}\n",
]


@pytest.mark.parametrize("text", VARIANTS)
def test_dump_reads_back_to_equal_settings(tmp_path: Path, text: str) -> None:
    settings = load_text(tmp_path, text)
    written = dump(settings)
    assert load_text(tmp_path, written) == settings
    assert dump(load_text(tmp_path, written)) == written
    data = yaml.safe_load(written)
    assert set(data) == set(Settings.model_fields)
    assert all(set(data[name]) == set(model.model_fields) for name, model in SECTIONS.items() if data[name] != "off")


def test_import_is_light() -> None:
    heavy = ("torch", "optuna", "ray", "transformers", "numpy")
    code = f"import sys, fsd_tune.settings.loader; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_values_of_retired_settings_that_are_still_true_are_no_mistake(tmp_path: Path) -> None:
    text = KD + "search: {trials: 7, learn_from: extrapolated, judge_by: last}\n"
    assert load_text(tmp_path, text) == load_text(tmp_path, KD + "search: {trials: 7}\n")


def test_a_stored_file_of_an_earlier_version_is_read_without_what_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(KD + "search: {trials: 7, learn_from: pruned, judge_by: mean_of_last_3}\n", encoding="utf-8")
    assert load(path, stored=True) == load_text(tmp_path, KD + "search: {trials: 7}\n")
    path.write_text(KD + "search: {trials: 7, learns: pruned, judge_by: last}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load(path, stored=True)
    (problem,) = caught.value.problems
    assert "search.learns: unknown key" in problem


@pytest.mark.parametrize(
    ("text", "flags", "compared"),
    [
        (SEVERAL, [], "equal"),
        (SEVERAL, ["--compare-methods=best_overall"], "best_overall"),
        (SEVERAL, ["--sampler=grid"], "best_overall"),
        (SEVERAL + "search: {compare_methods: equal}\n", ["--method=kd"], None),
        (SEVERAL + "search: {compare_methods: equal}\n", ["--method={choice: [kd]}", "--sampler=grid"], None),
        (KD, [], None),
    ],
)
def test_methods_are_compared_equally_if_there_are_several(
    tmp_path: Path, text: str, flags: list[str], compared: str | None
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    settings = load(path, parse_flags(flags))
    assert settings.search.compare_methods == compared
    path.write_text(dump(settings), encoding="utf-8")
    assert load(path, stored=True) == settings == load(path)


@pytest.mark.parametrize("search", ["", "search:\n", "search: {trials: 7}\n"])
def test_a_stored_file_of_an_earlier_version_spends_freely(tmp_path: Path, search: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(SEVERAL + search, encoding="utf-8")
    assert load(path, stored=True).search.compare_methods == "best_overall"
