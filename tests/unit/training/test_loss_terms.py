import os
import subprocess
import sys

from tests import ROOT

_ORDER = "import sys; print(*({'intra', 'local'} & dict.fromkeys(sys.argv[1:]).keys()))"
_WEIGHTS = """
import hashlib, torch
torch.set_num_threads(1)
from tests.helpers import random_runs
run = random_runs.distiller("fsd_ilg", pairs=random_runs.FIVE_PAIRS)
for _ in range(3):
    run.train_step()
weights = torch.cat([weights.detach().flatten() for weights in run.model.parameters()])
print(*run.weights)
print(*({"intra", "local"} & run.weights.keys()))
print(hashlib.sha256(weights.numpy().tobytes()).hexdigest())
"""


def test_a_step_does_not_depend_on_the_hash_seed_of_its_process(capsys, one_thread):
    """Gradients are added in the order of the terms, so that the order of a set would show in the last bit."""

    def python(seed, *words):
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", *words]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout

    exec(_WEIGHTS, {})
    terms, order, weights = capsys.readouterr().out.splitlines()
    # A seed that gives a set of the terms another order than this process's.
    seed = next(seed for seed in range(99) if python(seed, _ORDER, *terms.split()).strip() != order)
    _, other_order, other_weights = python(seed, _WEIGHTS).splitlines()
    assert order.split() == other_order.split()[::-1]
    assert weights == other_weights
