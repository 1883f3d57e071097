"""Shipped search spaces by name."""

import pytest

from fsd_tune.errors import InputError
from fsd_tune.settings import shipped
from tests import ROOT


def test_every_shipped_space_is_found_by_its_name():
    names = [path.stem for path in sorted((ROOT / "search_spaces").glob("*.yaml"))]
    assert shipped.shipped_spaces() == names and "demo" in names
    for name in names:
        assert shipped.shipped_space(name).read_text() == (ROOT / "search_spaces" / f"{name}.yaml").read_text()


def test_an_unknown_space_is_refused():
    with pytest.raises(InputError, match="Did you mean `demo`"):
        shipped.shipped_space("dmeo")


def test_only_a_bare_name_is_looked_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("./kd", "kd.yaml", "spaces/kd", "nothing"):
        assert str(shipped.find_space(text)) == text.removeprefix("./")
