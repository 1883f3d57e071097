"""Models by name, and the hub that does not answer."""

import contextlib

import huggingface_hub
import pytest

from fsd_tune.models.local_checks import model_problems
from fsd_tune.storage import hub
from fsd_tune.storage.hub import cached_if_unreachable, offline, unreachable


@pytest.fixture
def deaf(monkeypatch):
    """The hub's address is one where nothing listens: the tests hold on machines with access too."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_answers", {})


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_hub_that_does_not_answer_is_asked_once(deaf, kind, capfd, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it is asked again"))
    reason = unreachable(kind, "some/name")
    assert reason and "\n" not in reason
    assert capfd.readouterr() == ("", "")


def test_offline_holds_inside_the_block_alone(deaf):
    constants = huggingface_hub.constants
    switched = []
    for enabled in (True, False):
        with contextlib.suppress(KeyError), offline(enabled):
            switched.append(constants.HF_HUB_OFFLINE)
            raise KeyError
        switched.append(constants.HF_HUB_OFFLINE)
    assert switched == [True, False, False, False]


def test_a_folder_needs_no_hub(deaf, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_ask", lambda kind, name: "asked")
    with cached_if_unreachable(str(tmp_path)):
        assert not huggingface_hub.constants.HF_HUB_OFFLINE
    with cached_if_unreachable("some/name"):
        assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_what_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "teachers").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    for name in ("teachers/rte", "./rte", "../rte", "/nowhere/rte", "a/b/c", "~/rte", "file"):
        assert model_problems(name, "--x") == [f"--x: {name} is no folder, but must be a model's folder or a hub id."]
    assert model_problems("students/rte", "--x") == model_problems("bert-base-uncased", "--x") == []
    assert len(model_problems("teachers", "--x")) == 3
    assert len(model_problems("teachers", "--x", tokenizer=False)) == 2
