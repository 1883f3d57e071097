"""Pools of tasks and actors on a real local Ray."""

import os
import time
from pathlib import Path

import pytest

from fsd_tune.cluster.task_pool import ActorPool, TaskPool

pytestmark = pytest.mark.usefixtures("ray_session")


def dying(tmp_path, times):
    """A function whose process dies the first `times` times that it is called with "dies"."""

    def work(name, seconds=0.0):
        time.sleep(seconds)
        if name == "fails":
            raise ValueError("no such name")
        if name == "dies" and len(list(tmp_path.iterdir())) < times:
            (tmp_path / str(time.time())).touch()
            os._exit(1)
        return name, os.getpid()

    return work


def in_actor(work):
    class Worker:
        def work(self, *arguments):
            return work(*arguments)

    return Worker


def pool_of(kind, work, limit, cpus=0.1):
    if kind == "tasks":
        return TaskPool(work, limit=limit, cpus=cpus)
    return ActorPool(in_actor(work), (), "work", limit=limit, cpus=cpus)


@pytest.mark.parametrize("kind", ["tasks", "actors"])
def test_outcomes_come_as_they_end_and_an_error_stops_nothing(kind, tmp_path):
    pool = pool_of(kind, dying(tmp_path, 1), 2)
    seen: list[list[str]] = []
    items = [("slow", ("slow", 3.0)), ("fails", ("fails",)), ("dies", ("dies",)), ("quick", ("quick",))]
    outcomes = list(pool.run(items, seen.append, interval=0.1))
    pool.close()
    assert sorted(outcome.item for outcome in outcomes) == ["dies", "fails", "quick", "slow"]
    by_item = {outcome.item: outcome for outcome in outcomes}
    assert "no such name" in by_item["fails"].reason and not by_item["fails"].worker_died
    assert by_item["dies"].error is None and len(list(tmp_path.iterdir())) == 1, "tried again"
    assert by_item["quick"].result[0] == "quick" and outcomes[0].item == "fails"
    assert max(map(len, seen)) == 2 and seen[-1] == []


def test_an_actor_is_reused_and_an_item_that_always_kills_it_is_given_up(tmp_path):
    pool: ActorPool[str] = ActorPool(in_actor(dying(tmp_path, 99)), (), "work", limit=1, tries=2, cpus=0.1)
    outcomes = list(pool.run([(name, (name,)) for name in ("one", "two", "dies", "three")]))
    pool.close()
    assert [outcome.item for outcome in outcomes] == ["one", "two", "three", "dies"], "it goes to the end of the queue"
    assert outcomes[0].result[1] == outcomes[1].result[1], "one process"
    assert outcomes[3].worker_died and outcomes[3].reason and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", ["tasks", "actors"])
def test_what_runs_is_stopped(kind, tmp_path):
    def work(path, seconds):
        Path(path).write_text(str(os.getpid()))
        time.sleep(seconds)

    pool, path = pool_of(kind, work, 2), tmp_path / "pid"
    (first,) = [next(pool.run([("long", (str(path), 500)), ("short", (str(tmp_path / "other"), 0))]))]
    assert first.item == "short"
    deadline = time.monotonic() + 240
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    pool.close()
    while Path("/proc", path.read_text()).exists():
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.1)
