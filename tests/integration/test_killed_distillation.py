"""A distillation that is killed goes on to the same student."""

import os
import signal
import subprocess
import time

import torch
from safetensors.torch import load_file

from fsd_tune.training.unfinished import unfinished_folder
from tests.helpers.searching import SCRIPT


def same(folder, other):
    weights = [load_file(path / "model.safetensors") for path in (folder, other)]
    assert weights[0].keys() == weights[1].keys()
    return all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_killed_distillation_is_continued_to_the_same_student(fsd_tune, one_thread, teacher, glue, tmp_path):
    def command(output):
        return [
            "distill", "--method", "fsd_ilg", "--task", "sst2", "--teacher", teacher, "--data", glue,
            "--output", output, "--memory", tmp_path / "memory", "--student-layers", "2", "--data-max-length", "32",
            "--memory-centroids", "5", "--batch-size", "4", "--epochs", "40", "--precision", "float32",
            "--device", "cpu",
        ]  # fmt: skip

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    output = tmp_path / "student"
    words = [SCRIPT, *command(output)]
    run = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(unfinished_folder(output).glob("*/checkpoint_*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert not output.exists()
    code, _, err = fsd_tune(*command(output))
    assert code == 0 and any("continuing after evaluation " in line for line in err), err
    assert not unfinished_folder(output).exists()
    assert fsd_tune(*command(tmp_path / "whole"))[0] == 0
    assert same(output, tmp_path / "whole")
