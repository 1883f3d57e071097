"""The description of every setting agrees with what settings accept."""

from typing import Any

import pytest

from fsd_tune.errors import InputError
from fsd_tune.settings import yaml_file
from fsd_tune.settings.loader import Settings, flags, load
from fsd_tune.settings.methods import METHODS, default
from fsd_tune.settings.reference import SettingDescription, describe_settings

ROWS = {row.key: row for row in describe_settings()}


def test_every_flag_and_key_is_described() -> None:
    described = {flag: row.key for row in ROWS.values() for flag in row.flags}
    assert described == {flag: key for flag, key, _ in flags()}
    weights = {f"loss.weights.{name}" for name in ("epsilon", "sigma", "gamma", "beta")}
    assert set(ROWS) == set(described.values()) | weights
    for row in ROWS.values():
        assert row.type and row.accepted and row.description and "\n" not in row.description
        assert row.default or row.key in {"method", *weights}


def test_some_descriptions() -> None:
    assert ROWS["search.trials"] == SettingDescription(
        "search.trials", "integer", "64", "a whole number in 1..1000000", "number of trials",
        ("--trials", "--search-trials"),
    )  # fmt: skip
    assert (ROWS["student.hidden_size"].type, ROWS["student.hidden_size"].default) == (
        "integer or null or mapping",
        "null",
    )
    assert ROWS["asha.reduction_factor"].accepted == "a number above 1 and at most 10000"
    assert ROWS["loss.distance"].accepted == "one of relative, raw"
    assert ROWS["space.beta"].default.startswith("30 (fsd_i, fsd_l, fsd_g); 1 (fsd_il, fsd_ilg")


@pytest.mark.parametrize("key", [key for key in ROWS if key.count(".") == 1 and not key.startswith("space.")])
def test_the_defaults_are_those_of_settings(key: str) -> None:
    assert load(None, {"method": "kd", key: ROWS[key].default}) == load(None, {"method": "kd"})


def test_the_defaults_of_the_space_are_those_of_methods() -> None:
    for name in METHODS["fsd_ilg"].hyperparameters:
        if name != "beta":
            assert yaml_file.parse_value(ROWS[f"space.{name}"].default) == default("fsd_ilg", name)


@pytest.mark.parametrize(
    "key", [key for key, row in ROWS.items() if " in " in row.accepted and "range" not in row.accepted]
)
def test_the_ranges_are_those_that_are_checked(key: str) -> None:
    *path, name = key.split(".")
    low, high = ROWS[key].accepted.split(" in ")[1].split(", or ")[0].split("..")
    for value in (int(low) - 1, int(high) + 1):
        values: dict[str, Any] = {name: value}
        for part in reversed(path):
            values = {part: values}
        with pytest.raises(InputError, match=f"{name}: found {value}, but must be in {low}..{high}"):
            Settings.from_dict({"method": "fsd_ilg", **values})
