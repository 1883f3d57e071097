"""A file with one configuration, as an agent of a W&B sweep writes it."""

from pathlib import Path

import yaml

from fsd_tune.errors import InputError, nearest
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, OPTIMISATION
from fsd_tune.settings.space import required


def read(path: Path) -> dict[str, str]:
    """The hyperparameters of a JSON or YAML mapping, as overrides of settings ({dotted key: YAML text}).

    A sweep knows no conditions: what the file's `method` does not use is left out.

    Raises:
        InputError: the file cannot be read, holds no mapping of plain values, or names what is no hyperparameter.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"--configuration: {path} cannot be read: {why}.") from None
    if not isinstance(found, dict):
        raise InputError(f"--configuration: {path} must hold a mapping of hyperparameters.")
    known = ("method", *HYPERPARAMETERS)
    problems = [
        f"{path}: {name}: unknown hyperparameter.{nearest(str(name), known)}" for name in found if name not in known
    ]
    problems += [
        f"{path}: {name}: found a {type(value).__name__}, but must be one value."
        for name, value in found.items()
        if not isinstance(value, bool | int | float | str)
    ]
    if problems:
        raise InputError(problems)
    method = found.get("method")
    used = {"method", *required((method,)), *OPTIMISATION} if method in METHODS else set(known)
    return {
        name if name == "method" else f"space.{name}": _text(name, value)
        for name, value in found.items()
        if name in used
    }


def _text(name: str, value: bool | int | float | str) -> str:
    """A value as a flag would give it; W&B's quantised whole numbers are floats."""
    whole = name != "method" and HYPERPARAMETERS[name].kind is int
    return str(int(value)) if whole and isinstance(value, float) and value.is_integer() else str(value)
