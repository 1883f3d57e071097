"""Settings of earlier versions: what replaced those that are gone, and how stored settings are read."""

from collections.abc import Mapping
from typing import Any

from fsd_tune.settings.problems import Problems, describe

# By section and key, what to do instead.
RETIRED: dict[tuple[str, str], str] = {
    ("search", "judge_by"): "a trial's score is its last evaluation; remove it",
    ("search", "learn_from"): "the sampler always learns a stopped trial's extrapolated score; remove it",
}
# Values that name what is done now in any case.
_STILL_TRUE = {("search", "judge_by"): "last", ("search", "learn_from"): "extrapolated"}
# What searches did before a setting existed, if its default is something else.
_BEFORE = {("search", "compare_methods"): "best_overall"}


def note_retired(data: dict[str, Any], problems: Problems) -> None:
    """Remove each retired setting from the data, and note it unless its value is what is done now in any case.

    Args:
        data: the content of a settings file.
        problems: receives the problems.
    """
    for (section, key), instead in RETIRED.items():
        if isinstance(data.get(section), dict) and key in data[section]:
            value = data[section].pop(key)
            if value == _STILL_TRUE[section, key]:
                continue
            problems.add((section, key), f"found {describe(value)}, but this setting is gone: {instead}.")


def as_stored(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a stored settings file, without retired settings and with what was done without newer ones.

    Args:
        data: the content, as an earlier version may have written it.
    """
    kept: dict[str, Any] = {
        section: {key: value for key, value in values.items() if (section, key) not in RETIRED}
        if isinstance(values, Mapping)
        else values
        for section, values in data.items()
    }
    for (section, key), value in _BEFORE.items():
        own = kept.get(section)
        if own is None or (isinstance(own, dict) and key not in own):
            kept[section] = {**(own or {}), key: value}
    return kept


def retired_flag(flag: str) -> str:
    """Return what replaced the setting of a flag; empty if no setting of an earlier version had it.

    Args:
        flag: a flag such as `--judge-by`.
    """
    for (section, key), instead in RETIRED.items():
        if flag.removeprefix("--").replace("-", "_") in (key, f"{section}_{key}"):
            return f"this setting is gone: {instead}."
    return ""
