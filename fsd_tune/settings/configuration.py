"""Configurations of a search space: sampling with conditions, Optuna's distributions, first and full configurations.

Optuna is imported only to create distributions, so that settings can be resolved without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fsd_tune.errors import InputError, nearest
from fsd_tune.settings.domains import Choice, Domain, Fixed, Range, contains, last, nearest_value
from fsd_tune.settings.loader import Settings
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, OPTIMISATION, default
from fsd_tune.settings.overrides import flag_of
from fsd_tune.settings.problems import as_number, describe, listed
from fsd_tune.settings.shapes import RANDOM, SHAPE, default_value
from fsd_tune.settings.space import required

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

Pick = Callable[[str, Range | Choice], Any]


def sample(settings: Settings, trial: Trial) -> dict[str, Any]:
    """Return the configuration that a trial of Optuna suggests.

    Only the searched keys of the student's shape, and the searched hyperparameters that its method uses and whose
    `when` holds, are suggested. All others are fixed or have their default.

    Args:
        settings: the settings of the search.
        trial: the trial.

    Returns:
        {"method": ..., searched key of the shape: value, ..., hyperparameter: value, ...} with every hyperparameter
        that the method uses and all of optimisation.
    """

    def suggest(name: str, entry: Range | Choice) -> Any:
        if isinstance(entry, Choice):
            return trial.suggest_categorical(name, entry.choice)
        if HYPERPARAMETERS[name].kind is int:
            step = 1 if entry.step is None else int(entry.step)
            return trial.suggest_int(name, int(entry.low), int(last(entry)), step=step, log=entry.log)
        return trial.suggest_float(name, entry.low, last(entry), step=entry.step, log=entry.log)

    return configure(settings, suggest)


def distributions(settings: Settings) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of each searched parameter, including conditional ones.

    The first ones are those of `method` and of the student's shape that are searched; hyperparameters follow.

    Args:
        settings: the settings whose `method`, `student` and `space` are searched.

    Returns:
        {searched parameter: distribution}, empty if nothing is searched.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    by_name: dict[str, BaseDistribution] = {}
    for name, entry in _searched(settings).items():
        if isinstance(entry, Choice):
            by_name[name] = CategoricalDistribution(entry.choice)
        elif HYPERPARAMETERS[name].kind is int:
            step = 1 if entry.step is None else int(entry.step)
            by_name[name] = IntDistribution(int(entry.low), int(last(entry)), log=entry.log, step=step)
        else:
            by_name[name] = FloatDistribution(entry.low, last(entry), log=entry.log, step=entry.step)
    return by_name


def same_trials_note(settings: Settings) -> str:
    """Return why a search of these settings makes no sense: nothing is searched, so all trials are the same.

    Args:
        settings: the settings of the search.

    Returns:
        A sentence; empty if something is searched, or there is only one trial.
    """
    trials = settings.search.trials
    if _searched(settings) or trials == 1:
        return ""
    return (
        f"nothing is searched, so all {trials} trials would be the same: give a hyperparameter a range or a choice, "
        "or train one student with `fsd-tune distill`"
    )


def first_configurations(settings: Settings) -> list[dict[str, Any]]:
    """Return the configurations to try first, for `study.enqueue_trial`, without duplicates.

    The defaults come first, those of hyperparameters for the first method, each moved to the nearest value in the
    space. The configurations of `search.first` follow. The sampler draws what a configuration does not name.

    Args:
        settings: the settings of the search.

    Returns:
        Each as {searched parameter: value}.
    """
    searched = _searched(settings)

    def nearest_to_default(name: str, entry: Range | Choice) -> Any:
        if name == "method":
            return settings.methods[0]
        if name in SHAPE:
            assert isinstance(entry, Choice)
            return default_value(name, entry)
        return nearest_value(entry, default(settings.methods[0], name))

    candidates = [configure(settings, nearest_to_default, only_picked=True)]
    candidates += [{name: value for name, value in item.items() if name in searched} for item in settings.search.first]
    first: list[dict[str, Any]] = []
    for candidate in candidates:
        if candidate and candidate not in first:
            first.append(candidate)
    return first


def configure(
    settings: Settings, pick: Pick, given: Mapping[str, Any] | None = None, only_picked: bool = False
) -> dict[str, Any]:
    """Return a configuration in which `pick` decides each searched parameter: method, shape, then hyperparameters.

    Args:
        settings: the settings of the search.
        pick: called with the name and domain of each searched key of the student's shape, and of each searched
            hyperparameter that the method uses and whose `when` holds; returns its value. A width is picked for
            students that start at random only; others have the width None.
        given: values that are used unchanged.
        only_picked: whether to leave out what is given, fixed or has its default.

    Returns:
        {"method": ..., searched key of the shape: value, ..., hyperparameter: value, ...}.
    """
    given = given or {}
    picked: dict[str, Any] = {}
    full: dict[str, Any] = {"method": settings.method}
    if "method" in given:
        full["method"] = given["method"]
    elif isinstance(settings.method, Choice):
        full["method"] = picked["method"] = pick("method", settings.method)
    for name, shape in settings.student.choices.items():
        if name in given:
            full[name] = given[name]
        elif name == "hidden_size" and full.get("start", settings.student.start) != RANDOM:
            full[name] = None
        else:
            full[name] = picked[name] = pick(name, shape)
    method = full["method"]
    values: dict[str, Any] = {}
    names = [name for name in HYPERPARAMETERS if name in METHODS[method].hyperparameters or name in OPTIMISATION]
    for name in _in_order(settings.space, names):
        entry = settings.space.get(name)
        if name in given:
            values[name] = given[name]
        elif isinstance(entry, Fixed):
            values[name] = entry.value
        elif entry is None or not _holds(entry, full | values):
            values[name] = default(method, name)
        else:
            values[name] = picked[name] = pick(name, entry)
    return picked if only_picked else full | {name: values[name] for name in names}


def picked(settings: Settings, full: Mapping[str, Any]) -> dict[str, Any]:
    """Return the searched parameters of a full configuration.

    Args:
        settings: the settings of the search.
        full: a configuration with all hyperparameters of its method and the searched keys of the shape.

    Returns:
        The searched keys of its shape, and the searched hyperparameters that its method uses and whose `when` holds.
    """
    return configure(settings, lambda name, entry: full[name], only_picked=True)


def adopt(settings: Settings, full: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return what a configuration of another search says of this space.

    What this space fixes, or gives its default, need not be the same there.

    Args:
        settings: the settings of this search.
        full: a configuration with all hyperparameters of its method, and the keys of its student's shape.

    Returns:
        The searched keys of its shape and the searched hyperparameters that its method uses and whose `when` holds
        here, each a value of this space; and the first one that `full` lacks or that has a value outside of this space,
        empty if there is none.
    """
    outside: list[str] = []

    def take(name: str, entry: Range | Choice) -> Any:
        value = full.get(name)
        if name == "method":
            known = isinstance(entry, Choice) and value in entry.choice
            outside.extend([] if known else [name])
            return value if known else settings.methods[0]
        if name in SHAPE:
            assert isinstance(entry, Choice)
            outside.extend([] if value in entry.choice else [name])
            return entry.choice[entry.choice.index(value)] if value in entry.choice else entry.choice[0]
        h = HYPERPARAMETERS[name]
        try:
            number = as_number(value, h.kind, h.low, h.high, h.low_open)
        except ValueError:
            number = None
        if number is None or not contains(entry, number):
            outside.append(name)
            return entry.choice[0] if isinstance(entry, Choice) else entry.low
        return nearest_value(entry, number)

    if not isinstance(settings.method, Choice) and full.get("method") != settings.method:
        return {}, "method"
    values = configure(settings, take, only_picked=True)
    return ({}, outside[0]) if outside else (values, "")


