"""The entries of a search space: a hyperparameter that is fixed, a range or a choice, and reading one from plain data.

The entries know nothing of Optuna; `space.py` turns them into its distributions.
"""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from fsd_tune.errors import nearest
from fsd_tune.settings.methods import HYPERPARAMETERS, Hyperparameter
from fsd_tune.settings.problems import Problems, describe, listed, show
from fsd_tune.settings.yaml_file import KeyPath

_RANGE_KEYS = ("low", "high", "step", "log", "when")
_CHOICE_KEYS = ("choice", "when")


class Fixed(BaseModel):
    """A hyperparameter with one value; `value` is int for the integer ones (epochs, batch_size), else float."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    value: int | float


class Range(BaseModel):
    """A searched interval, ends included: both int or both float, optionally in steps or on a log scale.

    `when` maps other entries (or `method`) to the values for which this hyperparameter is searched; where it does
    not hold, the hyperparameter has its default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False
    when: dict[str, tuple[Any, ...]] = {}


class Choice(BaseModel):
    """A searched list of values; `when` as in `Range`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    choice: tuple[Any, ...]
    when: dict[str, tuple[Any, ...]] = {}


Domain = Fixed | Range | Choice


def contains(entry: Domain, value: float | int) -> bool:
    """Whether the entry can take `value`; for a range in steps, up to rounding."""
    if isinstance(entry, Fixed):
        return value == entry.value
    if isinstance(entry, Choice):
        return value in entry.choice
    if not entry.low <= value <= entry.high:
        return False
    steps = (value - entry.low) / entry.step if entry.step else 0
    return abs(steps - round(steps)) < 1e-8


def read_entry(name: str, raw: Any, path: KeyPath, problems: Problems) -> Domain | None:
    """The entry of hyperparameter `name`, or None with the problems noted: a number, a range or a choice.

    What `when` names is not checked here, but once all entries are read.
    """
    h = HYPERPARAMETERS[name]
    if isinstance(raw, list):
        problems.found(path, raw, "must be a number, {low: .., high: ..} or {choice: [..]}")
        return None
    if not isinstance(raw, Mapping):
        number = problems.number(path, raw, h.kind, h.low, h.high, h.low_open)
        return None if number is None else Fixed(value=number)
    keys = _CHOICE_KEYS if "choice" in raw else _RANGE_KEYS
    unknown = [key for key in raw if key not in keys]
    for key in unknown:
        close = nearest(key, {*_RANGE_KEYS, *_CHOICE_KEYS} - set(raw))
        problems.add((*path, key), f"unknown key, must be one of {listed(keys)}.{close}")
    missing = [] if unknown or "choice" in raw else [key for key in ("low", "high") if key not in raw]
    for key in missing:
        problems.add((*path, key), "is missing: a range needs `low` and `high`, anything else `choice: [..]`.")
    if unknown or missing:
        return None
    when = _read_when(raw.get("when"), (*path, "when"), problems)
    if "choice" in raw:
        values = _read_choices(h, raw["choice"], (*path, "choice"), problems)
        return Choice(choice=values, when=when) if values else None
    return _read_range(h, raw, when, path, problems)


def _read_choices(h: Hyperparameter, raw: Any, path: KeyPath, problems: Problems) -> tuple[Any, ...]:
    """The values, or nothing when any is wrong."""
    if not isinstance(raw, list) or not raw:
        found = "an empty list" if raw == [] else describe(raw)
        problems.add(path, f"found {found}, but must be a list of at least one value.")
        return ()
    values: list[Any] = []
    for index, item in enumerate(raw):
        number = problems.number((*path, index), item, h.kind, h.low, h.high, h.low_open)
        if number is not None and number in values:
            problems.add((*path, index), f"found {show(number)} twice, but must be different values.")
        values.append(number)
    return tuple(values) if None not in values and len(set(values)) == len(values) else ()


def _read_range(
    h: Hyperparameter, raw: Mapping[str, Any], when: dict[str, tuple[Any, ...]], path: KeyPath, problems: Problems
) -> Range | None:
    low = problems.number((*path, "low"), raw["low"], h.kind, h.low, h.high, h.low_open)
    high = problems.number((*path, "high"), raw["high"], h.kind, h.low, h.high, h.low_open)
    log, step, good = raw.get("log", False), raw.get("step"), low is not None and high is not None
    if log in ("yes", "on", "no", "off"):
        log = log in ("yes", "on")
    if not isinstance(log, bool):
        problems.found((*path, "log"), log, "must be true or false")
        log = good = False
    if good and low >= high:
        hint = "; a plain value fixes it" if low == high else ""
        problems.add((*path, "low"), f"found {show(low)}, but must be below high, which is {show(high)}{hint}.")
        good = False
    if log and low is not None and low <= 0:
        problems.add((*path, "low"), f"found {show(low)}, but must be above 0 with `log: true`.")
        good = False
    if step is not None:
        if log:
            problems.add((*path, "step"), "must not be together with `log: true`.")
            good = False
        if good:
            # A whole step for whole numbers, and at least one step inside the range.
            least, most = (1, high - low) if h.kind is int else (0, float(f"{high - low:.12g}"))
            step = problems.number((*path, "step"), step, h.kind, least, most, low_open=h.kind is float)
            good = step is not None
        elif isinstance(step, bool) or not isinstance(step, int | float) or not math.isfinite(step) or step <= 0:
            problems.found((*path, "step"), step, "must be a number above 0")
    return Range(low=low, high=high, step=step, log=log, when=when) if good else None


def _read_when(raw: Any, path: KeyPath, problems: Problems) -> dict[str, tuple[Any, ...]]:
    """The names and values of a `when`."""
    if raw is None:
        return {}
    if not isinstance(raw, Mapping) or not raw:
        problems.found(path, raw, "must be a mapping such as {method: [fsd_g, fsd_ilg]}")
        return {}
    when = {}
    for name, values in raw.items():
        if isinstance(values, list) and values:
            when[name] = tuple(values)
        elif isinstance(values, str | int | float):
            when[name] = (values,)
        else:
            problems.found((*path, name), values, "must be a list of at least one value")
    return when
