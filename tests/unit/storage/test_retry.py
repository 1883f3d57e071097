"""Waiting for a folder that is away."""

import threading
import time

import pytest

from fsd_tune.storage.retry import FolderWatch, StorageUnavailableError


def test_a_folder_that_is_there_costs_nothing(tmp_path):
    said: list[str] = []
    FolderWatch(tmp_path, said.append).wait()
    assert not said and not list(tmp_path.iterdir())


def test_a_folder_that_comes_back_is_waited_for(tmp_path):
    folder, away = tmp_path / "R", tmp_path / "away"
    said: list[str] = []
    away.mkdir()
    back = threading.Timer(4.0, lambda: away.rename(folder))
    began = time.monotonic()
    back.start()
    FolderWatch(folder, said.append).wait()
    assert time.monotonic() - began > 3.5 and folder.is_dir()
    assert len(said) == 2 and "waiting up to 180 s" in said[0] and "is back after" in said[1]


def test_a_folder_that_stays_away_ends_the_search_with_what_to_do(tmp_path, monkeypatch):
    patience = FolderWatch(tmp_path / "gone", print, timeout=0.6)
    with pytest.raises(
        StorageUnavailableError, match=r"cannot be written for 1 s \(No such file or directory\)"
    ) as raised:
        patience.wait()
    assert "fsd-tune resume" in raised.value.hint
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("what is lost is waited for again"))
    with pytest.raises(StorageUnavailableError):
        patience.wait()