def unconditional(settings: Settings) -> list[str]:
    """Return the searched parameters that every configuration has.

    Args:
        settings: the settings of the search.
    """
    return [
        name
        for name, entry in _searched(settings).items()
        if (
            not entry.when
            and (name in OPTIMISATION or all(name in METHODS[method].hyperparameters for method in settings.methods))
        )
        or name in ("method", "layers", "start")
        or (name == "hidden_size" and settings.student.start == RANDOM)
    ]


def resolve(settings: Settings, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the full configuration of one run.

    Args:
        settings: the settings. What `configuration` lacks comes from the values that they fix, then from the defaults.
        configuration: values by hyperparameter, and by searched key of the student's shape.

    Returns:
        {name: value} of the method, of the searched keys of the shape and of all its hyperparameters.

    Raises:
        InputError: a hyperparameter or a key of the shape is still a range or a choice (the message names the flag that
            fixes it), or `configuration` has an unknown name or a value that is not accepted.
    """
    values = dict(configuration or {})
    problems = []
    for name, value in values.items():
        if name == "method":
            if value not in list(METHODS):
                problems.append(f"method: found {describe(value)}, but must be one of {listed(METHODS)}.")
        elif name in settings.student.choices:
            accepted = settings.student.choices[name].choice
            if value not in accepted:
                problems.append(f"{name}: found {describe(value)}, but must be one of {listed(accepted)}.")
        elif name not in HYPERPARAMETERS:
            problems.append(f"{name}: unknown hyperparameter.{nearest(name, HYPERPARAMETERS)}")
        else:
            h = HYPERPARAMETERS[name]
            try:
                values[name] = as_number(value, h.kind, h.low, h.high, h.low_open)
            except ValueError as error:
                problems.append(f"{name}: found {describe(value)}, but {error}.")
    if problems:
        raise InputError(problems)

    def note_missing(name: str, entry: Range | Choice) -> Any:
        section = "student." if name in SHAPE else "" if name == "method" else "space."
        key = f"{section}{name}"
        problems.append(f"{key}: is searched, but one run needs one value: give {flag_of(key)} VALUE.")
        return entry.choice[0] if isinstance(entry, Choice) else entry.low

    full = configure(settings, note_missing, values)
    if problems:
        raise InputError(problems)
    return full


def _holds(entry: Range | Choice, configuration: Mapping[str, Any]) -> bool:
    return all(configuration.get(name) in accepted for name, accepted in entry.when.items())


def _in_order(space: Mapping[str, Domain], names: list[str]) -> list[str]:
    """Return the names in an order in which each comes after the others that its `when` names."""
    ordered: list[str] = []
    while len(ordered) < len(names):
        ready = [
            name
            for name in names
            if name not in ordered
            and all(other in ordered or other not in names for other in getattr(space.get(name), "when", {}))
        ]
        assert ready, "settings refuse conditions that depend on themselves"
        ordered += ready
    return ordered


def _searched(settings: Settings) -> dict[str, Range | Choice]:
    """Return what is searched: `method`, keys of the shape, and hyperparameters that at least one method uses."""
    searched: dict[str, Range | Choice] = {}
    if isinstance(settings.method, Choice):
        searched["method"] = settings.method
    searched |= settings.student.choices
    for name in (*required(settings.methods), *OPTIMISATION):
        entry = settings.space.get(name)
        if entry is not None and not isinstance(entry, Fixed):
            searched[name] = entry
    return searched
