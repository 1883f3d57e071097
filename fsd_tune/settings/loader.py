"""Load settings from YAML, flags and Python values, and dump them.

Each section is checked first, then the rules that span sections. One error message lists all problems.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from fsd_tune.errors import InputError, nearest
from fsd_tune.settings import comparing, objectives, published, shapes, yaml_file
from fsd_tune.settings.domains import Choice, Domain, Fixed, Range
from fsd_tune.settings.fields import note_errors
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS
from fsd_tune.settings.normalise import apply_overrides, copy_plain, is_off, normalise
from fsd_tune.settings.objectives import Latency
from fsd_tune.settings.overrides import flag_of, flags, parse_flags
from fsd_tune.settings.problems import Problems, describe, listed
from fsd_tune.settings.retired import as_stored, note_retired
from fsd_tune.settings.schema import (
    SECTIONS,
    Asha,
    Data,
    Loss,
    Memory,
    Optimizer,
    Precision,
    Resources,
)
from fsd_tune.settings.search_section import Search
from fsd_tune.settings.shapes import StudentSpace
from fsd_tune.settings.space import WEIGHTED, check_grid, read_first, read_method, read_space
from fsd_tune.settings.wandb_section import Wandb
from fsd_tune.settings.yaml_file import KeyPath

__all__ = ["Choice", "Domain", "Fixed", "Range", "Settings", "dump", "flags", "load", "parse_flags"]


class Settings(BaseModel):
    """The settings of a search or a single distillation, created and checked by `load` or `from_dict`.

    Attributes:
        method: the method, or a choice of several.
        space: the domain of each hyperparameter of the methods, and of those of optimisation that the file names; the
            others have their defaults.
        published: False, True or the name of a published script, whose settings were filled in.
        student: the section `student`, whose keys of `shapes.SHAPE` can be choices; the following attributes are
            sections, too.
        data: examples.
        loss: structure terms.
        optimizer: the steps of the optimiser.
        memory: the teacher memory.
        search: trials, sampler and judging.
        asha: early stopping; None when it is off.
        latency: the measurement of latencies.
        precision: auto, float32 or bf16.
        resources: the resources of a trial.
        wandb: tracking.

    Example:
        >>> settings = Settings.from_dict({"method": "kd", "space": {"alpha": {"low": 0.1, "high": 0.9}}})
        >>> settings.method, settings.student.layers, settings.space["alpha"].high
        ('kd', 6, 0.9)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    method: str | Choice
    space: dict[str, Domain]
    published: bool | str = False
    student: StudentSpace = StudentSpace()
    data: Data = Data()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    memory: Memory = Memory()
    search: Search = Search()
    asha: Asha | None = Asha()
    latency: Latency = Latency()
    precision: Precision = "auto"
    resources: Resources = Resources()
    wandb: Wandb = Wandb()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Return settings from plain Python values, which have the form of a settings file.

        The method's own hyperparameters that `values` does not name have their defaults.

        Args:
            values: keys and values of a settings file: text, numbers, booleans, None, lists and mappings.

        Raises:
            InputError: there is a problem. The error lists all of them, each as `dotted.key: ...`.

        Example:
            >>> settings = Settings.from_dict({"method": "kd", "space": {"alpha": 0.3}, "search": {"trials": 20}})
            >>> settings.search.trials
            20
        """
        issues: list[yaml_file.Issue] = []
        data = copy_plain(values, (), issues)
        if not isinstance(data, dict):
            raise InputError(f"found {describe(values)}, but must be a mapping of settings such as {{method: kd}}.")
        return _build(data, {}, Problems("", {}, issues, {}), complete=True)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that trials may use."""
        return self.method.choice if isinstance(self.method, Choice) else (self.method,)


