"""Bring the data of a settings file into the form that is checked: overrides applied, implied values filled in."""

import math
import numbers
import os
from collections.abc import Mapping
from typing import Any

from fsd_tune.errors import nearest
from fsd_tune.settings import published, yaml_file
from fsd_tune.settings.methods import METHODS, default
from fsd_tune.settings.overrides import flags
from fsd_tune.settings.problems import Problems
from fsd_tune.settings.shapes import RANDOM
from fsd_tune.settings.space import WEIGHTED, required
from fsd_tune.settings.yaml_file import KeyPath

Data = dict[str, Any]


def copy_plain(value: Any, path: KeyPath, issues: list[yaml_file.Issue]) -> Any:
    """Return a copy of Python values as a YAML file would contain them: dicts, lists, text, numbers, booleans and None.

    Args:
        value: any value; tuples become lists, paths text, and numbers of other libraries Python's.
        path: the key path of the value.
        issues: receives an issue for each value of another type.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | os.PathLike):
        return str(value)
    if isinstance(value, numbers.Integral):
        # Python cannot print integers beyond its limit of digits. They are out of every range, as infinity is.
        return int(value) if abs(int(value)) < 10**1000 else math.inf
    if isinstance(value, numbers.Real):
        return float(value)
    if len(path) > yaml_file.MAX_DEPTH:
        issues.append(yaml_file.Issue(1, path, f"is nested more than {yaml_file.MAX_DEPTH} deep.", True))
        return None
    if isinstance(value, list | tuple):
        return [copy_plain(item, (*path, index), issues) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {str(key): copy_plain(item, (*path, str(key)), issues) for key, item in value.items()}
        message = "found a key that is not plain text."
    else:
        message = f"found a {type(value).__name__}, but must be plain text, a number, a list or a mapping."
    issues.append(yaml_file.Issue(1, path, message, True))
    return None


def is_off(section: str, data: Mapping[str, Any]) -> bool:
    """Return whether a section is switched off: `asha: off`.

    Args:
        section: the name of a section.
        data: all sections of the settings file, as plain values.
    """
    return section == "asha" and (data.get("asha") == "off" or data.get("asha") is False)


def apply_overrides(data: Data, overrides: Mapping[str, Any], problems: Problems) -> None:
    """Apply the overrides to `data`, and note those that cannot be read.

    Args:
        data: the data of a settings file, changed in place.
        overrides: {dotted key: value}; a text value is parsed as YAML.
        problems: receives the problems.
    """
    known = {key for _, key, _ in flags()}
    # Apply the override of a whole section (`asha: off`) before those of its keys.
    for key, override in sorted(overrides.items(), key=lambda item: item[0].count(".")):
        section, _, name = key.partition(".")
        path = tuple(key.split("."))
        if key not in known:
            problems.unusable(path, f"unknown key.{nearest(key, known)}")
            continue
        try:
            value = yaml_file.parse_value(override) if isinstance(override, str) else override
        except ValueError as error:
            problems.unusable(path, str(error))
            continue
        issues: list[yaml_file.Issue] = []
        value = copy_plain(value, path, issues)
        for issue in issues:
            problems.unusable(issue.path, issue.message)
        if not name:
            data[key] = value
        elif is_off(section, data):
            problems.add(path, "has no effect because asha is off.")
        elif isinstance(data.get(section), dict):
            data[section][name] = value
        elif data.get(section) is None or data[section] is True or data[section] == "on":
            data[section] = {name: value}


def normalise(
    data: Data, methods: tuple[str, ...] | None, overrides: Mapping[str, Any], file_method: Any, complete: bool
) -> None:
    """Fill in the values that the data implies, and drop those that the overrides make meaningless.

    Args:
        data: the data of a settings file with the overrides applied, changed in place.
        methods: the chosen methods; None when they could not be read.
        overrides: the overrides.
        file_method: the value of `method` before the overrides.
        complete: whether the methods' own hyperparameters get their defaults.
    """
    if methods is not None and complete:
        _fill_space(data, methods)
    if methods is not None and "method" in overrides:
        _drop_other_methods(data, file_method, methods, overrides)
    _drop_fixed_from_first(data, overrides)
    _drop_width(data, overrides)
    published.fill(data, methods)


def _fill_space(data: Data, methods: tuple[str, ...]) -> None:
    weighted = isinstance(data.get("loss"), dict) and data["loss"].get("weights") is not None
    if data.get("space") is None:
        data["space"] = {}
    if isinstance(data["space"], dict):
        for name in required(methods):
            if not (weighted and name in WEIGHTED):
                data["space"].setdefault(name, default(methods[0], name))


def _drop_other_methods(data: Data, file_method: Any, methods: tuple[str, ...], overrides: Mapping[str, Any]) -> None:
    """Drop the file's values that only methods deselected by an override use."""
    names = file_method.get("choice") if isinstance(file_method, dict) else [file_method]
    known = [name for name in names if name in METHODS] if isinstance(names, list) else []
    unused = {name for name in required(known) if name not in required(methods) and f"space.{name}" not in overrides}
    if isinstance(data.get("space"), dict):
        data["space"] = _without(data["space"], unused)
    if _has_first(data):
        data["search"]["first"] = [
            _without(item, unused) if isinstance(item, dict) else item
            for item in data["search"]["first"]
            if not isinstance(item, dict) or item.get("method") in (None, *methods)
        ]


def _drop_fixed_from_first(data: Data, overrides: Mapping[str, Any]) -> None:
    """Drop hyperparameters that an override fixes from the file's first configurations."""
    if not _has_first(data) or "search.first" in overrides:
        return
    fixed = {
        name
        for section in ("space", "student")
        if isinstance(data.get(section), dict)
        for name, entry in data[section].items()
        if f"{section}.{name}" in overrides and not isinstance(entry, dict)
    }
    if fixed:
        remaining = [_without(item, fixed) if isinstance(item, dict) else item for item in data["search"]["first"]]
        data["search"]["first"] = [item for item in remaining if item != {}]


def _drop_width(data: Data, overrides: Mapping[str, Any]) -> None:
    """Drop the file's widths if an override fixes a start that has the teacher's."""
    student = data.get("student")
    if "student.start" not in overrides or "student.hidden_size" in overrides or not isinstance(student, dict):
        return
    if isinstance(student["start"], str) and student["start"] != RANDOM:
        student.pop("hidden_size", None)


def _has_first(data: Data) -> bool:
    return isinstance(data.get("search"), dict) and isinstance(data["search"].get("first"), list)


def _without(mapping: Data, names: set[str]) -> Data:
    return {name: value for name, value in mapping.items() if name not in names}
