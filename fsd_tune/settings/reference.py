"""Descriptions of all settings, for the reference page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fsd_tune.settings import published
from fsd_tune.settings.fields import accepted, types_of
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, OPTIMISATION, default
from fsd_tune.settings.overrides import flags
from fsd_tune.settings.problems import listed, quote_value, span
from fsd_tune.settings.schema import SECTIONS, Asha, Precision
from fsd_tune.settings.shapes import SHAPE

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "text", tuple: "list", dict: "mapping"}


@dataclass(frozen=True)
class SettingDescription:
    """The description of one setting.

    Attributes:
        key: the dotted key, such as `search.trials`.
        type: the types of its values, such as "integer" or "text or null".
        default: the default as YAML text; empty for a setting that must be given.
        accepted: the accepted values, in words.
        description: what it is, in one line.
        flags: the flags that override it, the shortest first; empty for the keys of `loss.weights`.
    """

    key: str
    type: str
    default: str
    accepted: str
    description: str
    flags: tuple[str, ...]


def describe_settings() -> list[SettingDescription]:
    """Return a description of every setting, in the order of the settings file."""
    by_key: dict[str, list[str]] = {}
    docs: dict[str, str] = {}
    for flag, key, doc in flags():
        by_key.setdefault(key, []).append(flag)
        docs[key] = doc
    rows = [("method", "text or mapping", "", f"one of {listed(METHODS)}, or {{choice: [...]}} of them")]
    rows.append(("published", "boolean or text", "false", f"one of {published.ACCEPTED}"))
    rows += [(f"space.{name}", *_hyperparameter(name)) for name in HYPERPARAMETERS]
    for section, model in SECTIONS.items():
        if model is Asha:
            rows.append((section, "text or mapping", "on", f"on, off, or a mapping of {listed(model.model_fields)}"))
        rows += _fields(section, model, docs)
    rows.append(("precision", "text", "auto", f"one of {listed(get_args(Precision))}"))
    return [
        SettingDescription(key, kind, default_text, values, docs[key], tuple(sorted(by_key.get(key, ()), key=len)))
        for key, kind, default_text, values in rows
    ]


def _hyperparameter(name: str) -> tuple[str, str, str]:
    """Return the types, the default and the accepted values of an entry of the space."""
    h = HYPERPARAMETERS[name]
    users = [method for method, entry in METHODS.items() if name in (*entry.hyperparameters, *OPTIMISATION)]
    defaults: dict[str, list[str]] = {}
    for method in users:
        defaults.setdefault(quote_value(default(method, name)), []).append(method)
    default_text = "; ".join(f"{value} ({listed(names)})" for value, names in defaults.items())
    values = f"{span(h.kind, h.low, h.high, h.low_open)}, a range {{low: .., high: ..}} of them or {{choice: [..]}}"
    return f"{_TYPES[h.kind]} or mapping", default_text if len(defaults) > 1 else next(iter(defaults)), values


def _fields(path: str, model: type[BaseModel], docs: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield key, types, default and accepted values of each field, and put its description into `docs`."""
    for name, field in model.model_fields.items():
        key = f"{path}.{name}"
        docs[key] = field.description or ""
        kind, values = _type_words(field), accepted(field)
        if path == "student" and name in SHAPE:
            kind, values = f"{kind} or mapping", f"{values}, or {{choice: [..]}} of such values"
        yield key, kind, "" if field.is_required() else _yaml(field.default), values
        for option in types_of(field.annotation):
            if key == "loss.weights" and isinstance(option, type) and issubclass(option, BaseModel):
                yield from _fields(key, option, docs)


def _type_words(field: FieldInfo) -> str:
    words = []
    for option in types_of(field.annotation):
        if option is type(None):
            words.append("null")
        elif get_origin(option) is Literal:
            words.append("text")
        elif isinstance(option, type) and issubclass(option, BaseModel):
            words.append("mapping")
        elif isinstance(option, type) or get_origin(option) in (tuple, dict):
            words.append(_TYPES[get_origin(option) or option])
    return " or ".join(dict.fromkeys(words))


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{listed(value)}]"
    return quote_value(value) if isinstance(value, int | float) else str(value)
