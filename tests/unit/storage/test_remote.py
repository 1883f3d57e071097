"""Files behind a URI, against a real S3 server on localhost."""

import os
import threading
import time

import pytest

from fsd_tune.cluster import fetch
from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.storage import artifacts, remote_copies
from fsd_tune.storage import remote as storage
from fsd_tune.storage.remote import RemoteFolder
from fsd_tune.storage.remote_experiment_folder import RemoteExperimentFolder
from tests.helpers import s3

pytestmark = pytest.mark.skipif(bool(s3.missing()), reason=s3.missing())


@pytest.fixture(scope="module")
def server():
    before = {name: os.environ.get(name) for name in s3.KEYS}
    os.environ |= s3.KEYS
    with s3.running() as running:
        yield running
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def test_what_is_put_comes_back_and_what_is_deleted_is_gone(server, tmp_path):
    here = RemoteFolder(server.uri("files"))
    assert here.sizes() == {}, "a place where nothing was written yet"
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"1")
    (tmp_path / "a" / "b" / "two").write_bytes(b"22")
    here.put(tmp_path / "a", "deep/a")
    here.write("note", "ä".encode())
    assert here.sizes() == {"deep/a/one": 1, "deep/a/b/two": 2, "note": 2}
    assert here.read("note").decode() == "ä" and here.below("deep", "a").sizes("b") == {"b/two": 2}
    assert here.get_folder("deep/a", tmp_path / "c")
    assert (tmp_path / "c" / "b" / "two").read_bytes() == b"22"
    assert not here.get_folder("nothing", tmp_path / "d") and not (tmp_path / "d").exists()
    here.delete("deep")
    here.delete("never")
    assert here.sizes() == {"note": 2}
    with pytest.raises(FileNotFoundError):
        here.read("deep/a/one")


def test_names_that_lead_out_of_a_folder_are_refused(server, tmp_path, monkeypatch):
    monkeypatch.setenv("FSD_TUNE_CACHE", str(tmp_path / "cache"))
    place = server.uri("foreign")
    server.put("foreign/results/../../../x", b"1")
    server.put("foreign/summary.json", b"{}")
    reads = (
        RemoteFolder(place).sizes,
        lambda: RemoteFolder(place).get_folder("", tmp_path / "copy"),
        lambda: fetch.fetch_uri(place, tmp_path / "fetched"),
        RemoteExperimentFolder(place, "view").download,
    )
    for read in reads:
        with pytest.raises(InputError, match=r"holds 'results/\.\./\.\./\.\./x', which cannot be"):
            read()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_disk_by_its_uri(tmp_path):
    here = RemoteFolder(f"file://{tmp_path}/place")
    here.require("--output")
    assert here.sizes() == {} and not list((tmp_path / "place").iterdir()), "nothing stays of the try"
    here.write("deep/note", b"1")
    here.delete("deep/note")
    assert here.sizes() == {}
    here.write("note", b"1")
    (tmp_path / "file").touch()
    began = time.monotonic()
    with pytest.raises((FileExistsError, NotADirectoryError)):
        here.get("note", tmp_path / "file" / "note")
    assert time.monotonic() - began < 5, "this machine's own mistake is not waited for"


def test_a_place_that_cannot_be_written_is_refused_at_once(server):
    RemoteFolder(server.uri("new")).require("--output")
    assert RemoteFolder(server.uri("new")).sizes() == {}, "what was tried leaves nothing"
    for uri, said in (
        (server.uri("x").replace("s3://bucket", "s3://no-such-bucket"), "cannot be written"),
        (f"{server.uri('x')}&colour=red", "cannot be used"),
        ("s3://key:secret@bucket/x", "holds a key"),
    ):
        began = time.monotonic()
        with pytest.raises(InputError) as caught:
            RemoteFolder(uri).require("--output")
        assert said in caught.value.problems[0] and time.monotonic() - began < 20


def test_storage_that_goes_away_for_a_while_is_waited_for(server):
    here = RemoteFolder(server.uri("away"), patience=60)
    server.pause()
    back = threading.Timer(4, server.go_on)
    back.start()
    began = time.monotonic()
    try:
        here.write("late", b"written")
    finally:
        back.join()
    assert time.monotonic() - began >= 3.5 and here.read("late") == b"written"


def test_storage_that_stays_away_is_given_up(server, monkeypatch):
    gone = server.uri("away").replace(f":{server.port}", ":9")
    with pytest.raises(OSError):
        RemoteFolder(gone, patience=1).write("never", b"")
    monkeypatch.setattr(storage, "_ANSWER_SECONDS", 1.0)
    server.pause()
    try:
        with pytest.raises(InputError, match="has not answered within 1 s"):
            RemoteFolder(server.uri("away")).require("--output")
    finally:
        server.go_on()


def test_an_artefact_is_built_on_one_node_and_fetched_by_another(server, tmp_path):
    """Two nodes are two folders here; what is damaged or half stored is not taken."""
    remote = server.uri("memory")
    built, other = tmp_path / "one" / "memory-1", tmp_path / "two" / "memory-1"
    assert not remote_copies.fetched(built, remote)
    with artifacts.writing(built) as (folder, facts):
        (folder / "array").write_bytes(b"content")
        facts["examples"] = 3
    remote_copies.publish(built, remote)
    assert remote_copies.fetched(other, remote) and artifacts.facts_of(other) == {"examples": 3}
    (other / "array").write_bytes(b"contenT")
    assert remote_copies.fetched(other, remote) and (other / "array").read_bytes() == b"content", "fetched anew"
    RemoteFolder(remote).write("memory-1/array", b"short")
    assert not remote_copies.fetched(tmp_path / "three" / "memory-1", remote)
    assert not remote_copies.fetched(tmp_path / "four" / "memory-1", None)


def test_a_models_folder_of_another_machine(server, tmp_path):
    RemoteFolder(server.uri("inputs", "1")).write("config.json", b"{}")
    folder = tmp_path / "home" / "teacher"
    remote_copies.provide(folder, server.uri("inputs", "1"))
    assert (folder / "config.json").read_bytes() == b"{}"
    with pytest.raises(FsdTuneError, match="is not there"):
        remote_copies.provide(tmp_path / "absent", server.uri("inputs", "2"))
    with remote_copies.folder_to_fill(server.uri("students", "best")) as made:
        made.mkdir()
        (made / "model").write_bytes(b"m")
    with remote_copies.folder_of(server.uri("students", "best")) as read:
        assert (read / "model").read_bytes() == b"m"
