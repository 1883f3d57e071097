"""The orderly end of a search, without Ray: its key-value store is stood in for."""

from threading import Event
from types import SimpleNamespace

import pytest
from ray.exceptions import RaySystemError

from fsd_tune.errors import DamagedError
from fsd_tune.search.ending import Ending, EndingWatch
from fsd_tune.search.trial_logger import Collaborators, LoggedSearch, TrialLogger
from fsd_tune.search.trial_shapes import TrialShapes
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.shape_costs import ShapesSummary

ONE_SHAPE = TrialShapes(Settings.from_dict({"method": "kd"}), ShapesSummary())


@pytest.fixture
def store(monkeypatch):
    stored: dict[str, bytes] = {}
    kv = "fsd_tune.search.ending.internal_kv"
    monkeypatch.setattr(f"{kv}._internal_kv_put", stored.__setitem__)
    monkeypatch.setattr(f"{kv}._internal_kv_del", stored.pop)
    return stored


def logger_of(ending, folder, closed):
    searcher = SimpleNamespace(close=lambda: closed.append(1))
    search = LoggedSearch(ExperimentFolder(folder), "accuracy", 4, ONE_SHAPE)
    return TrialLogger(search, Collaborators(None, None, searcher, ending=ending))  # type: ignore[arg-type]


def trials(**states):
    return [SimpleNamespace(trial_id=name, status=state) for name, state in states.items()]


def test_an_interrupt_waits_until_running_trials_have_saved(store, clock, tmp_path):
    interrupted = Event()
    closed: list[int] = []
    ending = Ending(interrupted)
    logger = logger_of(ending, tmp_path, closed)
    running = trials(a="RUNNING", b="RUNNING", c="PENDING", d="TERMINATED")
    logger.on_step_end(0, running)
    interrupted.set()
    for _ in range(2):
        logger.on_step_end(0, running)
    assert list(store) == [ending.key] and closed == [1]
    for name, saved in (("a", True), ("b", False)):
        logger.on_trial_result(0, [], SimpleNamespace(trial_id=name), {"accuracy": 0.0, "saved": saved})
    logger.on_step_end(0, running)
    logger.on_trial_result(0, [], SimpleNamespace(trial_id="b"), {"accuracy": 0.0, "saved": True})
    with pytest.raises(KeyboardInterrupt):
        logger.on_step_end(0, running)
    ending.close()
    assert store == {}


def test_a_trial_that_does_not_answer_delays_the_end_by_seconds(store, clock, tmp_path):
    ending = Ending(Event(), budget_seconds=60)
    logger = logger_of(ending, tmp_path, [])
    for seconds, asked, over in ((59, False, False), (2, True, False), (19, True, False), (2, True, True)):
        clock.now += seconds
        logger.on_step_end(0, trials(a="RUNNING"))
        assert (ending.asked, ending.stop_all()) == (asked, over)


def test_a_damaged_memory_ends_the_search(store, clock, tmp_path):
    ending = Ending(Event())
    logger = logger_of(ending, tmp_path, [])
    text = "ray.exceptions.RayTaskError\nfsd_tune.errors.DamagedError: /m/layer_02_0001.npy: is damaged."
    logger.on_trial_recover(0, [], SimpleNamespace(get_error=lambda: text))
    logger.on_step_end(0, [])
    assert isinstance(ending.failure, DamagedError) and str(ending.failure).startswith("/m/layer_02_0001.npy: is")
    assert ending.stop_all()


def test_a_worker_asks_once_a_second_and_survives_a_head_that_does_not_answer(clock):
    answers = [None, RaySystemError("gone"), b"1"]
    looks = []

    def look(key):
        looks.append(key)
        answer = answers[len(looks) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = EndingWatch("key", look)
    said = []
    for _ in range(25):
        said.append(watch.asked())
        clock.now += 0.1
    assert looks == ["key"] * 3 and said == [False] * 20 + [True] * 5
