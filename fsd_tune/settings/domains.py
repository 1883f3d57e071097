"""The domains of a search space: a fixed value, a range or a choice; and reading one from plain data.

Domains are independent of Optuna; `configuration.py` turns them into its distributions.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict

from fsd_tune.errors import nearest
from fsd_tune.settings.methods import HYPERPARAMETERS, Hyperparameter
from fsd_tune.settings.problems import Problems, describe, listed, quote_value
from fsd_tune.settings.yaml_file import KeyPath

_RANGE_KEYS = ("low", "high", "step", "log", "when")
_CHOICE_KEYS = ("choice", "when")


class Fixed(BaseModel):
    """A fixed hyperparameter. `value` is an int for integer hyperparameters (epochs, batch_size), else a float."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    value: int | float


class Range(BaseModel):
    """A searched interval with both ends included, optionally in steps or on a log scale.

    Attributes:
        low: the lowest value; an int for integer hyperparameters, else a float.
        high: the highest value, of the same type.
        step: the distance between neighbouring values; None if every value in the interval is possible.
        log: whether values are drawn on a log scale.
        when: maps other hyperparameters (or `method`) to the values for which this one is searched. For other values
            it has its default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False
    when: dict[str, tuple[Any, ...]] = {}


class Choice(BaseModel):
    """A searched list of values.

    Attributes:
        choice: the values.
        when: as in `Range`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    choice: tuple[Any, ...]
    when: dict[str, tuple[Any, ...]] = {}


Domain = Fixed | Range | Choice


def contains(entry: Domain, value: float | int) -> bool:
    """Return whether a domain contains a value, with a tolerance for rounding in a range with steps.

    Args:
        entry: the domain.
        value: the value.
    """
    if isinstance(entry, Fixed):
        return value == entry.value
    if isinstance(entry, Choice):
        return value in entry.choice
    if not entry.low <= value <= entry.high:
        return False
    steps = (value - entry.low) / entry.step if entry.step else 0
    return abs(steps - round(steps)) < 1e-8


def overlap(entry: Domain, other: Domain) -> bool:
    """Return whether two domains of a hyperparameter may have a value in common.

    Args:
        entry: the first domain.
        other: the second one.
    """
    if isinstance(entry, Range) and isinstance(other, Range):
        return entry.low <= other.high and other.low <= entry.high
    few, rest = (other, entry) if isinstance(entry, Range) else (entry, other)
    assert not isinstance(few, Range)
    values = few.choice if isinstance(few, Choice) else (few.value,)
    return any(contains(rest, value) for value in values)


def last(entry: Range) -> float | int:
    """Return the highest value of a range: the last that the steps from `low` reach, or `high` without steps.

    The steps are added as decimals, because users write decimals: three steps of 0.1 from 0 reach 0.3.

    Args:
        entry: the range of a hyperparameter.
    """
    if entry.step is None:
        return entry.high
    low, high, step = (Decimal(str(number)) for number in (entry.low, entry.high, entry.step))
    return type(entry.high)(low + (high - low) // step * step)


def nearest_value(entry: Range | Choice, value: float | int) -> float | int:
    """Return the value of a domain that is nearest to `value`.

    Args:
        entry: the domain.
        value: the value.
    """
    if isinstance(entry, Choice):
        return min(entry.choice, key=lambda choice: abs(choice - value))  # type: ignore[no-any-return]
    value = type(entry.low)(min(max(value, entry.low), last(entry)))
    if entry.step is None:
        return value
    low, step = Decimal(str(entry.low)), Decimal(str(entry.step))
    steps = round((Decimal(str(value)) - low) / step)
    return type(entry.low)(low + steps * step)


def read_entry(name: str, raw: Any, path: KeyPath, problems: Problems) -> Domain | None:
    """Read the domain of a hyperparameter: a number, a range or a choice.

    `space.read_space` checks the names and values of its `when` once all domains are known.

    Args:
        name: the hyperparameter.
        raw: its value in the file.
        path: the key path of the value.
        problems: receives the problems.

    Returns:
        The domain, or None after noting a problem.
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
    """Return the values, or an empty tuple if one is wrong."""
    if not isinstance(raw, list) or not raw:
        words = "an empty list" if raw == [] else describe(raw)
        problems.add(path, f"found {words}, but must be a list of at least one value.")
        return ()
    values: list[Any] = []
    for index, item in enumerate(raw):
        number = problems.number((*path, index), item, h.kind, h.low, h.high, h.low_open)
        if number is not None and number in values:
            problems.add((*path, index), f"found {quote_value(number)} twice, but must be different values.")
        values.append(number)
    return tuple(values) if None not in values and len(set(values)) == len(values) else ()


def _read_range(
    h: Hyperparameter, raw: Mapping[str, Any], when: dict[str, tuple[Any, ...]], path: KeyPath, problems: Problems
) -> Range | None:
    low = problems.number((*path, "low"), raw["low"], h.kind, h.low, h.high, h.low_open)
    high = problems.number((*path, "high"), raw["high"], h.kind, h.low, h.high, h.low_open)
    log = _read_log(raw.get("log", False), (*path, "log"), problems)
    usable = low is not None and high is not None
    if usable and low >= high:
        hint = "; a plain value fixes it" if low == high else ""
        problems.add(
            (*path, "low"), f"found {quote_value(low)}, but must be below high, which is {quote_value(high)}{hint}."
        )
        usable = False
    if log and low is not None and low <= 0:
        problems.add((*path, "low"), f"found {quote_value(low)}, but must be above 0 with `log: true`.")
        usable = False
    step = raw.get("step")
    if step is not None:
        step = _read_step(h, step, high - low if usable else None, bool(log), (*path, "step"), problems)
        usable = usable and step is not None
    return Range(low=low, high=high, step=step, log=log, when=when) if usable and log is not None else None


def _read_log(raw: Any, path: KeyPath, problems: Problems) -> bool | None:
    """Return whether a range has a log scale, or None after noting a problem."""
    if raw in ("yes", "on", "no", "off"):
        return raw in ("yes", "on")
    if isinstance(raw, bool):
        return raw
    problems.found(path, raw, "must be true or false")
    return None


def _read_step(
    h: Hyperparameter, raw: Any, width: float | None, log: bool, path: KeyPath, problems: Problems
) -> float | int | None:
    """Return the step of a range, or None after noting a problem; `width` is high - low, None if they are wrong."""
    if log:
        problems.add(path, "must not be together with `log: true`.")
        return None
    if width is None:
        if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw) or raw <= 0:
            problems.found(path, raw, "must be a number above 0")
        return None
    # At least one step must fit into the range. Integers need whole steps.
    least, most = (1, width) if h.kind is int else (0, float(f"{width:.12g}"))
    step: float | int | None = problems.number(path, raw, h.kind, least, most, low_open=h.kind is float)
    if step is not None and step < 1e-9 * most:
        problems.found(path, raw, "must be at least a billionth of the range")
        return None
    return step


def _read_when(raw: Any, path: KeyPath, problems: Problems) -> dict[str, tuple[Any, ...]]:
    """Return the names and values of a `when`."""
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
