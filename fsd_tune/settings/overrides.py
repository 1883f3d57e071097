"""Overrides of a settings file: flags such as `--student-layers 3`, and a file with one configuration.

A flag's value is YAML: `--trials=20`, `--alpha '{low: 0.1, high: 0.9}'`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fsd_tune.errors import InputError, nearest
from fsd_tune.settings import published
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, OPTIMISATION
from fsd_tune.settings.problems import Problems
from fsd_tune.settings.retired import retired_flag
from fsd_tune.settings.schema import SECTIONS
from fsd_tune.settings.shapes import RANDOM, SHAPE
from fsd_tune.settings.yaml_file import read_yaml

METHOD_DOC = "distillation method, or {choice: [..]} of several"
ASHA_DOC = "on or off: early stopping of trials"
PRECISION_DOC = "auto (bf16 where it runs natively), float32 or bf16"


def flags() -> list[tuple[str, str, str]]:
    """Return every flag as (flag, dotted key, one line of documentation), in the order of the settings file.

    The keys of the sections `search` and `resources` have a short flag (`--trials`) before the full one
    (`--search-trials`), and so has the mode of `wandb` (`--wandb`).
    """
    rows = [("--method", "method", METHOD_DOC), ("--published", "published", published.DOC)]
    rows += [(_flag(name), f"space.{name}", h.doc) for name, h in HYPERPARAMETERS.items()]
    for section, model in SECTIONS.items():
        if section == "asha":
            rows.append(("--asha", "asha", ASHA_DOC))
        for key, field in model.model_fields.items():
            doc = field.description or ""
            if section in ("search", "resources"):
                rows.append((_flag(key), f"{section}.{key}", doc))
            if (section, key) == ("wandb", "mode"):
                rows.append(("--wandb", "wandb.mode", doc))
            rows.append((_flag(f"{section}-{key}"), f"{section}.{key}", doc))
    rows.append(("--precision", "precision", PRECISION_DOC))
    return rows


def flag_of(dotted_key: str) -> str:
    """Return the shortest flag of a dotted key, or the key itself if it has none.

    Args:
        dotted_key: a setting, such as `student.layers`.
    """
    return min((flag for flag, key, _ in flags() if key == dotted_key), key=len, default=dotted_key)


def parse_flags(arguments: Sequence[str]) -> dict[str, str]:
    """Return `--flag value` and `--flag=value` pairs as {dotted key: value text}, for `settings.load`.

    Underscores count as hyphens.

    Args:
        arguments: words of a command line, such as `["--trials", "20"]`.

    Raises:
        InputError: a flag is unknown, lacks its value or is repeated. The error lists all of them.
    """
    keys = {flag: key for flag, key, _ in flags()}
    values: dict[str, str] = {}
    problems = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if not argument.startswith("--"):
            problems.append(f"{argument}: unexpected argument, must be a flag such as --trials 20.")
            continue
        typed, equals, value = argument.partition("=")
        if not equals and remaining and not remaining[0].startswith("--"):
            value, equals = remaining.pop(0), "="
        flag = typed.replace("_", "-")
        if flag not in keys:
            problems.append(f"{typed}: {unknown_flag(flag, keys)}")
        elif not equals:
            problems.append(f"{typed}: needs a value.")
        elif keys[flag] in values:
            problems.append(f"{typed}: is given twice.")
        else:
            values[keys[flag]] = value
    if problems:
        raise InputError(problems)
    return values


def unknown_flag(flag: str, known: Iterable[str]) -> str:
    """Return the message for an unknown flag.

    Args:
        flag: the flag.
        known: the known flags.
    """
    if flag == "--gamma":
        return "unknown flag: there are `--gamma-m`, `--gamma-i`, `--gamma-l` and `--gamma-g`."
    if retired := retired_flag(flag):
        return retired
    # A key without its section, such as `--layers`.
    keys = [f"`{name}`" for name in known if name.endswith(flag[1:])]
    return f"unknown flag. Did you mean {' or '.join(keys)}?" if keys else f"unknown flag.{nearest(flag, known)}"


def read_configuration_file(path: Path) -> dict[str, Any]:
    """Return the hyperparameters and the student's shape in a JSON or YAML file, as an agent of a W&B sweep writes it.

    A sweep has no conditions, so its files name everything that is searched. Hyperparameters that the file's `method`
    does not use are left out, and so is the width of a student that does not start at random.

    Args:
        path: a file that holds a mapping of hyperparameters, with or without `method`.

    Returns:
        Overrides for `settings.load`: {dotted key: value}.

    Raises:
        InputError: the file cannot be read, holds no mapping of plain values, or has an unknown hyperparameter.
    """
    document = read_yaml(path)
    content = document.data
    problems = Problems(str(path), document.lines, document.issues, {})
    known = ("method", *SHAPE, *HYPERPARAMETERS)
    for name, value in content.items():
        if name not in known:
            problems.add((name,), f"unknown hyperparameter.{nearest(name, known)}")
        elif not isinstance(value, bool | int | float | str) and (name, value) != ("hidden_size", None):
            problems.found((name,), value, "must be one value")
    problems.raise_any()
    method = content.get("method")
    used = {"method", *SHAPE, *METHODS[method].hyperparameters, *OPTIMISATION} if method in METHODS else set(known)
    if content.get("start", RANDOM) != RANDOM and "hidden_size" in content:
        content["hidden_size"] = None
    sections = {"method": ""} | dict.fromkeys(SHAPE, "student.")
    return {f"{sections.get(name, 'space.')}{name}": value for name, value in content.items() if name in used}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
