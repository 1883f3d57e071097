import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from fsd_tune.errors import DamagedError, FsdTuneError
from fsd_tune.storage import artifact_lock, artifacts


def build(folder, text="hello"):
    with artifacts.writing(folder) as (temporary, facts):
        (temporary / "data.txt").write_text(text)
        facts["size"] = len(text)


def test_an_artefact_is_whole_or_absent(tmp_path):
    folder = tmp_path / "artefact"
    assert artifacts.facts_of(folder) is None
    build(folder)
    assert artifacts.facts_of(folder) == {"size": 5}
    with pytest.raises(RuntimeError), artifacts.writing(folder) as (temporary, _):
        (temporary / "data.txt").write_text("half")
        raise RuntimeError
    assert artifacts.facts_of(folder) == {"size": 5}
    assert [path.name for path in tmp_path.iterdir()] == ["artefact"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "data.txt").write_text("hellO"),
        lambda folder: (folder / "data.txt").write_text("hell"),
        lambda folder: (folder / "data.txt").unlink(),
        lambda folder: (folder / "manifest.json").write_text('{"files": {}'),
        lambda folder: (folder / "manifest.json").write_text("[]"),
    ],
)
def test_damage_is_detected_and_rebuilt(tmp_path, damage):
    folder = tmp_path / "artefact"
    build(folder)
    damage(folder)
    assert artifacts.facts_of(folder) is None
    build(folder)
    assert artifacts.facts_of(folder) == {"size": 5}


@pytest.fixture
def another_node(tmp_path, monkeypatch):
    """A node on which no file was checked yet."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))


def rot(path):
    """Change a byte and keep size and time, as a failing disk does."""
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def names_read(monkeypatch):
    """Return a list that gets the name of each file whose checksum is computed."""
    names = []
    checksum = artifacts.checksum

    def record(path):
        names.append(path.name)
        return checksum(path)

    monkeypatch.setattr(artifacts, "checksum", record)
    return names


def test_a_start_reads_no_file_and_the_first_read_compares_its_checksum(tmp_path, another_node, monkeypatch):
    folder = tmp_path / "artefact"
    with artifacts.writing(folder) as (temporary, _):
        np.save(temporary / "a.npy", np.arange(4))
        np.save(temporary / "b.npy", np.arange(4))
    read = names_read(monkeypatch)
    assert artifacts.facts_of(folder) == {} and artifacts.read_array(folder / "a.npy", mapped=True).sum() == 6
    assert read == [], "this node wrote it"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "other"))
    for _ in range(2):
        artifacts.read_array(folder / "a.npy")
    assert read == ["a.npy"], "once"
    assert artifacts.damaged_files(folder) == []
    rot(folder / "b.npy")
    assert artifacts.facts_of(folder) == {} and artifacts.damaged_files(folder) == ["b.npy"]
    with pytest.raises(DamagedError, match=r"b\.npy: is damaged"):
        artifacts.read_array(folder / "b.npy")
    assert artifacts.facts_of(folder) is None, "so that the next start builds it again"
    (folder / "b.npy").unlink()
    assert artifacts.damaged_files(folder) == ["b.npy"]


def test_a_copy_is_read_whole_once(tmp_path, another_node, monkeypatch):
    build(tmp_path / "artefact")
    shutil.copytree(tmp_path / "artefact", tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(tmp_path / "copy" / "data.txt", (1, 1))
    read = names_read(monkeypatch)
    for _ in range(2):
        assert artifacts.facts_of(tmp_path / "copy") == {"size": 5}
    artifacts.check_once(tmp_path / "copy" / "data.txt")
    assert read == ["data.txt"]


def test_an_artefact_of_an_earlier_version_is_read_at_each_start(tmp_path):
    build(tmp_path / "artefact")
    manifest = tmp_path / "artefact" / "manifest.json"
    old = json.loads(manifest.read_text())
    old["files"] = {name: entry[:2] for name, entry in old["files"].items()}
    manifest.write_text(json.dumps(old))
    assert artifacts.facts_of(tmp_path / "artefact") == {"size": 5}
    rot(tmp_path / "artefact" / "data.txt")
    assert artifacts.facts_of(tmp_path / "artefact") is None


def test_names_follow_content():
    a = np.arange(6)
    assert artifacts.digest(a) == artifacts.digest(a.copy())
    others = [a.reshape(2, 3), a.astype(np.int32), a[::-1], a.tolist()]
    assert len({artifacts.digest(a), *(artifacts.digest(other) for other in others)}) == 5
    assert artifacts.digest("ab", "c") != artifacts.digest("a", "bc")


def test_no_room_is_said_before_the_work(tmp_path):
    with pytest.raises(FsdTuneError, match="no space left: 1000000000"):
        artifacts.require_space(tmp_path, 10**18)


def test_only_one_process_builds(tmp_path):
    code = """
