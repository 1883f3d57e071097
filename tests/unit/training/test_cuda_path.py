"""The CUDA path without a GPU: no mix of devices or dtypes, and no wait of the host, on pretend CUDA tensors.

All cases run in one process of their own (`tests/helpers/cuda_path.py`), because what makes torch believe in a GPU
cannot be undone.
"""

import json
import os
import subprocess
import sys

import pytest

from tests import ROOT
from tests.helpers.cuda_path import cases


def run(folder, *options):
    """The error of each case by its name."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.helpers.cuda_path", str(folder), *options]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    return run(tmp_path_factory.mktemp("cuda_path"))


@pytest.mark.parametrize("case", cases(every=False))
def test_on_pretend_cuda(case, errors):
    assert not errors[case], errors[case]


@pytest.mark.slow
def test_all_other_combinations_on_pretend_cuda(tmp_path):
    """But for those above."""
    found = run(tmp_path, "--others")
    assert {*found} == {*cases(every=True)} - {*cases(every=False)} and len(found) > 100
    assert {name: error for name, error in found.items() if error} == {}