def load(
    path: Path | str | None,
    overrides: Mapping[str, Any] | None = None,
    places: Mapping[str, str] | None = None,
    stored: bool = False,
) -> Settings:
    """Return the settings of a YAML file.

    Args:
        path: the file. If None, every setting has its default, including the method's own hyperparameters, and
            `overrides` must contain the method.
        overrides: {dotted key: value}, which replace the file's. A text value, as `parse_flags` returns it, is
            parsed as YAML; any other is used unchanged.
        places: {dotted key: place}, the places to report for overrides that do not come from a flag.
        stored: the file is a search's own `settings.yaml`, which an earlier version may have written: see
            `retired.as_stored`.

    Raises:
        InputError: there is a problem. The error lists all of them: those of the file as `file:line: key: ...`, those
            of an override as `--flag: ...`, or as `place: ...` if `places` has its key.

    Example:
        >>> import fsd_tune as fsd
        >>> settings = fsd.load_settings(None, {"method": "kd", "search.trials": 20})
        >>> settings.search.trials, settings.space["temperature"]
        (20, Fixed(value=5.0))
    """
    document = yaml_file.Document({}, {}, []) if path is None else yaml_file.read_yaml(path)
    data = as_stored(document.data) if stored else document.data
    overrides, places = overrides or {}, places or {}
    override_places: dict[KeyPath, str] = {tuple(key.split(".")): places.get(key) or flag_of(key) for key in overrides}
    if path is None:
        override_places.setdefault(("method",), "--method")
    file = "" if path is None else str(path)
    problems = Problems(file, document.lines, document.issues, override_places)
    return _build(data, overrides, problems, complete=path is None)


def load_section(name: str, values: Mapping[str, Any], places: Mapping[str, str]) -> Any:
    """Return one section of the settings from plain values, for verbs without a settings file.

    Args:
        name: the section.
        values: values by key.
        places: the place of each key, such as its flag, for errors.

    Raises:
        InputError: values are not accepted.
    """
    problems = Problems("", {}, [], {(name, key): place for key, place in places.items()})
    section = _section(name, values, problems)
    problems.raise_any()
    return section


def _build(data: dict[str, Any], overrides: Mapping[str, Any], problems: Problems, complete: bool) -> Settings:
    """Return settings from the data with the overrides applied.

    With `complete`, the method's own hyperparameters get their defaults.
    """
    file_method = data.get("method")
    note_retired(data, problems)
    apply_overrides(data, overrides, problems)
    method = None
    if "method" in data:
        method = read_method(data["method"], problems)
    else:
        problems.add(("method",), f"is missing, must be one of {listed(METHODS)}.")
    methods = method.choice if isinstance(method, Choice) else None if method is None else (method,)
    normalise(data, methods, overrides, file_method, complete)

    raw_search = data["search"] if isinstance(data.get("search"), dict) else {}
    first = raw_search.pop("first", None)
    search_keys = objectives.read_search_keys(raw_search, problems)
    sections = {name: _section(name, data.get(name), problems) for name in SECTIONS if not is_off(name, data)}
    space = read_space(data.get("space"), methods, _weighted(data, methods, problems), problems)
    search_keys["first"] = read_first(first, space, method, sections["student"], problems)
    if sections["search"] is not None:
        sections["search"] = sections["search"].model_copy(update=search_keys)
    _check_unknown(data, problems)
    _check_sections(sections, methods, problems)
    if sections["search"] is not None and sections["search"].sampler == "grid":
        check_grid(space, problems)
    precision = "auto" if data.get("precision") is None else data["precision"]
    if precision not in get_args(Precision):
        problems.found(("precision",), precision, f"must be one of {listed(get_args(Precision))}", get_args(Precision))
    published_as = published.read(data.get("published"), methods, sections, problems)
    problems.raise_any()

    loss, search = sections["loss"], sections["search"]
    assert method is not None and isinstance(loss, Loss) and isinstance(search, Search)
    if loss.weights is not None:
        space |= {name: Fixed(value=value) for name, value in loss.weights.hyperparameters().items()}
    chosen = method.choice if isinstance(method, Choice) else (method,)
    sections["search"] = comparing.resolved(search, chosen)
    values: dict[str, Any] = {"asha": None, **sections, "precision": precision, "published": published_as}
    return Settings(method=method, space=space, **values)


