"""Settings: defaults, every kind of bad input with its place, flags, and dumping."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fsd_tune.errors import InputError
from fsd_tune.settings.loader import Choice, Fixed, Range, Settings, dump, flags, load, parse_flags
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, default
from fsd_tune.settings.objectives import Within
from fsd_tune.settings.schema import SECTIONS, Resources
from fsd_tune.settings.search_section import seconds

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


def _load(tmp_path: Path, text: str, **overrides: str) -> Settings:
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, overrides)


def _problems(tmp_path: Path, text: str, overrides: dict[str, str] | None = None) -> tuple[str, ...]:
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load(path, overrides)
    assert all("\n" not in problem for problem in caught.value.problems)
    return tuple(problem.removeprefix(f"{tmp_path}/") for problem in caught.value.problems)


@pytest.mark.parametrize("given", ["[runs/cola, ~/mrpc]", "runs/cola,~/mrpc", "runs/cola, ~/mrpc"])
def test_earlier_searches_are_a_list_or_words_with_commas(tmp_path: Path, given: str) -> None:
    settings = _load(tmp_path, KD, **{"search.warm_from": given})
    assert settings.search.warm_from == ("runs/cola", str(Path.home() / "mrpc"))
    assert _load(tmp_path, dump(settings)) == settings
    off = _load(tmp_path, KD, **{"search.warm_from": "off"})
    assert off.search.warm_from == "off" and _load(tmp_path, dump(off)) == off


@pytest.mark.parametrize("given", ["[score, size_mb]", "score,size_mb", "score, size_mb"])
def test_objectives_are_a_list_or_words_with_commas(tmp_path: Path, given: str) -> None:
    settings = _load(tmp_path, KD, **{"search.objectives": given})
    assert settings.search.objectives == ("score", "size_mb")
    assert _load(tmp_path, dump(settings)) == settings


@pytest.mark.parametrize("given", ["{within: 1}", "within 1.0", "within: 1.0"])
def test_a_pick_within_points_is_a_mapping_or_words(tmp_path: Path, given: str) -> None:
    settings = _load(tmp_path, KD, **{"search.pick": given})
    assert settings.search.pick == Within(within=1.0)
    assert _load(tmp_path, dump(settings)) == settings
    assert _load(tmp_path, KD, **{"search.pick": "knee"}).search.pick == "knee"


def test_limits_are_numbers_by_cost(tmp_path: Path) -> None:
    settings = _load(tmp_path, KD + "search: {limits: {latency_ms: 8, flops: 1e9}}\n")
    assert settings.search.limits == {"latency_ms": 8.0, "flops": 1e9}
    assert _load(tmp_path, KD, **{"search.limits": "latency_ms: 8"}).search.limits == {"latency_ms": 8.0}
    assert _load(tmp_path, KD, **{"search.limits": ""}).search.limits == {}
    # Limits alone contradict no sampler but the grid.
    assert _load(tmp_path, KD + "search: {limits: {size_mb: 30}, sampler: cmaes, stop_when: noise}\n")


def test_defaults_are_those_of_the_interface(tmp_path: Path) -> None:
    settings = _load(tmp_path, KD)
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
    settings = _load(
        tmp_path, KD + "  batch_size: {choice: [16, 32.0]}\n  epochs: {low: 1, high: 4.0}\n  weight_decay: 1e-2\n"
    )
    batch_size, epochs, temperature = (settings.space[name] for name in ("batch_size", "epochs", "temperature"))
    assert isinstance(batch_size, Choice) and isinstance(epochs, Range) and isinstance(temperature, Range)
    assert [type(value) for value in batch_size.choice] == [int, int]
    assert (type(epochs.low), type(epochs.high)) == (int, int)
    assert (type(temperature.low), type(temperature.high)) == (float, float)
    assert settings.space["weight_decay"] == Fixed(value=0.01)


def test_the_interfaces_example_loads(tmp_path: Path) -> None:
    settings = _load(
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


S = "space.yaml:"
BAD = [
    # sections: keys, types, ranges
    (KD + "serach: {trials: 3}\n", S + "5: serach: unknown key", "Did you mean `search`?"),
    (KD + "trials: 3\n", S + "5: trials: unknown key", "Did you mean `search.trials`?"),
    (KD + "learning_rate: 1e-4\n", S + "5: learning_rate: unknown key", "Did you mean `space.learning_rate`?"),
    (KD + "search:\n  trails: 3\n", S + "6: search.trails: unknown key", "Did you mean `trials`?"),
    (KD + "search: {trials: 0}\n", S + "5: search.trials: found 0, but must be in 1..1000000."),
    (KD + "search: {trials: lots}\n", S + "5: search.trials: found text 'lots', but must be a whole number in 1.."),
    (KD + "search: {trials: 2.5}\n", S + "5: search.trials: found 2.5, but must be a whole number"),
    (KD + "search: {trials: true}\n", S + "5: search.trials: found true, but must be a whole number"),
    (KD + "search: {trials: '8'}\n", S + "5: search.trials: found text '8', but must be a whole number"),
    (KD + "search: {trials: null}\n", S + "5: search.trials: found nothing, but must be a whole number"),
    (KD + "search: {trials: [1]}\n", S + "5: search.trials: found a list, but must be a whole number"),
    (KD + "search: {trials: .inf}\n", S + "5: search.trials: found inf, but must be a whole number"),
    (KD + "search: {stop_after_stalled: 0}\n", S + "5: search.stop_after_stalled: found 0, but must be in 1.."),
    (
        KD + "search: {objectives: [score, latency]}\n",
        S + "5: search.objectives[1]: found text 'latency', but must be one of score, latency_ms, parameters, size_mb,",
        "Did you mean `latency_ms`?",
    ),
    (KD + "search: {objectives: [score, flops, flops]}\n", S + "5: search.objectives[2]: found flops twice"),
    (KD + "search: {objectives: [flops]}\n", S + "5: search.objectives: found flops, but must include score."),
    (KD + "search: {objectives: []}\n", S + "5: search.objectives: found a list, but must be a list of score, lat"),
    (KD + "search: {objectives: 3}\n", S + "5: search.objectives: found 3, but must be a list of score, latency_ms"),
    (
        SEVERAL + "search: {objectives: [score, flops], sampler: grid}\n",
        S + "3: search.sampler: found text 'grid', but must be one of tpe, random, gp with several objectives",
    ),
    (
        KD + "search: {objectives: [score, flops], sampler: cmaes}\n",
        S + "5: search.sampler: found text 'cmaes', but must be one of tpe, random, gp with several objectives",
    ),
    (
        KD + "search: {objectives: [score, flops], stop_when: noise}\n",
        S + "5: search.stop_when: found text 'noise', but must be null with several objectives",
    ),
    (
        KD + "search: {limits: {latency: 8}}\n",
        S + "5: search.limits.latency: unknown cost, must be one of latency_ms, parameters, size_mb, flops.",
        "Did you mean `latency_ms`?",
    ),
    (KD + "search: {limits: {score: 1}}\n", S + "5: search.limits.score: cannot have a limit, because it is no cost"),
    (KD + "search: {limits: {flops: 0}}\n", S + "5: search.limits.flops: found 0, but must be above 0 and at most"),
    (KD + "search: {limits: {flops: x}}\n", S + "5: search.limits.flops: found text 'x', but must be a number above"),
    (KD + "search: {limits: 8}\n", S + "5: search.limits: found 8, but must be a mapping of latency_ms, parameters"),
    (
        SEVERAL + "search: {limits: {flops: 8}, sampler: grid}\n",
        S + "3: search.limits: found limits of flops, but sampler grid runs every combination",
    ),
    (KD + "search: {pick: kneee}\n", S + "5: search.pick: found text 'kneee', but must be best, knee", "`knee`?"),
    (KD + "search: {pick: {within: -1}}\n", S + "5: search.pick.within: found -1, but must be in 0..100."),
    (KD + "search: {pick: within a lot}\n", S + "5: search.pick: found text 'within a lot', but must be best, knee"),
    (KD + "search: {pick: within much}\n", S + "5: search.pick: found text 'much', but must be a number in 0..100."),
    (
        KD + "search: {pick: {withn: 1}}\n",
        S + "5: search.pick.withn: unknown key, must be within. Did you mean `within`?",
    ),
    (KD + "search: {first: [{laers: 2}]}\n", "Did you mean `layers`?"),
    (KD + "search: {pick: 1}\n", S + "5: search.pick: found 1, but must be best, knee, fastest or {within: POINTS}"),
    (KD + "latency: {threads: 0}\n", S + "5: latency.threads: found 0, but must be in 1..1024."),
    (
        KD + "latency: {runtime: onnxruntim}\n",
        S + "5: latency.runtime: found text 'onnxruntim'",
        "Did you mean `onnxruntime`?",
    ),
    (KD + "search: {seed: -1}\n", S + "5: search.seed: found -1, but must be in 0..4294967295."),
    (
        KD + "search: {sampler: tep}\n",
        S + "5: search.sampler: found text 'tep'",
        "tpe, random, grid, cmaes, gp",
        "`tpe`?",
    ),
    (
        KD + "search: {learn_from: pruned}\n",
        S + "5: search.learn_from: found text 'pruned', but this setting is gone: the sampler always learns",
    ),
    (
        KD + "search: {judge_by: mean_of_last_3}\n",
        S + "5: search.judge_by: found text 'mean_of_last_3', but this setting is gone: a trial's score is its",
    ),
    (
        KD + "search: {sampler: grid}\n",
        S + "4: space.temperature: is a range without steps, but search.sampler is grid: give a `step:` or a choice.",
    ),
    (KD + "search: {select_on: test}\n", S + "5: search.select_on: found text 'test', but must be dev or {holdout:"),
    (KD + "search: {select_on: {holdout: 0.6}}\n", S + "5: search.select_on: found a mapping", "at most 0.5"),
    (KD + "search: {select_on: {holdout: 0}}\n", S + "5: search.select_on: found a mapping", "above 0"),
    (KD + "search: {time_budget: 2 hours}\n", S + "5: search.time_budget: found text '2 hours'", "2h, 30m, 1h30m"),
    (KD + "search: {time_budget: 3600}\n", S + "5: search.time_budget: found 3600", "must be a duration"),
    (KD + "search: {time_budget: 0h}\n", S + "5: search.time_budget: found text '0h'", "must be a duration"),
    (KD + "search: 3\n", S + "5: search: found 3, but must be a mapping of trials, seed"),
    (KD + "student:\n  layers: 0\n", S + "6: student.layers: found 0, but must be in 1..1000."),
    (KD + "student: {model: 3}\n", S + "5: student.model: found 3, but must be text"),
    (KD + "student: {start: copied}\n", S + "5: student.start: found text 'copied'", "Did you mean `copy`?"),
    (KD + "student: {freeze_embeddings: 1}\n", S + "5: student.freeze_embeddings: found 1, but must be true or false"),
    (KD + "student: {hidden_size: 128}\n", S + "5: student.hidden_size: found 128", "unless start is random, not copy"),
    (KD + "data: {max_length: 3}\n", S + "5: data.max_length: found 3, but must be in 4..100000."),
    (KD + "data: {train_limit: 0}\n", S + "5: data.train_limit: found 0, but must be in 1.."),
    (KD + "data: {padding: mask}\n", S + "5: data.padding: found text 'mask'", "Did you mean `masked`?"),
    (KD + "data: {batching: group}\n", S + "5: data.batching: found text 'group'", "Did you mean `grouped`?"),
    (
        KD + "data: {padding: published, batching: grouped}\n",
        S + "5: data.batching: found text 'grouped', but must be random if padding is published.",
    ),
    (KD + "loss: {distance: row}\n", S + "5: loss.distance: found text 'row'", "Did you mean `raw`?"),
    (KD + "loss: {layers: first}\n", S + "5: loss.layers: found text 'first'", "penultimate, last, all, or a list"),
    (KD + "loss: {layers: []}\n", S + "5: loss.layers: found a list", "such as [[11, 5]]"),
    (KD + "loss: {layers: [[11, 5, 2]]}\n", S + "5: loss.layers: found a list", "[teacher layer, student layer]"),
    (KD + "loss: {layers: [[11, -1]]}\n", S + "5: loss.layers: found a list", "whole number from 0"),
    (KD + "loss: {layers: [[2, 1], [2, 1]]}\n", S + "5: loss.layers: found a list", "different pairs"),
    (ILG + "loss:\n  layers: [[2, 1],\n           [11, 7]]\n", S + "12: loss.layers[1]: found student layer 7", "0..6"),
    (ILG + "student: {layers: 1}\n", "loss.layers: is penultimate, but must be last for a student of one layer"),
    (KD + "memory: {centroids: 1}\n", S + "5: memory.centroids: found 1, but must be in 2..1000000."),
    (KD + "memory: {spool_limit_gb: -1}\n", S + "5: memory.spool_limit_gb: found -1, but must be in 0..1000000."),
    (KD + "memory: {spool_limit_gb: .nan}\n", S + "5: memory.spool_limit_gb: found nan, but must be a number in 0.."),
    (KD + "asha: {reduction_factor: 1}\n", S + "5: asha.reduction_factor: found 1, but must be above 1 and at most"),
    (
        KD + "asha:\n  reports: 5\n  grace: 6\n",
        S + "7: asha.grace: found 6, but must be in 1..5, the number of reports.",
    ),
    (KD + "asha: never\n", S + "5: asha: found text 'never', but must be off, or a mapping of reports"),
    (KD + "precision: fp16\n", S + "5: precision: found text 'fp16', but must be one of auto, float32, bf16"),
    (KD + "resources: {cpus_per_trial: 0}\n", S + "5: resources.cpus_per_trial: found 0, but must be above 0"),
    (KD + "resources: {gpus_per_trial: 1.5}\n", S + "5: resources.gpus_per_trial: found 1.5", "a whole number of them"),
    (KD + "resources: {max_concurrent: 0}\n", S + "5: resources.max_concurrent: found 0"),
    (KD + "wandb: {mode: onlin}\n", S + "5: wandb.mode: found text 'onlin'", "Did you mean `online`?"),
    (KD + "wandb: {tags: rte}\n", S + "5: wandb.tags: found text 'rte', but must be a list of text"),
    (KD + "wandb: {project: me/glue}\n", S + "5: wandb.project: found text 'me/glue'", "are separate settings"),
    (KD + f"wandb: {{entity: {'x' * 129}}}\n", S + "5: wandb.entity: found text", "at most 128 characters"),
    (KD + f"wandb: {{tags: [{'x' * 65}]}}\n", S + "5: wandb.tags: found a list, but must be tags of at most 64"),
    (KD + "search: {seed: 4294967296}\n", S + "5: search.seed: found 4294967296, but must be in 0..4294967295"),
    (KD + "wandb: {project: ''}\n", S + "5: wandb.project: found text '', but must be text"),
    # the method
    ("space: {alpha: 0.5}\n", S + "1: method: is missing, must be one of ce, kd"),
    ("method: fsd_ilgg\n", S + "1: method: found text 'fsd_ilgg'", "Did you mean `fsd_ilg`?"),
    ("method: [kd, ce]\n", S + "1: method: found a list", "or {choice: [...]} of them"),
    ("method: {choice: []}\n", S + "1: method: found a mapping"),
    ("method: {choice: [ce,\n  kdd]}\n", S + "2: method.choice[1]: found text 'kdd'", "Did you mean `kd`?"),
    ("method: {choice: [ce, ce]}\n", S + "1: method.choice[1]: found ce twice"),
    # the space
    ("method: kd\nspace:\n  alhpa: 0.5\n  temperature: 5\n", S + "3: space.alhpa: unknown hyperparameter", "`alpha`?"),
    (ILG + "  gamma: 1\n", S + "10: space.gamma: ", "`gamma_m`, `gamma_i`, `gamma_l` and `gamma_g`"),
    (KD + "  seed: {low: 0, high: 5}\n", S + "5: space.seed: is never searched: set `search.seed`."),
    (KD + "  beta: 1\n", S + "5: space.beta: is not used by kd, but only by fsd_i, fsd_l, fsd_g, fsd_il, fsd_ilg, pkd"),
    ("method: kd\nspace:\n  alpha: 0.5\n", S + "2: space.temperature: is missing, but kd needs it", "default 5."),
    ("method: kd\n", S + "1: space.alpha: is missing"),
    ("method: kd\nspace: [alpha]\n", S + "2: space: found a list, but must be a mapping of hyperparameters."),
    ("method: kd\nspace:\n  temperature: 5\n  alpha: 1.7\n", S + "4: space.alpha: found 1.7, but must be in 0..1."),
    (KD.replace("0.5", "half"), S + "3: space.alpha: found text 'half', but must be a number in 0..1."),
    (KD.replace("0.5", "true"), S + "3: space.alpha: found true, but must be a number in 0..1."),
    (KD.replace("0.5", ".nan"), S + "3: space.alpha: found nan, but must be a number in 0..1."),
    (KD.replace("0.5", ""), S + "3: space.alpha: found nothing, but must be a number in 0..1."),
    (KD.replace("0.5", "[0.1, 0.9]"), S + "3: space.alpha: found a list", "{low: .., high: ..} or {choice: [..]}"),
    (KD.replace("0.5", "9" * 5000), S + "3: space.alpha: found inf"),
    (KD.replace("low: 1,", "low: 0,"), S + "4: space.temperature.low: found 0, but must be above 0 and at most 1000."),
    (KD.replace("low: 1,", "low: 20,"), S + "4: space.temperature.low: found 20, but must be below high, which is 10."),
    (KD.replace("low: 1,", "low: 10,"), S + "4: space.temperature.low: found 10", "a plain value fixes it"),
    (KD.replace("high: 10", "high: .inf"), S + "4: space.temperature.high: found inf"),
    (KD.replace(", high: 10", ""), S + "4: space.temperature.high: is missing: a range needs `low` and `high`"),
    (KD.replace("low: 1", "lwo: 1"), S + "4: space.temperature.lwo: unknown key", "Did you mean `low`?"),
    (KD.replace("low: 1, high: 10", "chioce: [1]"), S + "4: space.temperature.chioce: unknown key", "`choice`?"),
    (KD.replace("high: 10", "high: 10, log: 1"), S + "4: space.temperature.log: found 1, but must be true or false."),
    (
        KD + "  weight_decay: {low: 0,\n    high: 0.1, log: true}\n",
        S + "5: space.weight_decay.low: found 0",
        "log: true",
    ),
    (
        KD.replace("high: 10", "high: 10, log: true, step: 1"),
        S + "4: space.temperature.step: must not be together with",
    ),
    (KD.replace("high: 10", "high: 10, step: 1e-300"), S + "4: space.temperature.step: found 1e-300", "a billionth"),
    (KD.replace("high: 10", "high: 10, step: 0"), S + "4: space.temperature.step: found 0, but must be above 0"),
    (KD.replace("high: 10", "high: 10, step: 9.5"), S + "4: space.temperature.step: found 9.5", "at most 9"),
    (
        KD + "  epochs: {low: 1, high: 4, step: 1.5}\n",
        S + "5: space.epochs.step: found 1.5, but must be a whole number",
    ),
    (KD + "  epochs: 2.5\n", S + "5: space.epochs: found 2.5, but must be a whole number in 1..1000."),
    (KD + "  epochs: {low: 1, high: 2.5}\n", S + "5: space.epochs.high: found 2.5, but must be a whole number"),
    (KD + "  batch_size: {choice: []}\n", S + "5: space.batch_size.choice: found an empty list"),
    (KD + "  batch_size: {choice: 16}\n", S + "5: space.batch_size.choice: found 16, but must be a list"),
    (KD + "  batch_size: {choice: [16, 16.0]}\n", S + "5: space.batch_size.choice[1]: found 16 twice"),
    (
        KD + "  batch_size:\n    choice:\n      - 16\n      - 0\n",
        S + "8: space.batch_size.choice[1]: found 0, but must be in",
    ),
    (
        KD + "  batch_size: {choice: [16], low: 1}\n",
        S + "5: space.batch_size.low: unknown key, must be one of choice, when",
    ),
    # conditions
    (KD + "  epochs: {low: 1, high: 3, when: kd}\n", S + "5: space.epochs.when: found text 'kd'", "must be a mapping"),
    (KD + "  epochs: {low: 1, high: 3, when: {method: []}}\n", S + "5: space.epochs.when.method: found a list"),
    (
        KD + "  epochs: {low: 1, high: 3, when: {method: [kdd]}}\n",
        S + "5: space.epochs.when.method: found text 'kdd'",
        "`kd`?",
    ),
    (
        KD + "  epochs: {low: 1, high: 3, when: {method: [ce]}}\n",
        S + "5: space.epochs.when.method: found ce",
        "never holds",
    ),
    (
        KD + "  epochs: {low: 1, high: 3, when: {temperature: [2]}}\n",
        S + "5: space.epochs.when.temperature: is a range",
    ),
    (
        KD + "  epochs: {low: 1, high: 3, when: {alhpa: [2]}}\n",
        "space.epochs.when.alhpa: is not in the space",
        "`alpha`?",
    ),
    (KD + "  epochs: {low: 1, high: 3, when: {alpha: [0.4]}}\n", "when.alpha: found 0.4, but alpha can only be 0.5."),
    (KD + "  epochs: {choice: [1, 2], when: {epochs: [1]}}\n", S + "5: space.epochs.when: depends on epochs itself"),
    (
        KD + "  epochs: {choice: [1, 3], when: {batch_size: [8]}}\n  batch_size: {choice: [8], when: {epochs: [1]}}\n",
        S + "5: space.epochs.when: depends on epochs itself, directly or through others.",
    ),
    # the comparison of methods
    (
        SEVERAL + "search:\n  sampler: grid\n  compare_methods: equal\n",
        S + "5: search.compare_methods: is equal, but must be best_overall with sampler grid, which runs every",
    ),
    (SEVERAL + "search: {compare_methods: equl}\n", S + "3: search.compare_methods: found text 'equl'", "`equal`?"),
    # the first configurations
    (KD + "search: {first: {alpha: 0.5}}\n", S + "5: search.first: found a mapping, but must be a list"),
    (KD + "search: {first: [0.5]}\n", S + "5: search.first[0]: found 0.5, but must be a mapping"),
    (KD + "search: {first: [{}]}\n", S + "5: search.first[0]: found a mapping"),
    (
        KD + "search:\n  first:\n    - {alpha: 0.5}\n    - {temprature: 5}\n",
        S + "8: search.first[1].temprature: ",
        "`temperature`?",
    ),
    (KD + "search: {first: [{temperature: 11}]}\n", "search.first[0].temperature: found 11", "the space's 1..10"),
    (KD + "search: {first: [{alpha: 0.4}]}\n", "search.first[0].alpha: found 0.4, but the space fixes it at 0.5."),
    (KD + "search: {first: [{alpha: .nan}]}\n", "search.first[0].alpha: found nan"),
    (KD + "search: {first: [{beta: 1}]}\n", "search.first[0].beta: is not used by kd."),
    (KD + "search: {first: [{epochs: 5}]}\n", "first[0].epochs: found 5, but the space does not name it", "always 3"),
    (KD + "search: {first: [{method: ce}]}\n", "search.first[0].method: found text 'ce', but must be one of kd."),
    (
        KD + "  batch_size: {choice: [8, 16]}\nsearch: {first: [{batch_size: 32}]}\n",
        S + "6: search.first[0].batch_size: found 32, but must be one of the space's 8, 16.",
    ),
    (
        KD + "  weight_decay: {low: 0, high: 0.3, step: 0.1}\nsearch: {first: [{weight_decay: 0.25}]}\n",
        S + "6: search.first[0].weight_decay: found 0.25",
        "in steps of 0.1",
    ),
    # earlier searches
    (KD + "search: {warm_from: []}\n", S + "5: search.warm_from: found a list, but must be auto, off, or folders"),
    (KD + "search: {warm_from: [3]}\n", S + "5: search.warm_from: found a list, but must be auto, off, or folders"),
    (KD + "search: {warm_from: true}\n", S + "5: search.warm_from: found true, but must be auto, off, or folders"),
    (KD + "search: {warm_from: [runs/a, runs/a]}\n", S + "5: search.warm_from: ", "a list of different folders"),
    # the published weights
    (
        KD + "loss: {weights: {epsilon: 1, sigma: 0.5, gamma: 0.5, beta: 0.5}}\n",
        "loss.weights: is for method fsd_ilg only",
    ),
    (WEIGHTED.replace("sigma: 0.5", "sigma: 5"), S + "3: loss.weights.sigma: found 5, but must be in 0..1"),
    (
        WEIGHTED.replace("gamma: 0.2", "gamma: 1.2"),
        S + "3: loss.weights.gamma: found 1.2, but must be in 0..1",
        "negative",
    ),
    (WEIGHTED.replace("sigma: 0.5, ", ""), S + "3: loss.weights.sigma: is missing"),
    (WEIGHTED.replace("sigma", "sgima"), S + "3: loss.weights.sgima: unknown key", "Did you mean `sigma`?"),
    (
        WEIGHTED.replace("{epsilon: 30, sigma: 0.5, gamma: 0.2, beta: 0.4}", "3"),
        S + "3: loss.weights: found 3, but must be a",
    ),
    (WEIGHTED.replace("alpha: 0.5,", "alpha: 0.5, beta: 1,"), S + "2: space.beta: is given by loss.weights"),
    # the text itself
    (KD + '"a\\nb": 1\n', S + "5: 'a\\nb': unknown key"),
    (KD + "x" * 90 + ": 1\n", S + "5: " + "x" * 57 + "...: unknown key"),
    (KD + "  alpha: 0.6\n", S + "5: space.alpha: found twice, on lines 3 and 5"),
    (
        KD.replace("0.5", "!!python/object/apply:os.system [ls]"),
        S + "3: space.alpha: found the tag `!!python/object/apply",
    ),
]


@pytest.mark.parametrize("case", BAD, ids=range(len(BAD)))
def test_bad_input(tmp_path: Path, case: tuple[str, ...]) -> None:
    text, *words = case
    problems = _problems(tmp_path, text)
    assert any(all(word in problem for word in words) for problem in problems), problems


# What one mistake in a file that is otherwise right says; the rest of the table leaves other keys out on purpose.
@pytest.mark.parametrize("case", [case for case in BAD if case[0].startswith((KD, ILG, "method: fsd_ilg"))])
def test_one_mistake_is_one_line(tmp_path: Path, case: tuple[str, ...]) -> None:
    # Two entries that depend on each other are two lines; a misspelt weight is also a missing one.
    expected = 2 if "batch_size: {choice: [8], when" in case[0] or "sgima" in case[0] else 1
    assert len(_problems(tmp_path, case[0])) == expected


def test_all_problems_at_once_and_in_order(tmp_path: Path) -> None:
    text = (
        "method: fsd_ilg\nspace:\n  alpha: 1.7\n  temperature: {low: 10, high: 1}\n  gamma: 1\n  beta: 1\n"
        "  gamma_i: {low: 0, high: 1, log: true}\n  learnin_rate: 1e-4\nstudent:\n  layers: six\n  layers: 4\n"
        "asha: {reports: 2, grace: 3}\nsearch:\n  trials: 0\n  first:\n    - {alpha: 3}\nprecision: half\nextra: 1\n"
    )
    problems = _problems(tmp_path, text)
    places = [
        "3: space.alpha", "4: space.temperature.low", "5: space.gamma", "7: space.gamma_i.low", "8: space.learnin_rate",
        "10: student.layers", "11: student.layers", "12: asha.grace", "14: search.trials", "16: search.first[0].alpha",
        "17: precision", "18: extra",
    ]  # fmt: skip
    assert [problem.split(": found")[0].split(": unknown")[0] for problem in problems] == [
        S + place for place in places
    ]


def test_an_unusable_value_is_not_complained_about_twice(tmp_path: Path) -> None:
    problems = _problems(tmp_path, KD.replace("0.5", "!!python/name:os.system") + "search: !x {trials: 0}\n")
    assert len(problems) == 2


# ---------------------------------------------------------------- what is implied


def test_published_padding_implies_the_published_choices(tmp_path: Path) -> None:
    settings = _load(tmp_path, KD + "data: {padding: published}\n")
    assert (settings.loss.distance, settings.student.memory_start) == ("raw", "published")
    kept = _load(
        tmp_path, KD + "data: {padding: published}\nloss: {distance: relative}\nstudent: {memory_start: matched}\n"
    )
    assert (kept.loss.distance, kept.student.memory_start) == ("relative", "matched")
    by_flag = _load(tmp_path, KD, **{"data.padding": "published", "student.memory_start": "matched"})
    assert (by_flag.loss.distance, by_flag.student.memory_start) == ("raw", "matched")
    for each in (settings, kept, by_flag):
        assert _load(tmp_path, dump(each)) == each


def test_published_weights_are_the_same_loss(tmp_path: Path) -> None:
    epsilon, sigma, gamma = 30, 0.5, 0.2
    space = {name: entry.value for name, entry in _load(tmp_path, WEIGHTED).space.items() if isinstance(entry, Fixed)}
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
    assert _load(tmp_path, KD + text) == _load(tmp_path, KD)


@pytest.mark.parametrize("word", ["off", "false", "'off'", "False"])
def test_off_is_off(tmp_path: Path, word: str) -> None:
    settings = _load(tmp_path, KD + f"asha: {word}\nwandb: {{mode: {word}}}\n")
    assert settings.asha is None
    assert settings.wandb.mode == "off"


def test_numbers_that_a_person_means(tmp_path: Path) -> None:
    settings = _load(
        tmp_path,
        KD + "  learning_rate: {low: 1e-5, high: 1E-3, log: yes}\ndata: {train_limit: 1e4, max_length: 64.0}\n",
    )
    assert settings.space["learning_rate"] == Range(low=1e-5, high=1e-3, log=True)
    assert (settings.data.train_limit, settings.data.max_length) == (10_000, 64)
    assert type(settings.data.train_limit) is int


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = _load(tmp_path, KD)
    with pytest.raises(ValueError, match="frozen"):
        settings.search.trials = 3
    with pytest.raises(ValueError, match="frozen"):
        settings.method = "ce"


# ---------------------------------------------------------------- flags


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
    settings = _load(tmp_path, KD, **overrides)
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
    settings = _load(tmp_path, KD, **overrides)
    assert settings.resources == Resources(cpus_per_trial=2, gpus_per_trial=0.5, max_concurrent=3)
    assert settings.wandb.mode == "offline"
    assert _load(tmp_path, KD, **parse_flags(["--wandb", "off"])).wandb.mode == "off"
    with pytest.raises(InputError, match="--wandb-mode: is given twice"):
        parse_flags(["--wandb", "off", "--wandb-mode", "online"])
    assert _problems(tmp_path, KD, {"resources.max_concurrent": "0", "wandb.mode": "of"}) == (
        "--max-concurrent: found 0, but must be in 1..1000000.",
        "--wandb: found text 'of', but must be one of off, offline, online. Did you mean `off`?",
    )


def test_asha_flags(tmp_path: Path) -> None:
    off = KD + "asha: off\n"
    on = _load(tmp_path, off, **{"asha.reports": "5", "asha": "on"})
    assert on.asha is not None
    assert on.asha.reports == 5
    assert _problems(tmp_path, off, {"asha.reports": "5"}) == ("--asha-reports: has no effect because asha is off.",)


def test_problems_of_overrides_name_the_flag(tmp_path: Path) -> None:
    problems = _problems(
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
    assert _load(tmp_path, dump(settings)) == settings


def test_without_a_file_problems_name_flags() -> None:
    with pytest.raises(InputError) as caught:
        load(None, {"space.alpha": "2", "search.trials": "x"})
    assert [problem.split(": ")[0] for problem in caught.value.problems] == ["--method", "--trials", "--alpha"]
    with pytest.raises(InputError, match=r"^--beta: is not used by kd"):
        load(None, {"method": "kd", "space.beta": "2"})


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
    assert settings == _load(tmp_path, text)
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
    settings = _load(tmp_path, text)
    written = dump(settings)
    assert _load(tmp_path, written) == settings
    assert dump(_load(tmp_path, written)) == written
    data = yaml.safe_load(written)
    assert set(data) == set(Settings.model_fields)
    assert all(set(data[name]) == set(model.model_fields) for name, model in SECTIONS.items() if data[name] != "off")


def test_import_is_light() -> None:
    heavy = ("torch", "optuna", "ray", "transformers", "numpy")
    code = f"import sys, fsd_tune.settings.loader; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


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


def test_values_of_retired_settings_that_are_still_true_are_no_mistake(tmp_path: Path) -> None:
    text = KD + "search: {trials: 7, learn_from: extrapolated, judge_by: last}\n"
    assert _load(tmp_path, text) == _load(tmp_path, KD + "search: {trials: 7}\n")


def test_a_stored_file_of_an_earlier_version_is_read_without_what_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(KD + "search: {trials: 7, learn_from: pruned, judge_by: mean_of_last_3}\n", encoding="utf-8")
    assert load(path, stored=True) == _load(tmp_path, KD + "search: {trials: 7}\n")
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


@pytest.mark.parametrize("flag", ["--judge-by=last", "--search-judge-by=last", "--learn_from=pruned"])
def test_a_flag_that_is_gone_says_what_replaced_it(flag: str) -> None:
    with pytest.raises(InputError, match=r"this setting is gone: .*; remove it\."):
        parse_flags([flag])
