"""The keys `method`, `space` and `search.first`: reading them, and the checks that span several hyperparameters."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fsd_tune.errors import nearest
from fsd_tune.settings.domains import Choice, Domain, Fixed, Range, contains, read_entry
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, OPTIMISATION, default
from fsd_tune.settings.problems import Problems, as_number, listed, quote_value
from fsd_tune.settings.shapes import SHAPE, StudentSpace, first_value
from fsd_tune.settings.yaml_file import KeyPath

# The hyperparameters that loss.weights replaces.
WEIGHTED = ("beta", "gamma_m", "gamma_i", "gamma_l", "gamma_g")


def read_method(raw: Any, problems: Problems) -> str | Choice | None:
    """Read the key `method`: one name, or `{choice: [...]}` of names.

    Args:
        raw: its value in the file.
        problems: receives the problems.

    Returns:
        The name or the choice, or None after noting a problem.
    """
    path: KeyPath = ("method",)
    accepted = f"must be one of {listed(METHODS)}, or {{choice: [...]}} of them"
    if isinstance(raw, Mapping) and set(raw) == {"choice"} and isinstance(raw["choice"], list) and raw["choice"]:
        valid = True
        for index, name in enumerate(raw["choice"]):
            if not isinstance(name, str) or name not in METHODS:
                problems.found((*path, "choice", index), name, f"must be one of {listed(METHODS)}", METHODS)
                valid = False
            elif name in raw["choice"][:index]:
                problems.add((*path, "choice", index), f"found {name} twice, but must be different methods.")
                valid = False
        return Choice(choice=tuple(raw["choice"])) if valid else None
    if isinstance(raw, str) and raw in METHODS:
        return raw
    problems.found(path, raw, accepted, METHODS)
    return None


def read_space(raw: Any, methods: tuple[str, ...] | None, weighted: bool, problems: Problems) -> dict[str, Domain]:
    """Read the section `space`.

    Args:
        raw: its value in the file.
        methods: the chosen methods; None when they could not be read, which skips the checks of what they use.
        weighted: whether loss.weights replaces beta and the gammas.
        problems: receives the problems.

    Returns:
        The domains that could be read, by hyperparameter.
    """
    if raw is None:
        raw = {}
    if not isinstance(raw, Mapping):
        problems.found(("space",), raw, "must be a mapping of hyperparameters")
        return {}
    entries: dict[str, Domain] = {}
    # A missing hyperparameter is not reported if the message for a misspelt one suggests it.
    suggestions = ""
    for name, value in raw.items():
        path = ("space", name)
        if name not in HYPERPARAMETERS:
            message = _unknown(name)
            suggestions += message
            problems.add(path, message)
            continue
        if weighted and name in WEIGHTED:
            problems.add(path, "is given by loss.weights, and must not be in the space as well.")
            continue
        if methods is not None and name not in (*required(methods), *OPTIMISATION):
            users = [key for key, method in METHODS.items() if name in method.hyperparameters]
            problems.add(path, f"is not used by {listed(methods)}, but only by {listed(users)}.")
        entry = read_entry(name, value, path, problems)
        if entry is not None:
            entries[name] = entry
    for name in required(methods or ()):
        if name not in raw and f"`{name}`" not in suggestions and not (weighted and name in WEIGHTED):
            users = [method for method in methods or () if name in METHODS[method].hyperparameters]
            doc, default_text = HYPERPARAMETERS[name].doc, quote_value(default(users[0], name))
            problems.add(("space", name), f"is missing, but {listed(users)} needs it: {doc}; default {default_text}.")
    _check_conditions(entries, raw, methods, problems)
    return entries


def required(methods: Sequence[str]) -> list[str]:
    """Return the own hyperparameters of the methods, in the order of `HYPERPARAMETERS`.

    Args:
        methods: names of methods, the keys of `METHODS`.
    """
    return [name for name in HYPERPARAMETERS if any(name in METHODS[method].hyperparameters for method in methods)]


def read_first(
    raw: Any,
    space: Mapping[str, Domain],
    method: str | Choice | None,
    student: StudentSpace | None,
    problems: Problems,
) -> tuple[dict[str, Any], ...]:
    """Read `search.first`, and check its values against the space.

    Args:
        raw: its value in the file.
        space: the domains by hyperparameter.
        method: the chosen method or methods; None when they could not be read.
        student: the section `student`; None when it could not be read.
        problems: receives the problems.

    Returns:
        The configurations, each value converted to the type of its hyperparameter.
    """
    if raw is None:
        return ()
    base: KeyPath = ("search", "first")
    if not isinstance(raw, list):
        problems.found(base, raw, "must be a list of configurations such as [{alpha: 0.5}]")
        return ()
    first = []
    for index, item in enumerate(raw):
        path = (*base, index)
        if not isinstance(item, Mapping) or not item:
            problems.found(path, item, "must be a mapping of hyperparameters to values such as {alpha: 0.5}")
            continue
        values = {}
        for name in item:
            if name in SHAPE:
                values[name] = None if student is None else first_value(student, name, item, (*path, name), problems)
            else:
                values[name] = _first_value(name, item, space, method, (*path, name), problems)
        first.append(values)
    return tuple(first)


def check_grid(space: Mapping[str, Domain], problems: Problems) -> None:
    """Note the domains that have no grid: ranges of floats without a step.

    Args:
        space: the domains by hyperparameter.
        problems: receives the problems.
    """
    for name, entry in space.items():
        if isinstance(entry, Range) and entry.step is None and HYPERPARAMETERS[name].kind is float:
            step = "" if entry.log else "a `step:` or "
            problems.add(("space", name), f"is a range without steps, but search.sampler is grid: give {step}a choice.")


def _first_value(
    name: str,
    item: Mapping[str, Any],
    space: Mapping[str, Domain],
    method: str | Choice | None,
    path: KeyPath,
    problems: Problems,
) -> Any:
    value = item[name]
    methods = tuple(METHODS) if method is None else method.choice if isinstance(method, Choice) else (method,)
    if name == "method":
        if value not in list(methods):
            problems.found(path, value, f"must be one of {listed(methods)}", methods)
        return value
    if name not in HYPERPARAMETERS:
        problems.add(path, _unknown(name, (*HYPERPARAMETERS, *SHAPE)))
        return None
    h = HYPERPARAMETERS[name]
    number = problems.number(path, value, h.kind, h.low, h.high, h.low_open)
    own_method = item.get("method", methods[0] if method is not None and len(methods) == 1 else None)
    if (
        isinstance(own_method, str)
        and own_method in METHODS
        and name not in OPTIMISATION
        and name not in METHODS[own_method].hyperparameters
    ):
        problems.add(path, f"is not used by {own_method}.")
    elif number is not None and name in space and not contains(space[name], number):
        problems.found(path, value, _accepted(space[name]))
    elif number is not None and name in OPTIMISATION and name not in space and number != h.default:
        problems.found(path, value, f"the space does not name it, so it is always {quote_value(h.default)}")
    return number


def _accepted(entry: Domain) -> str:
    if isinstance(entry, Fixed):
        return f"the space fixes it at {quote_value(entry.value)}"
    if isinstance(entry, Choice):
        return f"must be one of the space's {listed(entry.choice)}"
    steps = f" in steps of {quote_value(entry.step)}" if entry.step else ""
    return f"must be in the space's {quote_value(entry.low)}..{quote_value(entry.high)}{steps}"


def _unknown(name: str, known: Collection[str] = tuple(HYPERPARAMETERS)) -> str:
    if name == "gamma":
        return "unknown hyperparameter: there are `gamma_m`, `gamma_i`, `gamma_l` and `gamma_g`."
    if name == "seed":
        return "is never searched: set `search.seed`."
    if name in SHAPE:
        return f"unknown hyperparameter: set `student.{name}`."
    return f"unknown hyperparameter, must be one of {listed(known)}.{nearest(name, known)}"


def _check_conditions(
    entries: dict[str, Domain], raw: Mapping[str, Any], methods: tuple[str, ...] | None, problems: Problems
) -> None:
    for name, entry in entries.items():
        for other, values in getattr(entry, "when", {}).items():
            path = ("space", name, "when", other)
            if other == "method":
                _check_method_condition(values, methods, path, problems)
            elif other in raw and other not in entries and other in HYPERPARAMETERS:
                continue  # The problem of the other's own entry is already noted.
            elif other not in entries or isinstance(entries[other], Range):
                reason = "is a range" if other in entries else "is not in the space"
                usable = ["method", *(key for key, value in entries.items() if not isinstance(value, Range))]
                problems.add(path, f"{reason}, but must be method, a fixed value or a choice.{nearest(other, usable)}")
            else:
                _check_values(entries[other], other, values, methods, path, problems)
    for name in entries:
        if _reaches(name, name, entries, set()):
            problems.add(("space", name, "when"), f"depends on {name} itself, directly or through others.")


def _check_method_condition(
    values: tuple[Any, ...], methods: tuple[str, ...] | None, path: KeyPath, problems: Problems
) -> None:
    """Check the methods of a `when`.

    Every method can be named, so that users can change `method` alone, but at least one of them must be chosen.
    """
    wrong = [value for value in values if not isinstance(value, str) or value not in METHODS]
    for value in wrong:
        problems.found(path, value, f"must be among {listed(METHODS)}", METHODS)
    if methods is not None and not wrong and not set(values) & set(methods):
        problems.add(
            path, f"found {listed(values)}, but method is only {listed(methods)}, so the condition never holds."
        )


def _check_values(
    entry: Domain,
    name: str,
    values: tuple[Any, ...],
    methods: tuple[str, ...] | None,
    path: KeyPath,
    problems: Problems,
) -> None:
    h = HYPERPARAMETERS[name]
    possible = [entry.value] if isinstance(entry, Fixed) else list(entry.choice) if isinstance(entry, Choice) else []
    if getattr(entry, "when", {}):
        possible += [default(method, name) for method in methods or METHODS]
    for value in values:
        try:
            is_possible = as_number(value, h.kind, h.low, h.high, h.low_open) in possible
        except ValueError:
            is_possible = False
        if not is_possible:
            problems.found(path, value, f"{name} can only be {listed(dict.fromkeys(possible))}")


def _reaches(start: str, goal: str, entries: Mapping[str, Domain], seen: set[str]) -> bool:
    for other in getattr(entries.get(start), "when", {}):
        if other == goal:
            return True
        if other not in seen:
            seen.add(other)
            if _reaches(other, goal, entries, seen):
                return True
    return False
