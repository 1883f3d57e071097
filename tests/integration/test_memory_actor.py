"""The memory actor on a local Ray: who keeps it alive, and what a build asks for."""

import time
from typing import Any

import pytest
import ray
from ray.experimental import internal_kv

from fsd_tune.cluster import connection
from fsd_tune.cluster.leases import Leases
from fsd_tune.memory import actor as memory_actor
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.training.inputs import load_inputs

SPEC: Any = None  # Only its name counts.


@pytest.fixture
def named(monkeypatch, ray_session, request):
    monkeypatch.setattr(memory_actor, "name_of", lambda spec: request.node.name)


def lives(actor):
    try:
        ray.get(actor.check_alive.remote())
    except ray.exceptions.RayActorError:
        return False
    return True


def test_the_last_search_that_leaves_ends_it_also_after_a_restart(named):
    first, second = memory_actor.start(SPEC, "one"), memory_actor.start(SPEC, "two")
    ray.kill(first, no_restart=False)
    memory_actor.leave(first, "one")  # While it restarts.
    assert lives(second)
    memory_actor.leave(second, "two")
    assert not lives(second)


def test_a_driver_that_has_gone_keeps_nothing_alive(named):
    actor = memory_actor.start(SPEC, "one")
    key = f"{Leases(actor._actor_id.hex()).prefix}ff000000/killed"
    internal_kv._internal_kv_put(key, "a job that is not there")
    memory_actor.leave(actor, "one")
    assert not lives(actor)


@pytest.mark.slow
def test_a_build_takes_what_is_free_and_says_what_it_waits_for(ray_session, tmp_path, glue, teacher, load_settings):
    settings = load_settings()
    spec = MemorySpec.from_inputs(settings, load_inputs(settings, "sst2", str(teacher), glue), tmp_path / "m", "cpu")
    release, all_cpus = tmp_path / "release", int(ray.cluster_resources()["CPU"])

    @ray.remote
    def hold(cpus):
        (tmp_path / f"held-{cpus}").touch()
        while not release.exists():
            time.sleep(0.1)

    def held(cpus):
        task = hold.options(num_cpus=cpus).remote(cpus)
        while not (tmp_path / f"held-{cpus}").exists():
            time.sleep(0.1)
        return task

    others = [held(all_cpus - 1)]
    assert connection.build_cpus(0) == 1
    others.append(held(1))
    said = []

    def progress(what, done, total):
        said.append(what)
        if what.startswith("waiting"):
            release.touch()

    actor = memory_actor.start(spec, "search")
    built = memory_actor.build(actor, spec, all_cpus, 0, progress)
    memory_actor.leave(actor, "search")
    ray.get(others)
    assert built.passes == 1 and any("waiting for a free CPU of this Ray cluster" in line for line in said)
