"""What tests of real searches share: a small space, the command line, what must hold of a search's folder."""

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
import psutil
import pytest
import torch

from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.settings.loader import load as load_settings_file
from fsd_tune.training.factory import DistillerFactory
from fsd_tune.training.inputs import load_inputs

SPACE = """
method: {choice: [fsd_ilg, kd, ce]}
space:
  alpha: {low: 0.1, high: 0.9}
  temperature: {low: 1, high: 8}
  beta: 1
  gamma_i: {low: 0.1, high: 10, log: true}
  gamma_l: 1
  gamma_g: 1
  gamma_m: 0.5
  learning_rate: {low: 1e-4, high: 1e-2, log: true}
  batch_size: 8
  epochs: 2
student: {layers: 2}
data: {max_length: 32}
memory: {centroids: 5}
search: {trials: 6}
asha: {reports: 4}
precision: float32
"""
SCRIPT = Path(sys.executable).parent / "fsd-tune"


def short_folder():
    # Ray's sockets lie below it, and a socket's path has at most 107 bytes.
    return tempfile.TemporaryDirectory(prefix="r", dir="/tmp")


def command(glue, teacher, output, space_file, temporary, *flags):
    return [
        SCRIPT, "search", space_file, "--task", "sst2", "--teacher", teacher, "--data", glue, "--output", output,
        "--temp-dir", temporary, *flags,
    ]  # fmt: skip


def study_of(results):
    storage = f"sqlite:///{results.folder / 'study.db'}"
    return optuna.load_study(study_name=results.summary.name, storage=storage)


def agree(results):
    """The study and the results on disk say the same of every trial; each report and each trial is there once."""
    study = study_of(results)
    states = {"finished": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL", "interrupted": "FAIL"}
    rows = results.trials.set_index("number")
    assert sorted(rows.index) == [trial.number for trial in study.trials] == list(range(len(rows)))
    assert len(list((results.folder / "results").glob("*/config.json"))) == len(rows)
    for trial in study.trials:
        row = rows.loc[trial.number]
        assert trial.state.name == states[row["state"]]
        reports = results.reports[results.reports["trial"] == trial.number]
        values = dict(zip(reports["report"], reports[results.metric], strict=True))
        assert trial.intermediate_values == {r: v for r, v in values.items() if np.isfinite(v)}
        path = results.folder / "results" / row["folder"] / "reports.jsonl"
        # A trial whose worker never started has none.
        lines = path.read_text().splitlines() if path.exists() else []
        assert [json.loads(line)["report"] for line in lines] == sorted(values)
        if row["state"] == "finished":
            assert trial.value == pytest.approx(row["score"])
        for parameter, value in trial.params.items():
            assert row[parameter] == value


def as_if_uninterrupted(results, glue):
    """Each trial's reports are those of its configuration trained in one go, to the last bit."""
    settings = load_settings_file(results.folder / "settings.yaml")
    threads = torch.get_num_threads()
    # As in a trial: with more of them sums are made in another order.
    torch.set_num_threads(int(settings.resources.cpus_per_trial))
    inputs = load_inputs(settings, "sst2", results.summary.inputs["teacher"], glue)
    memory = results.folder / "memory"
    spec = MemorySpec.from_inputs(settings, inputs, memory, "cpu")
    bench = DistillerFactory(settings, spec, open_arrays(build_artifacts(spec, lambda *_: None), mapped=True))
    for _, row in results.trials.iterrows():
        config = json.loads((results.folder / "results" / row["folder"] / "config.json").read_text())["config"]
        run = bench.distiller(config, results.summary.planned_reports)
        reports = results.reports[results.reports["trial"] == row["number"]].sort_values("report")
        assert len(reports) == row["reports"]
        for _, found in reports.iterrows():
            record = run.train_to_next_evaluation()
            assert (found["accuracy"], found["loss"]) == (record["accuracy"], record["loss"])
    torch.set_num_threads(threads)


def until(condition, driver, seconds=240):
    """Wait until something is true; the `driver` must not have ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, driver.stderr and driver.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_of(session):
    """Living processes of a session, and what they started in it."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


def title(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return ""


def is_trial(title):
    """Ray names a trial's process after our class while it starts, and after the one that wraps it afterwards."""
    return "DistillTrial" in title or "ResourceTrainable" in title


def kill(driver, target):
    """SIGKILL by id: the `driver`, its `workers` or `starting` ones, the memory `actor`, or `all` of its session.

    `terminal` and `stderr` end neither: SIGHUP for all, as when a terminal is lost, and a closed pipe.
    """
    if target == "terminal":
        os.killpg(driver.pid, signal.SIGHUP)
        return 1
    if target == "stderr":
        driver.stderr.close()
        return 1
    family = processes_of(driver.pid)
    titles = {process: title(process) for process in family}
    chosen = {
        "driver": [driver.pid],
        "workers": [process.pid for process, title in titles.items() if is_trial(title)],
        "starting": [process.pid for process, title in titles.items() if "DistillTrial" in title],
        "actor": [process.pid for process, title in titles.items() if "ray::_Memory" in title],
        "all": [process.pid for process in family],
    }[target]
    for pid in chosen:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return len(chosen)


def gone(driver, seconds=30):
    """Wait for a killed driver's processes to follow it; the ones left are ended by id."""
    driver.wait(timeout=seconds)
    deadline = time.monotonic() + seconds
    while (left := processes_of(driver.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in left:
        process.kill()
    return left
