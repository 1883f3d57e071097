"""Writes a search's folder as a search leaves it, with numbers that look like a search over fsd_ilg."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml

REPORTS = 10
STEPS_A_REPORT = 19
DISTRIBUTIONS: dict[str, optuna.distributions.BaseDistribution] = {
    "alpha": optuna.distributions.FloatDistribution(0.0, 1.0),
    "temperature": optuna.distributions.FloatDistribution(1.0, 10.0),
    "gamma_i": optuna.distributions.FloatDistribution(0.01, 10.0, log=True),
    "gamma_l": optuna.distributions.FloatDistribution(0.01, 10.0, log=True),
    "gamma_g": optuna.distributions.FloatDistribution(0.01, 10.0, log=True),
    "learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True),
    "batch_size": optuna.distributions.CategoricalDistribution([16, 32]),
}
_TERMS = {"task": 0.69, "kd": 2.4, "intra": 0.42, "local": 0.9, "global": 1.7, "global/memory": 0.8}


def summary(**changes: Any) -> dict[str, Any]:
    """A finished search's summary.json."""
    return {
        "name": "sst2-fsd_ilg",
        "task": "sst2",
        "metric": "accuracy",
        "mode": "max",
        "state": "done",
        "trials": 24,
        "reports": REPORTS,
        "rungs": [1, 3, 9],
        "workers": 2,
        "started": 1_760_000_000.0,
        "wall_seconds": 412.7,
        "judge_by": "mean_of_last_3",
        "select_on": "dev",
        "selection_examples": 600,
        "train_examples": 1000,
        "teacher": {"name": "teachers/sst2", "score": 0.832, "metrics": {"accuracy": 0.832}},
        "student": {"layers": 3, "model": None},
        "layer_cka": {"examples": 256, "cka": [[0.99, 0.8, 0.7], [0.9, None, 0.85]]},
        "memory": {
            "fingerprint": "ab12cd34ef56",
            "centroids": 100,
            "passes": 1,
            "passes_ever": 1,
            "build_seconds": 9.1,
            "sizes": [1 + (index * 7) % 13 + (index % 5) ** 2 // 2 for index in range(100)],
            "path": "runs/sst2/memory/ab12cd34ef56",
        },
        "precision": "bf16",
        "machine": "2 cores, 6 GiB",
        "notes": ["41 of 1,000 sentences were cut at 64 tokens."],
        **changes,
    }


def configuration(random_state: random.Random, **changes: Any) -> dict[str, Any]:
    """A configuration of fsd_ilg drawn from DISTRIBUTIONS."""
    return {
        "method": "fsd_ilg",
        "alpha": round(random_state.uniform(0, 1), 4),
        "temperature": round(random_state.uniform(1, 10), 3),
        "beta": 1.0,
        "gamma_i": 10 ** random_state.uniform(-2, 1),
        "gamma_l": 10 ** random_state.uniform(-2, 1),
        "gamma_g": 10 ** random_state.uniform(-2, 1),
        "gamma_m": 0.5,
        "learning_rate": 10 ** random_state.uniform(-5, -3),
        "epochs": 3,
        "batch_size": random_state.choice([16, 32]),
        "warmup_ratio": 0.1,
        **changes,
    }


def report(index: int, accuracy: float, **changes: Any) -> dict[str, Any]:
    """One line of reports.jsonl."""
    decay = math.exp(-index / 6)
    return {
        "trial_id": "f00d",
        "report": index,
        "epoch": round(0.3 * index, 4),
        "step": STEPS_A_REPORT * index,
        "steps_total": STEPS_A_REPORT * REPORTS,
        "accuracy": accuracy,
        "loss": 1.0 + decay,
        **{f"loss/{name}": start * (0.25 + 0.75 * decay) for name, start in _TERMS.items()},
        "cka/intra": 0.9 - 0.3 * decay,
        "learning_rate": 3e-4 * (1 - index / (REPORTS + 1)),
        "train_seconds": 1.75 * index,
        "evaluation_seconds": 0.21 * index,
        "timestamp": 1_760_000_000 + 2 * index,
        "time_this_iter_s": 1.96,
        "pid": 4242,
        "hostname": "worker",
        **changes,
    }


def write_trial(
    folder: Path,
    number: int,
    config: dict[str, Any],
    reports: list[dict[str, Any]],
    state: str | None = "finished",
    reason: str = "",
    name: str | None = None,
) -> Path:
    """One trial's folder below `results/`; `state` None writes no trial.json, as while it runs."""
    trial = folder / "results" / (name or f"trial_{number:04d}")
    trial.mkdir(parents=True)
    (trial / "config.json").write_text(json.dumps({"trial": number, "config": config, "memory": "ab12"}))
    (trial / "reports.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reports))
    if state is not None:
        (trial / "trial.json").write_text(json.dumps({"state": state, "reason": reason, "score": None}))
    return trial


def write_frame(folder: Path, changes: dict[str, Any] | None = None) -> None:
    """Everything but trials and study."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "method": "fsd_ilg",
        "space": {
            "alpha": {"low": 0.0, "high": 1.0},
            "temperature": {"low": 1.0, "high": 10.0},
            "beta": 1.0,
            "gamma_i": {"low": 0.01, "high": 10.0, "log": True},
            "gamma_l": {"low": 0.01, "high": 10.0, "log": True},
            "gamma_g": {"low": 0.01, "high": 10.0, "log": True},
            "gamma_m": 0.5,
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
            "epochs": 3,
            "batch_size": {"choice": [16, 32]},
            "warmup_ratio": 0.1,
        },
        "search": {"trials": 24, "seed": 0, "sampler": "tpe"},
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "command.txt").write_text(
        "fsd-tune search search_spaces/demo.yaml --task sst2 --teacher teachers/sst2 --data glue --output runs/sst2\n"
    )
    (folder / "versions.json").write_text(json.dumps({"fsd_tune": "0.1.0", "ray": "2.60.0", "optuna": "5.0.0"}))
    (folder / "summary.json").write_text(json.dumps(summary(**(changes or {}))))


def write_search(folder: Path, trials: int = 24, study: bool = True, **changes: Any) -> Path:
    """A whole search: of each twelve trials one failed, six or so were stopped at a rung, the others finished.

    Args:
        folder: made here.
        trials: how many trial folders.
        study: whether study.db is written too.
        changes: to summary.json.
    """
    write_frame(folder, {"trials": trials, **changes})
    random_state = random.Random(7)
    records: list[optuna.trial.FrozenTrial] = []
    for number in range(trials):
        config = configuration(random_state)
        # A smooth optimum: learning rate matters most, then gamma_i, then alpha.
        quality = (
            0.80
            - 0.060 * (math.log10(config["learning_rate"]) + 3.5) ** 2
            - 0.012 * (math.log10(config["gamma_i"]) - 0.2) ** 2
            - 0.030 * (config["alpha"] - 0.4) ** 2
        )
        values = [
            round((0.515 + (quality - 0.515) * (1 - math.exp(-index / 2.5)) + random_state.gauss(0, 0.006)) * 600) / 600
            for index in range(1, REPORTS + 1)
        ]
        if number % 12 == 5:
            state, reason, values = "failed", "diverged: accuracy is NaN at report 2", [values[0], math.nan]
        elif quality < 0.74:
            state, reason, values = "stopped", "ASHA at report 1", values[:1]
        elif quality < 0.775:
            state, reason, values = "stopped", "ASHA at report 3", values[:3]
        else:
            state, reason = "finished", ""
        # Two workers, a trial on each at a time.
        begun, pid = 1_760_000_000 + 2 * REPORTS * (number // 2), 4242 + number % 2
        reports = [
            report(index, value, timestamp=begun + 2 * index, pid=pid) for index, value in enumerate(values, start=1)
        ]
        write_trial(folder, number, config, reports, state, reason)
        records.append(study_trial(config, values, state))
    if study:
        write_study(folder, records, str(changes.get("name", "sst2-fsd_ilg")))
    return folder


def shapes(costs: dict[tuple[int, int | None], float], **changes: Any) -> dict[str, Any]:
    """`shapes` of a summary: students with these latencies by layers and hidden size, and a teacher of six layers.

    A layer of width H has H * H weights, and the embeddings 1000 * H.
    """

    def cost(layers: int, hidden_size: int | None, latency: float) -> dict[str, Any]:
        width = hidden_size or 384
        parameters = 1000 * width + layers * width * width
        found = {"layers": layers, "hidden_size": hidden_size, "width": width, "parameters": parameters}
        return found | {"size_mb": 4e-6 * parameters, "flops": 46 * parameters, "latency_ms": latency, "spread": 0.05}

    setting = {"runtime": "onnxruntime", "threads": 1, "batch": 1, "length": 23, "device": "cpu"}
    return {
        "students": [cost(*shape, latency) for shape, latency in costs.items()],
        "teacher": cost(6, None, 9.0),
        "length": 23,
        "machine": "EPYC, 2 cores",
        "setting": setting,
        "notes": [],
        **changes,
    }


def write_front(
    folder: Path,
    trials: Sequence[tuple[int, int | None, float, str]],
    costs: dict[tuple[int, int | None], float],
    search: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A search over the shape of the student: (layers, hidden size, score, state) of each trial.

    Args:
        folder: made here.
        trials: the trials in the order of their numbers.
        costs: the latency of each shape.
        search: keys of the section `search`.
        changes: to summary.json.
    """
    write_frame(folder, {"trials": len(trials), "judge_by": "last", "shapes": shapes(costs), **changes})
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    choices = [list(dict.fromkeys(shape[place] for shape in costs)) for place in (0, 1)]
    settings["student"] = {"layers": {"choice": choices[0]}, "hidden_size": {"choice": choices[1]}, "start": "random"}
    settings["search"] |= search or {}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    random_state = random.Random(3)
    for number, (layers, hidden_size, score, state) in enumerate(trials):
        config = configuration(random_state, layers=layers, hidden_size=hidden_size)
        count = REPORTS if state == "finished" else 3
        write_trial(folder, number, config, [report(index, score) for index in range(1, count + 1)], state)
    return folder


def study_trial(config: dict[str, Any], values: list[float], state: str) -> optuna.trial.FrozenTrial:
    """The study's record of a trial."""
    states = {"finished": optuna.trial.TrialState.COMPLETE, "stopped": optuna.trial.TrialState.PRUNED}
    params = {name: value for name, value in config.items() if name in DISTRIBUTIONS}
    return optuna.trial.create_trial(
        state=states.get(state, optuna.trial.TrialState.FAIL),
        value=sum(values[-3:]) / 3 if state == "finished" else None,
        params=params,
        distributions={name: DISTRIBUTIONS[name] for name in params},
        intermediate_values=dict(enumerate(values, start=1)),
    )


def write_study(folder: Path, records: list[optuna.trial.FrozenTrial], name: str) -> None:
    """`study.db` as Optuna writes it."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    study.add_trials(records)
    storage.engine.dispose()
