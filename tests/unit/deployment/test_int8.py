"""The bound on int8's loss: what is tried, what falls back to float, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from fsd_tune.data.batching import TokenizedSplit
from fsd_tune.deployment import int8
from fsd_tune.errors import FsdTuneError
from fsd_tune.progress import Display

PARTS = {"embeddings": ["e"], "layer 0": ["a", "b"], "layer 1": ["c"], "head": ["h"]}
# How much of the score and of the logits each node costs in int8.
COSTS = {"e": 0.001, "a": 0.002, "b": 0.001, "c": 0.02, "h": 0.0}


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Files that hold their kind and int8 nodes; `static` costs three times as much as `dynamic`."""
    source = tmp_path / "model.onnx"
    source.write_text("float")

    def cost(path):
        kind, *nodes = Path(path).read_text().split()
        return sum(COSTS[node] for node in nodes) * (3 if kind == "static" else 1)

    def quantise(source, target, kind, nodes, batches):
        target.write_text(" ".join([kind, *nodes]))

    monkeypatch.setattr(int8, "quantise", quantise)
    monkeypatch.setattr(int8, "parts_of", lambda path: PARTS)
    monkeypatch.setattr(int8, "_logits", lambda path, batches: np.array([cost(path)], np.float32))
    examples = TokenizedSplit(
        np.arange(4, dtype=np.int32), None, np.array([0, 2, 4]), np.array([0, 1]), pad_id=0, max_length=8
    )

    def find(max_drop):
        return int8.find_int8(source, tmp_path, examples, lambda path: 0.9 - cost(path), max_drop, Display(quiet=True))

    return find


def test_what_loses_little_enough_stays_whole(pretend):
    found = pretend(2.5)
    assert found.float_score == 0.9
    assert [(one.kind, one.float_parts, round(one.drop, 6)) for one in found.attempts] == [
        ("dynamic", (), 2.4),
        ("static", (), 7.2),
    ]
    ((path, chosen),) = found.within.items()
    assert chosen.kind == "dynamic" and path.read_text() == "dynamic e a b c h"


def test_the_parts_that_cost_most_fall_back_to_float(pretend):
    found = pretend(0.2)
    dynamic = [(one.float_parts, round(one.drop, 6)) for one in found.attempts if one.kind == "dynamic"]
    assert dynamic == [((), 2.4), (("layer 1",), 0.4), (("layer 1", "layer 0"), 0.1)]
    static = [one.float_parts for one in found.attempts if one.kind == "static"]
    assert static == [(), ("layer 1",), ("layer 1", "layer 0")], "no more float parts than the dynamic file"
    assert [chosen.kind for chosen in found.within.values()] == ["dynamic"]


def test_a_drop_that_equals_the_bound_is_within_it(pretend):
    assert pretend(0.4).within and max(one.drop for one in pretend(0.4).within.values()) == pytest.approx(0.4)


def test_both_kinds_within_the_bound_are_kept(pretend):
    found = pretend(8)
    assert {path.read_text().split()[0]: one.kind for path, one in found.within.items()} == {
        "dynamic": "dynamic", "static": "static",
    }  # fmt: skip


def test_what_cannot_hold_the_bound_is_refused_with_the_numbers(pretend, monkeypatch):
    monkeypatch.setitem(COSTS, "h", 0.5)
    monkeypatch.setitem(COSTS, "e", 0.4)
    monkeypatch.setitem(COSTS, "a", 0.3)
    monkeypatch.setitem(COSTS, "c", 0.2)
    with pytest.raises(FsdTuneError) as error:
        pretend(0.5)
    text = str(error.value)
    assert text.startswith("--max-drop: no int8 file is within 0.5 points of the float file's 0.9000 on dev: dynamic -")
    assert "dynamic with head, embeddings, layer 0 in float 0.7000 (20.00 points less)" in text
    assert "static with head, embeddings, layer 0 in float 0.3000 (60.00 points less)" in text
    assert "larger --max-drop" in error.value.hint
