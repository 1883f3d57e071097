from pathlib import Path

import pytest

from fsd_tune.cluster import connection
from fsd_tune.cluster.task_pool import Outcome
from fsd_tune.evaluation.confirm import run_worker, runs
from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import build_artifacts
from tests.helpers.searching import short_folder


@pytest.fixture(scope="module")
def ray_session():
    """A local Ray in a temporary folder, shared by the tests of a file."""
    with short_folder() as folder, connection.connect(temporary=Path(folder)):
        yield


class _Here:
    """Stands for `ActorPool` with one worker in this process."""

    def __init__(self, actor_class, arguments, method, **_):
        self._make, self._method, self._worker = lambda: actor_class(*arguments), method, None

    def run(self, items, progress):
        self._worker = self._worker or self._make()
        for item, arguments in items:
            yield Outcome(item, result=getattr(self._worker, self._method)(*arguments))
            progress([])

    def close(self):
        self._worker = None


@pytest.fixture
def confirm_here(monkeypatch, ray_session, one_thread):
    """Confirmations train in this process: Ray's take seconds to start, and other tests have them."""
    monkeypatch.setattr(runs, "ActorPool", _Here)
    monkeypatch.setattr(runs, "start", lambda spec, user: None)
    monkeypatch.setattr(runs, "leave", lambda actor, user: None)
    monkeypatch.setattr(runs, "build", lambda actor, spec, cpus, gpus, progress: build_artifacts(spec, progress))
    monkeypatch.setattr(run_worker, "fetch_arrays", lambda actor, built: open_arrays(built, mapped=True))
