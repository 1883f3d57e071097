"""The setting `published`: what it implies, by script and method.

The scripts are those of github.com/maroo-sky/FSD at 5004d75 (docs/explanation/published-code.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsd_tune.settings.problems import Problems, describe, listed

DOC = (
    "true, or the name of a script: settings that are not given have the values of the published code "
    "(docs/explanation/published-code.md); false: fsd_tune's defaults"
)


@dataclass(frozen=True)
class Script:
    """One published training script.

    Attributes:
        methods: the methods that it trains.
        layers: its layer pairs, as `loss.layers` names them.
    """

    methods: tuple[str, ...]
    layers: str = "penultimate"


SCRIPTS: dict[str, Script] = {
    "glue_with_cka_i.py": Script(("fsd_i", "fsd_l")),
    "glue_with_cka_l.py": Script(("fsd_l",), layers="last"),
    "glue_with_cka_g.py": Script(("fsd_g",)),
    "glue_with_cka_ilg.py": Script(("fsd_il", "fsd_ilg")),
}
# The script that `published: true` means for a method. Without `--internal`, that of FSD_I trains L_L, too, but with
# another layer pair.
_OWN_SCRIPT = {
    "fsd_i": "glue_with_cka_i.py",
    "fsd_l": "glue_with_cka_l.py",
    "fsd_g": "glue_with_cka_g.py",
    "fsd_il": "glue_with_cka_ilg.py",
    "fsd_ilg": "glue_with_cka_ilg.py",
}
ACCEPTED = f"true, false or one of {listed(SCRIPTS)}"

# What published padding has always implied. `data.padding: published` sets these by itself, too.
_WITH_PADDING: dict[str, Any] = {
    "loss.distance": "raw",
    "student.memory_start": "published",
    "optimizer.clipping": "together",
    "optimizer.epsilon": "published",
    "optimizer.accumulation": "published",
}
_ALL: dict[str, Any] = {
    "data.padding": "published",
    **_WITH_PADDING,
    "memory.algorithm": "published",
    "data.batching": "random",
    "precision": "float32",
}


def implied(published: bool | str, methods: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings that a valid value of `published` implies.

    Args:
        published: the value.
        methods: the chosen methods.

    Returns:
        {dotted key: value}; empty for False.
    """
    if published is False:
        return {}
    script = published if isinstance(published, str) else _OWN_SCRIPT.get(methods[0], "") if len(methods) == 1 else ""
    return _ALL | {"loss.layers": SCRIPTS[script].layers} if script in SCRIPTS else dict(_ALL)


def fill(data: dict[str, Any], methods: tuple[str, ...] | None) -> None:
    """Fill in the settings that `published` and `data.padding: published` imply, unless the data sets them.

    Args:
        data: the data of a settings file, changed in place.
        methods: the chosen methods; None when they could not be read.
    """
    published = data.get("published")
    if methods is not None and (published is True or (isinstance(published, str) and published in SCRIPTS)):
        _fill(data, implied(published, methods))
    if isinstance(data.get("data"), dict) and data["data"].get("padding") == "published":
        _fill(data, _WITH_PADDING)


def read(raw: Any, methods: tuple[str, ...] | None, sections: Mapping[str, Any], problems: Problems) -> bool | str:
    """Read the key `published`, and note the settings that contradict it.

    Args:
        raw: its value in the file.
        methods: the chosen methods; None when they could not be read.
        sections: the sections of the settings, None for those that could not be read.
        problems: receives the problems.

    Returns:
        False, True or the name of a script.
    """
    if raw is None or raw is False or raw in ("no", "off"):
        return False
    published = True if raw in ("yes", "on") else raw
    if published is not True and (not isinstance(published, str) or published not in SCRIPTS):
        problems.found(("published",), raw, f"must be {ACCEPTED}", SCRIPTS)
        return False
    if isinstance(published, str) and methods is not None and not set(methods) <= set(SCRIPTS[published].methods):
        trained = listed(SCRIPTS[published].methods)
        problems.add(("published",), f"found {published}, which trains {trained}, but method is {listed(methods)}.")
    student = sections.get("student")
    widths = [] if student is None else [width for width in student.possible("hidden_size") if width is not None]
    if widths:
        problems.found(
            ("student", "hidden_size"),
            widths[0],
            "must be null with `published`: the published students are as wide as their teacher",
        )
    return published


def lines(published: bool | str, methods: tuple[str, ...], values: Mapping[str, Any]) -> list[str]:
    """Return in words what `published` has set, for `fsd-tune validate`.

    Args:
        published: the value.
        methods: the chosen methods.
        values: all settings as plain values, as their dump contains them.

    Returns:
        A line for each setting; a setting with another value than the implied one names both. Empty for False.
    """
    shown = []
    for key, value in implied(published, methods).items():
        section, _, name = key.partition(".")
        actual = values[section][name] if name else values[section]
        text = f"{key}: {actual}" if isinstance(actual, str) else f"{key}: {describe(actual)}"
        shown.append(text if actual == value else f"{text}, set by you (published: {value})")
    return shown


def _fill(data: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        section, _, name = key.partition(".")
        if data.get(section) is None:
            data[section] = {} if name else value
        if name and isinstance(data[section], dict) and data[section].get(name) is None:
            data[section][name] = value
