import os
import subprocess
import sys

from tests import ROOT

_WEIGHTS = """
import hashlib, torch
torch.set_num_threads(1)
from tests.helpers import random_runs
run = random_runs.distiller("fsd_ilg", pairs=random_runs.FIVE_PAIRS)
for _ in range(3):
    run.train_step()
weights = torch.cat([weights.detach().flatten() for weights in run.model.parameters()])
print(len({"intra", "local"} & run.weights.keys()), *({"intra", "local"} & run.weights.keys()))
print(hashlib.sha256(weights.numpy().tobytes()).hexdigest())
"""


def test_a_step_does_not_depend_on_the_hash_seed_of_its_process():
    """Gradients are added in the order of the terms, so that the order of a set would show in the last bit."""
    found = []
    for seed in ("0", "1"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", _WEIGHTS], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        found.append(done.stdout.splitlines())
    (order, weights), (other_order, other_weights) = found
    assert order != other_order, "these seeds give sets of the terms different orders"
    assert weights == other_weights
