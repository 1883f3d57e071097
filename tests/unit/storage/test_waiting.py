"""Waits for what others hold: whom they name, when they end, and that they can be interrupted."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from fsd_tune.errors import FsdTuneError
from fsd_tune.storage import artifact_lock, sqlite_copy, waiting

HOLD = """
import sqlite3, sys
from pathlib import Path
from fsd_tune.storage import artifact_lock
if sys.argv[1] == "lock":
    held = artifact_lock.locked(Path(sys.argv[2]))
    held.__enter__()
else:
    database = sqlite3.connect(sys.argv[2], isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold():
    """Lock an artefact (`lock`) or a database (`database`) in another process, which ends when its input closes."""
    held = []

    def start(kind, path):
        words = [sys.executable, "-c", HOLD, kind, str(path)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        held.append(process)
        return process

    yield start
    for process in held:
        process.kill()
        process.wait()


@pytest.fixture
def database(tmp_path):
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("CREATE TABLE numbers (number INTEGER)")
    return tmp_path / "study.db"


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(waiting, "NOTICE_SECONDS", 0.0)


def test_nothing_is_said_of_a_short_wait_and_a_long_one_ends(clock, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("time.sleep", lambda seconds: setattr(clock, "now", clock.now + seconds))
    wait = waiting.Wait(lambda: "rain", 100, "Look up.", said.append)
    for _ in range(4):
        wait.pause(1.0)
    assert not said
    with pytest.raises(waiting.WaitedTooLongError, match=r"Waited 1 min 41 s for rain\. Look up\."):
        while True:
            wait.pause(1.0)
    assert said == ["waiting for rain, for 1 min 40 s at most; Ctrl-C ends it. Look up."]


def test_the_lock_of_an_artefact(tmp_path, hold, soon):
    """A process that runs is waited for; one that is stopped is not."""
    process = hold("lock", tmp_path / "outputs-1")
    said: list[str] = []

    def end(text):
        said.append(text)
        process.stdin.close()

    with artifact_lock.locked(tmp_path / "outputs-1", end):
        assert waiting.holder_of(tmp_path / ".outputs-1.lock") is None
    assert f"process {process.pid} (-c" in said[0] and f"builds {tmp_path / 'outputs-1'}" in said[0]


def test_a_process_that_is_stopped(tmp_path, hold, soon, monkeypatch):
    monkeypatch.setattr(waiting, "STOPPED_SECONDS", 0.0)
    process = hold("lock", tmp_path / "outputs-1")
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    said = pytest.raises(FsdTuneError, match=f"is stopped. `kill -CONT {process.pid}` lets it go on")
    with said, artifact_lock.locked(tmp_path / "outputs-1", lambda text: None):
        pass


def test_a_database_that_another_program_has_locked(tmp_path, database, hold, soon, monkeypatch, caplog):
    process = hold("database", database)
    monkeypatch.setattr(sqlite_copy, "_COPY_SECONDS", 0.0)
    with pytest.raises(waiting.WaitedTooLongError, match=f"process {process.pid} .* which has locked {database}"):
        sqlite_copy.copy_database(database, tmp_path / "copy")
    assert f"`kill {process.pid}` ends that process" in caplog.text


def test_a_wait_for_a_database_can_be_interrupted(tmp_path, database, hold, soon, monkeypatch):
    hold("database", database)
    # Python leaves SIGINT ignored if a shell has started it in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(text):
        signal.raise_signal(signal.SIGINT)

    original = waiting.wait_for_holder
    monkeypatch.setattr(waiting, "wait_for_holder", lambda path, does, limit: original(path, does, limit, interrupt))
    try:
        with pytest.raises(KeyboardInterrupt):
            sqlite_copy.copy_database(database, tmp_path / "copy")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_connection_waits_for_a_lock_and_gives_up_once(database, hold, soon, monkeypatch):
    process = hold("database", database)
    original = waiting.wait_for_holder
    monkeypatch.setattr(
        waiting,
        "wait_for_holder",
        lambda path, does, limit: original(path, does, limit, lambda text: process.stdin.close()),
    )
    with closing(sqlite3.connect(database, factory=sqlite_copy.PatientConnection)) as connection:
        connection.cursor().execute("INSERT INTO numbers VALUES (?)", (1,))
        connection.commit()
        hold("database", database)
        monkeypatch.setattr(waiting, "wait_for_holder", original)
        connection._limit = 0.0
        with pytest.raises(waiting.WaitedTooLongError):
            connection.cursor().execute("SELECT number FROM numbers")


def test_a_notice_is_printed_if_nobody_handles_the_logger(monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])
    waiting.warn("waiting for rain")
    assert capsys.readouterr().err == "waiting for rain\n"
