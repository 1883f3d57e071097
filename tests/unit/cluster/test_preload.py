"""Workers of a local Ray that import torch and transformers as they start."""

import subprocess
import sys

from fsd_tune.cluster import preload
from fsd_tune.cluster.private_ray import PLACES


def test_only_the_first_workers_import_early(monkeypatch, tmp_path):
    monkeypatch.delenv(PLACES, raising=False)
    assert not preload.preload(), "not a worker of a local Ray"
    monkeypatch.setenv(PLACES, str(tmp_path))
    assert [preload.preload() for _ in range(10)] == [True] * 8 + [False] * 2
    monkeypatch.setenv(PLACES, str(tmp_path / "gone"))
    assert not preload.preload()


def test_a_worker_without_a_place_imports_nothing(monkeypatch):
    monkeypatch.delenv(PLACES, raising=False)
    code = "import sys, fsd_tune.cluster.preload; print({'torch', 'ray', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"