import sys, time
from pathlib import Path
from typing import Any
from fsd_tune.storage import artifact_lock, artifacts as files
folder = Path(sys.argv[1]) / "artefact"
with artifact_lock.locked(folder):
    if files.facts_of(folder) is None:
        with files.writing(folder) as (temporary, facts):
            time.sleep(0.5)
            (temporary / "data.txt").write_text("built")
        with (Path(sys.argv[1]) / "count").open("a") as stream:
            stream.write("built\\n")
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "built\n"


BUILDING = """
import sys
from pathlib import Path
from fsd_tune.storage import artifact_lock, artifacts
with artifact_lock.locked(Path(sys.argv[1])), artifacts.writing(Path(sys.argv[1])) as (temporary, _):
    (temporary / "half").touch()
    print(flush=True)
    sys.stdin.read()
"""


def test_the_next_build_removes_what_killed_ones_left_and_spares_those_at_work(tmp_path):
    """A build of other settings, too, for nobody may ever build the killed one again; and one of another machine."""
    names = ("killed", "at-work", "again")
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", BUILDING, str(tmp_path / name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name in names
    ]
    for builder in builders:
        assert builder.stdout is not None
        builder.stdout.readline()
    for builder in (builders[0], builders[2]):
        builder.kill()
        builder.wait()
    (tmp_path / f".again.other.host-{builders[1].pid}-0123abcd").mkdir()
    assert len(list(tmp_path.glob(".*.*-*-*"))) == 4
    with artifact_lock.locked(tmp_path / "again"):
        (left,) = tmp_path.glob(".*.*-*-*")
    assert left.name.startswith(".at-work.")
    builders[1].communicate()
    assert builders[1].returncode == 0 and (tmp_path / "at-work" / "half").exists()
    for builder in (builders[0], builders[2]):
        builder.communicate()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file"
    with artifacts.atomic_file(path) as stream:
        stream.write(b"one")
    with pytest.raises(RuntimeError), artifacts.atomic_file(path) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"one" and [left.name for left in path.parent.iterdir()] == ["file"]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode, "others can read it as any file of the user"


def test_a_folder_replaces_another_only_when_it_is_whole(tmp_path):
    folder = tmp_path / "folder"
    with artifacts.atomic_folder(folder) as temporary:
        (temporary / "old").touch()
    with pytest.raises(RuntimeError), artifacts.atomic_folder(folder) as temporary:
        (temporary / "half").touch()
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["old"]
    with artifacts.atomic_folder(folder) as temporary:
        (temporary / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("umask", [0o002, 0o027, 0o077])
def test_an_artefact_follows_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with artifacts.atomic_folder(tmp_path / "memory") as temporary:
            (temporary / "part").mkdir()
            save_file({"weight": np.zeros(2)}, temporary / "part" / "model.safetensors")
    finally:
        os.umask(before)
    rights = {
        path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "memory", *(tmp_path / "memory").rglob("*"))
    }
    folder, file = 0o777 & ~umask, 0o666 & ~umask
    assert rights == {"memory": folder, "part": folder, "model.safetensors": file}


def test_what_a_killed_process_left_is_removed_and_what_another_builds_stays(tmp_path):
    code = """
import sys, time
from pathlib import Path
from fsd_tune.storage import artifacts
with artifacts.atomic_folder(Path(sys.argv[1]) / "folder") as temporary:
    (temporary / "half").touch()
    print(flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as builder:
        assert builder.stdout is not None
        assert builder.stdout is not None
        builder.stdout.readline()
        build(tmp_path / "folder")
        assert len(list(tmp_path.iterdir())) == 2, "the other process goes on"
        builder.kill()
    build(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
