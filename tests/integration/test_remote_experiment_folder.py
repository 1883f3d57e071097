"""A search behind a URI: a real S3 server, real searches with tiny models, drivers that are killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from transformers import AutoModelForSequenceClassification

from fsd_tune.errors import InputError
from fsd_tune.report.results import load
from fsd_tune.search.folder import group_in
from fsd_tune.storage import experiment_folder, open_folder
from fsd_tune.storage.remote import RemoteFolder
from fsd_tune.storage.remote_experiment_folder import RemoteExperimentFolder
from tests.helpers import s3
from tests.helpers.searching import SCRIPT, SPACE, agree, gone, short_folder

pytestmark = pytest.mark.skipif(bool(s3.missing()), reason=s3.missing())


@pytest.fixture(scope="module")
def server():
    with s3.running() as running:
        yield running


@pytest.fixture
def keys(monkeypatch, tmp_path):
    for name, value in (s3.KEYS | {"FSD_TUNE_CACHE": str(tmp_path / "cache")}).items():
        monkeypatch.setenv(name, value)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_place_is_a_folder_or_a_mirror(keys, tmp_path):
    assert (
        type(open_folder.open_experiment(tmp_path)) is experiment_folder.ExperimentFolder
        and open_folder.open_experiment(tmp_path).folder == tmp_path
    )
    uri = "s3://bucket/runs/rte?region=eu-west-1"
    made = open_folder.open_experiment(uri)
    assert isinstance(made, RemoteExperimentFolder) and made.name == uri and made.folder.name == "rte"
    assert made.memory_folder(None)[1] == "s3://bucket/runs/rte/memory?region=eu-west-1"
    assert (
        made.memory_folder("/shared/memory")[1] is None
        and open_folder.open_experiment(tmp_path).memory_folder("s3://b/m")[1] == "s3://b/m"
    )


def test_what_is_written_is_stored_and_pulled_elsewhere(server, keys, monkeypatch, tmp_path):
    """Another machine, here another cache, sees every file but Ray's own, and checkpoints of open trials alone."""
    uri = server.uri("runs", "one")
    here = RemoteExperimentFolder(uri)
    here.download()
    for trial, state in (("0000_a", "finished"), ("0001_b", None)):
        folder = here.folder / "results" / trial
        here.upload(write(folder / "reports.jsonl", "{}\n"))
        if state:
            here.upload(write(folder / "trial.json", json.dumps({"state": state})))
        here.storage.write(f"results/{trial}/checkpoint_000001/student/model", b"weights")
        here.storage.write(f"results/{trial}/result.json", b"of Ray")
    write(here.folder / "report.html", "page")
    here.sync_all()
    monkeypatch.setenv("FSD_TUNE_CACHE", str(tmp_path / "other"))
    there = RemoteExperimentFolder(uri)
    there.download()
    found = {str(path.relative_to(there.folder)) for path in there.folder.rglob("*") if path.is_file()}
    assert found == {
        "report.html", "results/0000_a/reports.jsonl", "results/0000_a/trial.json", "results/0001_b/reports.jsonl",
        "results/0001_b/checkpoint_000001/student/model",
    }  # fmt: skip
    there.download_checkpoint("0000_a")
    assert (there.folder / "results/0000_a/checkpoint_000001/student/model").read_bytes() == b"weights"
    # The open trial is made ready to go on: its checkpoint moves, and nothing of the old one stays stored.
    opened = there.folder / "results" / "0001_b"
    (opened / "checkpoint_000001").rename(opened / "restart")
    there.sync_unfinished()
    stored = set(there.storage.sizes("results/0001_b"))
    assert stored == {"results/0001_b/restart/student/model", "results/0001_b/reports.jsonl"}
    assert there.path_for_workers(opened / "restart") == server.uri("runs", "one", "results", "0001_b", "restart")
    there.delete_checkpoints(there.folder / "results" / "0000_a")
    assert not [name for name in there.storage.sizes("results/0000_a") if "checkpoint" in name]
    there.clear()
    assert there.storage.sizes() == {}


def test_two_drivers_do_not_share_one_place(server, keys):
    uri = server.uri("runs", "held")
    with RemoteExperimentFolder(uri).lock():
        with pytest.raises(InputError, match="another search is running"), RemoteExperimentFolder(uri).lock():
            pass
        RemoteExperimentFolder(uri, purpose="view").download()
    with RemoteExperimentFolder(uri).lock():
        pass
    assert RemoteFolder(uri).sizes() == {}


def test_planning_and_reading_leave_a_running_search_alone(server, keys, tmp_path):
    """Its working copy and what it stores stay, also if a reader has an older copy or may not write."""
    uri = server.uri("runs", "busy")
    running = RemoteExperimentFolder(uri)
    running.storage.write("summary.json", b'{"group": "g"}')
    running.storage.write("settings.yaml", b"method: kd")
    running.storage.write("results/0000_a/reports.jsonl", b"{}")
    with running.lock():
        write(running.folder / "results" / "0001_b" / "config.json", "not stored yet")
        with RemoteExperimentFolder(uri).look() as folder:
            assert {path.name for path in folder.iterdir()} == {"summary.json", "settings.yaml", "results"}
            assert group_in(folder) == "g"
        with (
            pytest.raises(InputError, match=f"^{re.escape(uri)}: is wrong"),
            RemoteExperimentFolder(uri).look() as folder,
        ):
            raise InputError(f"{folder}: is wrong")
        with open_folder.open_for_reading(uri) as view:
            write(view.folder / "report.html", "of the reader")
            running.storage.write("report.html", b"newer")
        assert running.storage.read("report.html") == b"newer"
        assert (running.folder / "results" / "0001_b" / "config.json").exists()


@pytest.mark.slow
def test_a_search_whose_drivers_disk_is_lost(server, keys, tmp_path, glue, teacher):
    """Killed by id, its working copy deleted, resumed from the URI alone: every trial once, and the student comes."""
    space = write(tmp_path / "space.yaml", SPACE.replace("epochs: 2", "epochs: 12"))
    uri = server.uri("runs", "lost")
    with short_folder() as temporary:
        words = [
            SCRIPT, "search", space, "--task", "sst2", "--teacher", teacher, "--data", glue, "--output", uri,
            "--temp-dir", temporary, "--trials=5",
        ]  # fmt: skip
        driver = subprocess.Popen([str(word) for word in words], start_new_session=True)
        deadline = time.monotonic() + 300
        while not any(name.endswith("trial.json") for name in RemoteFolder(uri).sizes()):
            assert driver.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
        os.kill(driver.pid, signal.SIGKILL)
        gone(driver)
        stored = {
            name.split("/")[1]: RemoteFolder(uri).read(name)
            for name in RemoteFolder(uri).sizes()
            if name.endswith("trial.json")
        }
        shutil.rmtree(tmp_path / "cache")
        words = [SCRIPT, "resume", uri, "--temp-dir", temporary]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "reused" in done.stderr, "the memory was not built again"
    here = tmp_path / "home"
    subprocess.run([str(SCRIPT), "fetch", uri, "--output", str(here)], check=True, capture_output=True)
    AutoModelForSequenceClassification.from_pretrained(here / "best")
    assert {"report.html", "leaderboard.csv", "study.db"} <= {path.name for path in here.iterdir()}
    results = load(uri)
    assert len(results.trials) == 5 and results.summary.memory.passes == 1
    for trial, ending in stored.items():
        assert RemoteFolder(uri).read(f"results/{trial}/trial.json") == ending, "what had ended was not run again"
    agree(results)
