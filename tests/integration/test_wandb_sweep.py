"""A search space as a W&B sweep: against W&B's own schema, and an agent's command as W&B's own code fills it."""

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from fsd_tune.errors import InputError
from fsd_tune.settings.loader import load
from fsd_tune.settings.overrides import read_configuration_file
from fsd_tune.tracking.sweep import sweep_config, text
from tests import ROOT
from tests.helpers.searching import SCRIPT

SPACES = sorted((ROOT / "search_spaces").rglob("*.yaml"))
SPACE = """
method: {choice: [fsd_i, ce]}
space:
  alpha: {low: 0.1, high: 0.7, step: 0.2}
  temperature: 3
  beta: {low: 0.1, high: 10, log: true}
  learning_rate: {low: 1e-4, high: 1e-2, log: true}
  batch_size: {low: 4, high: 16, log: true}
  epochs: {low: 1, high: 2}
  weight_decay: {low: 0, high: 0.1}
  warmup_ratio: {choice: [0.0, 0.1]}
student: {layers: 2, start: {choice: [copy, random]}, hidden_size: {choice: [null, 8]}}
data: {max_length: 32}
search: {trials: 7, sampler: random, first: [{method: fsd_i, alpha: 0.3}]}
asha: {reports: 4, grace: 2, reduction_factor: 2.5}
memory: {centroids: 4}
"""


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "my space.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def schema():
    found = importlib.util.find_spec("sweeps")
    assert found is not None and found.origin is not None
    return json.loads((Path(found.origin).parent / "config" / "schema.json").read_text(encoding="utf-8"))


def made(path):
    return sweep_config(load(path), space=path, task="sst2", teacher="someone/teacher", output=Path("sweep"))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_the_shipped_spaces_meet_the_schema(path, schema):
    config = made(path)
    jsonschema.validate(config, schema)
    assert yaml.safe_load(text(config)) == config
    assert config["metric"] == {"name": "accuracy", "goal": "maximize"}


def test_each_kind_of_parameter_is_the_same_in_their_words(space, schema):
    config = made(space)
    jsonschema.validate(config, schema)
    assert config["parameters"] == {
        "method": {"values": ["fsd_i", "ce"]},
        "start": {"values": ["copy", "random"]},
        "hidden_size": {"values": [None, 8]},
        "alpha": {"values": [0.1, 0.3, 0.5, 0.7]},
        "beta": {"distribution": "log_uniform_values", "min": 0.1, "max": 10},
        "learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "epochs": {"distribution": "int_uniform", "min": 1, "max": 2},
        "batch_size": {"distribution": "q_log_uniform_values", "min": 4, "max": 16, "q": 1},
        "weight_decay": {"distribution": "uniform", "min": 0, "max": 0.1},
        "warmup_ratio": {"values": [0.0, 0.1]},
    }
    assert (config["method"], config["run_cap"]) == ("random", 7)
    assert config["early_terminate"] == {"type": "hyperband", "min_iter": 2, "eta": 2.5}


def test_a_space_that_fixes_everything_is_no_sweep(tmp_path):
    path = tmp_path / "fixed.yaml"
    path.write_text("method: ce\nspace: {learning_rate: 1e-3}\n")
    with pytest.raises(InputError, match="searches no hyperparameter"):
        made(path)


def test_an_agent_trains_what_the_sweep_asks_for(space, glue, teacher, tmp_path):
    """The command goes the way of `wandb agent`, with parameters that the drawn method and start do not use."""
    words = [SCRIPT, "sweep-config", space, "--task", "sst2", "--teacher", teacher, "--data", glue]
    words += ["--output", tmp_path / "sweep", "--weight-decay=0.05", "--file", tmp_path / "sweep.yaml"]
    subprocess.run(words, check=True, capture_output=True)
    config = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    assert "weight_decay" not in config["parameters"]
    drawn = {"method": "ce", "alpha": 0.3, "beta": 1.0, "learning_rate": 1e-05, "epochs": 1, "batch_size": 8.0}
    drawn |= {"warmup_ratio": 0.1, "start": "copy", "hidden_size": 8}
    filled = create_sweep_command_args({"args": {name: {"value": value} for name, value in drawn.items()}})
    file = tmp_path / "config-abc123.json"
    file.write_text(filled["args_json"][0])
    macros = {"${env}": ["/usr/bin/env"], "${args_json_file}": [str(file)]}
    command = [word for part in create_sweep_command(config["command"]) for word in macros.get(part, [part])]
    command[command.index("online")] = "offline"  # there is no network here
    path = f"{SCRIPT.parent}:{os.environ['PATH']}"
    environment = os.environ | {"WANDB_RUN_ID": "abc123", "WANDB_SWEEP_ID": "s1", "PATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "sweep" / "abc123" / "fsd_tune.json").read_text())
    assert record["student"] == {"layers": 2, "start": "copy"}
    assert record["config"]["method"] == "ce" and record["config"]["weight_decay"] == 0.05
    assert record["config"]["learning_rate"] == 1e-05 and "beta" not in record["config"]
    (offline,) = tmp_path.rglob("offline-run-*")
    assert offline.name.endswith("-abc123"), "the run is the one that the sweep knows"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2]", ":1: found a list"),
        ("{alpa: 0.5}", "alpa: unknown hyperparameter. Did you mean `alpha`?"),
        ("{alpha: [0.5]}", "alpha: found a list, but must be one value"),
        ("{alpha: ", "is not YAML"),
    ],
)
def test_a_wrong_configuration_file_is_named(content, said, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_configuration_file(path)
    assert str(path) in caught.value.problems[0] and said in caught.value.problems[0]


def test_a_missing_configuration_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_configuration_file(tmp_path / "none.json")


def test_the_place_for_a_run_needs_an_agent(space, glue, teacher, tmp_path):
    words = [SCRIPT, "distill", space, "--task", "sst2", "--teacher", teacher, "--output", tmp_path / "{run}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "only agents of a W&B sweep can use {run}" in done.stderr
