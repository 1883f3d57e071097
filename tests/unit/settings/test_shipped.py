"""Shipped search spaces by name."""

from pathlib import Path

import pytest

from fsd_tune.errors import InputError
from fsd_tune.settings import shipped
from tests import ROOT


def test_every_shipped_space_is_found_by_its_name():
    root = ROOT / "search_spaces"
    names = sorted(str(path.relative_to(root)).removesuffix(".yaml") for path in root.rglob("*.yaml"))
    assert shipped.shipped_spaces() == names and {"demo", "paper/fsd"} < {*names}
    for name in names:
        assert shipped.shipped_space(name).read_text() == (ROOT / "search_spaces" / f"{name}.yaml").read_text()


def test_an_unknown_space_is_refused():
    with pytest.raises(InputError, match="Did you mean `demo`"):
        shipped.shipped_space("dmeo")


def test_only_a_bare_name_is_looked_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("./kd", "kd.yaml", "spaces/kd", "nothing", "./paper/fsd", "paper/fsd.yaml", "paper", "paper/nothing"):
        assert str(shipped.find_space(text)) == text.removeprefix("./")
    assert shipped.find_space("paper/fsd") == shipped.shipped_space("paper/fsd")
    assert [shipped.is_bare_name(Path(text)) for text in ("fsdd", "paper/fsdd", "spaces/kd", "kd.yaml")] == [
        True, True, False, False,
    ]  # fmt: skip
