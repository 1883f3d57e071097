"""Every kind of bad input in a settings file, with its place."""

from pathlib import Path

import pytest

from tests.helpers.space_files import ILG, KD, SEVERAL, WEIGHTED, problems_of

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
    problems = problems_of(tmp_path, text)
    assert any(all(word in problem for word in words) for problem in problems), problems


# What one mistake in a file that is otherwise right says; the rest of the table leaves other keys out on purpose.
@pytest.mark.parametrize("case", [case for case in BAD if case[0].startswith((KD, ILG, "method: fsd_ilg"))])
def test_one_mistake_is_one_line(tmp_path: Path, case: tuple[str, ...]) -> None:
    # Two entries that depend on each other are two lines; a misspelt weight is also a missing one.
    expected = 2 if "batch_size: {choice: [8], when" in case[0] or "sgima" in case[0] else 1
    assert len(problems_of(tmp_path, case[0])) == expected


def test_all_problems_at_once_and_in_order(tmp_path: Path) -> None:
    text = (
        "method: fsd_ilg\nspace:\n  alpha: 1.7\n  temperature: {low: 10, high: 1}\n  gamma: 1\n  beta: 1\n"
        "  gamma_i: {low: 0, high: 1, log: true}\n  learnin_rate: 1e-4\nstudent:\n  layers: six\n  layers: 4\n"
        "asha: {reports: 2, grace: 3}\nsearch:\n  trials: 0\n  first:\n    - {alpha: 3}\nprecision: half\nextra: 1\n"
    )
    problems = problems_of(tmp_path, text)
    places = [
        "3: space.alpha", "4: space.temperature.low", "5: space.gamma", "7: space.gamma_i.low", "8: space.learnin_rate",
        "10: student.layers", "11: student.layers", "12: asha.grace", "14: search.trials", "16: search.first[0].alpha",
        "17: precision", "18: extra",
    ]  # fmt: skip
    assert [problem.split(": found")[0].split(": unknown")[0] for problem in problems] == [
        S + place for place in places
    ]


def test_an_unusable_value_is_not_complained_about_twice(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, KD.replace("0.5", "!!python/name:os.system") + "search: !x {trials: 0}\n")
    assert len(problems) == 2