def dump(settings: Settings) -> str:
    """Return all settings as YAML, including defaults. `load` reads it back to equal settings.

    Args:
        settings: the settings to write.
    """
    data: dict[str, Any] = {"method": _plain(settings.method), "published": settings.published}
    weighted = settings.loss.weights is not None
    data["space"] = {
        name: _plain(entry) for name, entry in settings.space.items() if not (weighted and name in WEIGHTED)
    }
    for name in (*SECTIONS, "precision"):
        value = getattr(settings, name)
        data[name] = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    data["asha"] = data["asha"] or "off"
    data["student"] |= {name: _plain(entry) for name, entry in settings.student.choices.items()}
    for section, key in (("loss", "weights"), ("search", "select_on"), ("search", "limits"), ("search", "pick")):
        if isinstance(data[section][key], dict):
            data[section][key] = yaml_file.Flow(data[section][key])
    return yaml_file.dump(data)


def _plain(entry: str | Domain) -> Any:
    """Return a method or a domain in the form of a settings file, without keys that have their defaults."""
    if isinstance(entry, str):
        return entry
    if isinstance(entry, Fixed):
        return entry.value
    return yaml_file.Flow(entry.model_dump(mode="json", exclude_defaults=True))


def _section(name: str, raw: Any, problems: Problems) -> Any:
    """Return a section, or None after noting problems. An empty section gets its defaults."""
    model = SECTIONS[name]
    if raw is None or (name == "asha" and (raw == "on" or raw is True)):
        raw = {}
    if not isinstance(raw, Mapping):
        words = "off, or " if name == "asha" else ""
        problems.found((name,), raw, f"must be {words}a mapping of {listed(model.model_fields)}")
        return None
    choices = shapes.read(raw, problems) if name == "student" else {}
    try:
        section = model.model_validate({key: value for key, value in raw.items() if key not in choices})
    except ValidationError as error:
        note_errors(error, model, problems, (name,))
        return None
    if name != "student":
        return section
    return None if None in choices.values() else StudentSpace.model_validate(dict(section) | choices)


def _weighted(data: Mapping[str, Any], methods: tuple[str, ...] | None, problems: Problems) -> bool:
    """Return whether loss.weights is given, and note a problem if the method has no such weights."""
    loss = data.get("loss")
    if not isinstance(loss, Mapping) or loss.get("weights") is None:
        return False
    if methods is not None and methods != ("fsd_ilg",):
        problems.add(("loss", "weights"), f"is for method fsd_ilg only, but method is {listed(methods)}.")
    return True


def _check_unknown(data: Mapping[str, Any], problems: Problems) -> None:
    names = list(Settings.model_fields)
    for key in data:
        if key in names:
            continue
        hint = f" Did you mean `space.{key}`?" if key in HYPERPARAMETERS else nearest(key, names)
        sections = [section for section, model in SECTIONS.items() if key in model.model_fields]
        if not hint and sections:
            hint = f" Did you mean `{sections[0]}.{key}`?"
        problems.add((key,), f"unknown key, must be one of {listed(names)}.{hint}")


def _check_sections(sections: Mapping[str, Any], methods: tuple[str, ...] | None, problems: Problems) -> None:
    """Check the rules that span several keys."""
    asha = sections.get("asha")
    if sections["student"] is not None:
        shapes.check(sections["student"], sections["loss"], methods, problems)
    data = sections["data"]
    if data is not None and data.padding == "published" and data.batching != "random":
        problems.found(("data", "batching"), data.batching, "must be random if padding is published")
    if asha is not None and asha.grace > asha.reports:
        problems.found(("asha", "grace"), asha.grace, f"must be in 1..{asha.reports}, the number of reports")
    if sections["search"] is not None:
        objectives.check(sections["search"], problems)
        if methods is not None:
            comparing.check(sections["search"], methods, problems)
