"""The folder of a local Ray: where it may lie, and who removes what a killed process has left."""

import fcntl
import os
from pathlib import Path

import pytest

from fsd_tune.cluster import private_ray
from fsd_tune.errors import InputError


@pytest.fixture(autouse=True)
def no_folders(monkeypatch):
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def left(base, name, mode=0o700):
    """A folder of Ray's, as a killed process leaves it."""
    folder = base / name
    (folder / "r").mkdir(parents=True)
    (folder / "r" / "session_latest").symlink_to("session_1")
    folder.chmod(mode)
    return folder


def test_what_killed_processes_have_left_is_removed_and_nothing_else(tmp_path):
    gone = left(tmp_path, "fsd-00ff")
    used = left(tmp_path, "fsd-0001")
    kept = [used, left(tmp_path, "fsd-results"), left(tmp_path, "fsd-0002", 0o755), tmp_path / "fsd-0003"]
    kept[-1].mkdir(mode=0o700)
    lock = os.open(used, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with private_ray._private_folder("--temp-dir", tmp_path) as folder:
        assert not gone.exists() and folder.stat().st_mode & 0o777 == 0o700
        kept.append(left(folder.parent, folder.name + "x"))
    os.close(lock)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_the_folder_is_removed_when_the_block_fails(tmp_path):
    with pytest.raises(KeyboardInterrupt), private_ray._private_folder("--temp-dir", tmp_path / "new") as folder:
        (folder / "r").mkdir()
        raise KeyboardInterrupt
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_too_deep_for_sockets_is_named_with_its_cause(monkeypatch, variable):
    longest = "/tmp/" + "x" * (private_ray._LONGEST_FOLDER - 5)
    private_ray.check_folder(Path(longest))
    with pytest.raises(InputError, match=r"^--temp-dir: .* is too long .*; give one of at most \d+ bytes"):
        private_ray.check_folder(Path(f"{longest}x"))
    monkeypatch.setenv(variable, longest)
    private_ray.check_folder(None)
    # Bytes count, not characters.
    monkeypatch.setenv(variable, longest[:-1] + "é")
    with pytest.raises(InputError, match=f"^{variable}: .* is too long .*; give --temp-dir a folder of"):
        private_ray.check_folder(None)
    private_ray.check_folder(Path("/tmp"))


def test_a_folder_that_cannot_be_used_is_refused(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/dev/null")
    with pytest.raises(InputError, match=r"^TMPDIR: /dev/null is a file"):
        private_ray.check_folder(None)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"^--temp-dir: / cannot be written"):
        private_ray.check_folder(Path("/nowhere/r"))
    monkeypatch.setenv("TMPDIR", "")
    monkeypatch.setattr(os, "access", lambda *_: True)
    private_ray.check_folder(None)
