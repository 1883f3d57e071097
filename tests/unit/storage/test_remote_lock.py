"""The lock of a folder behind a URI, on a disk's URI and, where there is one, on an S3 server."""

import json
import os
import threading
import time

import pytest

from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.storage import remote_lock
from fsd_tune.storage.remote import RemoteFolder
from fsd_tune.storage.remote_lock import RemoteLock
from tests.helpers import s3


@pytest.fixture(scope="module")
def server():
    with s3.running() as running:
        yield running


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.skipif(bool(s3.missing()), reason=s3.missing()))])
def storage(request, tmp_path, monkeypatch):
    for name, value in s3.KEYS.items():
        monkeypatch.setenv(name, value)
    if request.param == "disk":
        return RemoteFolder(f"file://{tmp_path}/place")
    return RemoteFolder(request.getfixturevalue("server").uri(request.node.name.partition("[")[0]))


def claims(storage):
    return storage.sizes(".locks")


def test_one_of_those_that_ask_at_the_same_time_has_it(storage):
    together, inside, ended = threading.Barrier(3), [], threading.Event()
    refused = []

    def ask():
        together.wait()
        try:
            with RemoteLock(storage).hold():
                inside.append(1)
                ended.wait(60)
        except InputError as error:
            refused.append(error)
            if len(refused) == 2:
                ended.set()

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(inside), len(refused)) == (1, 2) and claims(storage) == {}


@pytest.mark.parametrize("seconds", [-100.0, 100.0])
def test_a_clock_that_is_wrong_changes_nothing(storage, monkeypatch, seconds):
    right = time.time
    with RemoteLock(storage).hold():
        monkeypatch.setattr("time.time", lambda: right() + seconds)
        with pytest.raises(InputError, match="another search is running"), RemoteLock(storage).hold():
            pass
        assert len(claims(storage)) == 1, "the claim of the one that was refused is gone, the other stays"


def test_claims_of_the_dead_are_removed(storage, monkeypatch):
    other = storage.below(".locks")
    live = {"state": "held", "host": "elsewhere", "machine": "elsewhere", "pid": 1}
    other.write("0.json", json.dumps(live).encode())
    with pytest.raises(InputError, match="process 1 on elsewhere"), RemoteLock(storage).hold():
        pass
    other.write("0.json", b"half writ")
    with pytest.raises(InputError, match="an unknown host"), RemoteLock(storage).hold():
        pass
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    other.write("0.json", json.dumps(live | {"machine": remote_lock._machine(), "pid": child}).encode())
    with RemoteLock(storage).hold():
        assert len(claims(storage)) == 1
    other.write("0.json", json.dumps(live).encode())
    monkeypatch.setattr(remote_lock, "_EXPIRY_SECONDS", -1.0)
    with RemoteLock(storage).hold():
        assert len(claims(storage)) == 1


def test_one_that_was_silent_for_too_long_writes_no_more(storage):
    lock = RemoteLock(storage)
    with lock.hold():
        (name,) = claims(storage)
        lock._renew()
        lock.check_held()
        storage.delete(name)
        with RemoteLock(storage).hold():
            lock._renew()
            with pytest.raises(FsdTuneError, match="has taken it over"):
                lock.check_held()
            assert len(claims(storage)) == 1, "it neither comes back nor deletes the claim of the other"
