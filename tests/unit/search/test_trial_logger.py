"""What the driver writes and does when trials fail, without Ray: its trials are stood in for."""

import json
from types import SimpleNamespace

import pytest

from fsd_tune.search.trial_logger import Collaborators, LoggedSearch, TrialLogger
from fsd_tune.search.trial_shapes import TrialShapes
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.shape_costs import ShapesSummary

ONE_SHAPE = TrialShapes(Settings.from_dict({"method": "kd"}), ShapesSummary())


class Progress:
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def logger_in(folder, progress, tracker=None, searcher=None):
    search = LoggedSearch(ExperimentFolder(folder), "accuracy", 3, ONE_SHAPE)
    return TrialLogger(search, Collaborators(progress, tracker, searcher))


def trial(error, host=None):
    metadata = SimpleNamespace(num_failures=1)
    told = {"config": {"trial": 5}, "trial_id": error, "last_result": {"node_ip": host}}
    return SimpleNamespace(get_error=lambda: error, run_metadata=metadata, **told)


@pytest.mark.parametrize(
    ("error", "room", "failures", "said"),
    [
        ("Failure # 1\n  File x\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", 3, 0, 1),
        ("torch.OutOfMemoryError: CUDA out of memory", None, 1, 0),
        ("ray.exceptions.RayTaskError: ValueError: x", 3, 1, 0),
        (None, 3, 1, 0),
    ],
)
def test_a_gpu_out_of_memory_is_backed_off_from(tmp_path, error, room, failures, said):
    """Among others it is not the trial's failure; a trial that is alone on its GPU fails by itself."""
    progress, failed = Progress(), trial(error)
    searcher = SimpleNamespace(back_off=lambda: room)
    logger = logger_in(tmp_path, progress, searcher=searcher)
    logger.on_trial_recover(0, [], failed)
    assert failed.run_metadata.num_failures == failures and len(progress.notes) == said


def test_a_failure_is_taken_back_when_its_host_turns_out_to_have_died(tmp_path, monkeypatch, clock):
    progress = Progress()
    logger = logger_in(tmp_path, progress)
    died, crashed, late = trial("unavailable", "10.0.0.2"), trial("died", "10.0.0.3"), trial("cut", "10.0.0.4")
    dead: set[str] = set()
    monkeypatch.setattr("fsd_tune.cluster.connection.dead_hosts", lambda: dead)
    for one in (died, crashed, late):
        logger.on_trial_recover(0, [], one)
    logger.on_step_end(0, [])
    assert not progress.notes, "nothing is known yet"
    clock.now += 5
    dead.add("10.0.0.2")
    for _ in range(2):
        logger.on_step_end(0, [])
        clock.now += 5
    assert [one.run_metadata.num_failures for one in (died, crashed, late)] == [0, 1, 1], "and once only"
    assert progress.notes == ["trial 5: its host 10.0.0.2 has died; it continues elsewhere"]
    clock.now += 200
    logger.on_step_end(0, [])
    dead.add("10.0.0.4")
    clock.now += 5
    logger.on_step_end(0, [])
    assert late.run_metadata.num_failures == 1, "a host that dies much later was not the reason"


def test_a_trial_whose_worker_never_started_is_in_the_results(tmp_path):
    """Else the study would know of a trial that the results have not."""
    ended: list[int] = []
    progress = SimpleNamespace(ended=lambda number, *_: ended.append(number))
    tracker = SimpleNamespace(ended=lambda *_: None)
    logger = logger_in(tmp_path, progress, tracker)
    failed = trial("The actor never ran")
    failed.config = {"trial": 5, "config": {"method": "kd"}, "restart": ""}
    failed.storage = SimpleNamespace(trial_dir_name="0005_ab")
    folder = tmp_path / "results" / "0005_ab"
    folder.mkdir(parents=True)
    logger.on_trial_error(0, [], failed)
    assert json.loads((folder / "config.json").read_text()) == {"trial": 5, "config": {"method": "kd"}}
    assert json.loads((folder / "trial.json").read_text())["reason"] == "The actor never ran"
    assert ended == [5]
