"""YAML and flags to frozen settings, and back; every problem of a file is found at once.

`load` reads, overrides, checks each section by itself and then what spans sections, so that a mistake in one section
hides none in another.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from fsd_tune.errors import nearest
from fsd_tune.settings import yaml_file
from fsd_tune.settings.domains import Choice, Domain, Fixed, Range
from fsd_tune.settings.fields import note_errors
from fsd_tune.settings.methods import HYPERPARAMETERS, METHODS, USES_FEATURES, default
from fsd_tune.settings.overrides import flag_of, flags, parse_flags
from fsd_tune.settings.problems import Problems, listed
from fsd_tune.settings.schema import SECTIONS, Asha, Data, Loss, Memory, Precision, Resources, Search, Student, Wandb
from fsd_tune.settings.space import WEIGHTED, check_grid, read_first, read_method, read_space, required
from fsd_tune.settings.yaml_file import KeyPath

__all__ = ["Choice", "Domain", "Fixed", "Range", "Settings", "dump", "flags", "load", "parse_flags"]


class Settings(BaseModel):
    """Everything that a search or a single distillation needs to know; made by `load`, which checks it.

    `space` has an entry for each of the methods' own hyperparameters and those optimisation ones that the file
    names; the others have their defaults. `asha` is None when it is off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    method: str | Choice
    space: dict[str, Domain]
    student: Student = Student()
    data: Data = Data()
    loss: Loss = Loss()
    memory: Memory = Memory()
    search: Search = Search()
    asha: Asha | None = Asha()
    precision: Precision = "auto"
    resources: Resources = Resources()
    wandb: Wandb = Wandb()

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that trials may use."""
        return self.method.choice if isinstance(self.method, Choice) else (self.method,)


def load(
    path: Path | str | None, overrides: Mapping[str, str] | None = None, places: Mapping[str, str] | None = None
) -> Settings:
    """The settings of a YAML file with `overrides` ({dotted key: YAML text}, as `parse_flags` gives them) in place.

    Without a file (None) everything has its default, also the method's own hyperparameters; only the method must be
    among the overrides. Raises InputError with all problems: a file's as `file:line: key: ...`, an override's as
    `--flag: ...`, or where `places` names one for its key as `place: ...`.
    """
    document = yaml_file.Document({}, {}, []) if path is None else yaml_file.read(path)
    overrides = overrides or {}
    flag_paths: dict[KeyPath, str] = {
        tuple(key.split(".")): (places or {}).get(key) or flag_of(key) for key in overrides
    }
    if path is None:
        flag_paths.setdefault(("method",), "--method")
    problems = Problems("" if path is None else str(path), document.lines, document.issues, flag_paths)
    data = document.data
    written = data.get("method")
    _override(data, overrides, problems)

    method = None
    if "method" in data:
        method = read_method(data["method"], problems)
    else:
        problems.add(("method",), f"is missing, must be one of {listed(METHODS)}.")
    methods = method.choice if isinstance(method, Choice) else None if method is None else (method,)

    if path is None and methods is not None:
        _fill_space(data, methods)
    if "method" in overrides and methods is not None:
        _leave_out_other_methods(data, written, methods, given=set(overrides))
    _leave_out_of_first(data, overrides)
    _imply_published(data)
    first = data["search"].pop("first", None) if isinstance(data.get("search"), dict) else None
    sections = {name: _section(name, data.get(name), problems) for name in SECTIONS if not _off(name, data)}
    weighted = _weighted(data, methods, problems)
    space = read_space(data.get("space"), methods, weighted, problems)
    first = read_first(first, space, method, problems)
    _check_unknown(data, problems)
    _check_sections(sections, methods, problems)
    if sections["search"] is not None and sections["search"].sampler == "grid":
        check_grid(space, problems)
    precision = "auto" if data.get("precision") is None else data["precision"]
    if precision not in get_args(Precision):
        problems.found(("precision",), precision, f"must be one of {listed(get_args(Precision))}", get_args(Precision))
    problems.raise_any()

    loss, search = sections["loss"], sections["search"]
    assert method is not None and isinstance(loss, Loss) and isinstance(search, Search)
    if loss.weights is not None:
        space |= {name: Fixed(value=value) for name, value in loss.weights.hyperparameters().items()}
    sections["search"] = search.model_copy(update={"first": first})
    return Settings(method=method, space=space, precision=precision, **{"asha": None, **sections})  # type: ignore[arg-type]


def dump(settings: Settings) -> str:
    """All settings as YAML text, defaults included, which `load` reads back to equal settings."""
    data: dict[str, Any] = {"method": _plain(settings.method)}
    weighted = settings.loss.weights is not None
    data["space"] = {
        name: _plain(entry) for name, entry in settings.space.items() if not (weighted and name in WEIGHTED)
    }
    for name in (*SECTIONS, "precision"):
        value = getattr(settings, name)
        data[name] = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    data["asha"] = data["asha"] or "off"
    for section, key in (("loss", "weights"), ("search", "select_on")):
        if isinstance(data[section][key], dict):
            data[section][key] = yaml_file.Flow(data[section][key])
    return yaml_file.dump(data)


def _plain(entry: str | Domain) -> Any:
    """A method or space entry as a file has it: what is not set is left out."""
    if isinstance(entry, str):
        return entry
    if isinstance(entry, Fixed):
        return entry.value
    return yaml_file.Flow(entry.model_dump(mode="json", exclude_defaults=True))


def _override(data: dict[str, Any], overrides: Mapping[str, str], problems: Problems) -> None:
    """Puts the overrides into `data`; what cannot be read is noted and left out."""
    known = {key for _, key, _ in flags()}
    # A whole section (`asha: off`) comes before its keys.
    for key, text in sorted(overrides.items(), key=lambda item: item[0].count(".")):
        path = tuple(key.split("."))
        if key not in known:
            problems.unusable(path, f"unknown key.{nearest(key, known)}")
            continue
        try:
            value = yaml_file.parse_value(text)
        except ValueError as error:
            problems.unusable(path, str(error))
            continue
        section = path[0]
        if len(path) == 1:
            data[key] = value
        elif _off(section, data):
            problems.add(path, "asha is off, so that this says nothing.")
        elif isinstance(data.get(section), dict):
            data[section][path[1]] = value
        elif data.get(section) is None or data[section] is True or data[section] == "on":
            data[section] = {path[1]: value}


def _off(name: str, data: Mapping[str, Any]) -> bool:
    return name == "asha" and (data.get("asha") == "off" or data.get("asha") is False)


def _fill_space(data: dict[str, Any], methods: tuple[str, ...]) -> None:
    weighted = isinstance(data.get("loss"), dict) and data["loss"].get("weights") is not None
    space = data.setdefault("space", {})
    for name in required(methods):
        if not (weighted and name in WEIGHTED):
            space.setdefault(name, default(methods[0], name))


def _imply_published(data: dict[str, Any]) -> None:
    """`data.padding: published` means the published choices wherever the file does not say otherwise."""
    if not isinstance(data.get("data"), dict) or data["data"].get("padding") != "published":
        return
    for section, key, value in (("loss", "distance", "raw"), ("student", "memory_start", "published")):
        if data.get(section) is None:
            data[section] = {}
        if isinstance(data[section], dict):
            data[section].setdefault(key, value)


def _leave_out_other_methods(data: dict[str, Any], written: Any, methods: tuple[str, ...], given: set[str]) -> None:
    """What a file says for its own other methods is no mistake when a flag chooses among them."""
    names = written.get("choice") if isinstance(written, dict) else [written]
    known = [name for name in names if name in METHODS] if isinstance(names, list) else []
    unused = {name for name in required(known) if name not in required(methods) and f"space.{name}" not in given}
    space, search = data.get("space"), data.get("search")
    if isinstance(space, dict):
        data["space"] = _without(space, unused)
    if isinstance(search, dict) and isinstance(search.get("first"), list):
        search["first"] = [
            _without(item, unused) if isinstance(item, dict) else item
            for item in search["first"]
            if not isinstance(item, dict) or item.get("method") in (None, *methods)
        ]


def _leave_out_of_first(data: dict[str, Any], overrides: Mapping[str, str]) -> None:
    """What a flag fixes is fixed in the file's first configurations, too."""
    search, space = data.get("search"), data.get("space")
    if not isinstance(search, dict) or not isinstance(search.get("first"), list) or not isinstance(space, dict):
        return
    fixed = {name for name, entry in space.items() if f"space.{name}" in overrides and not isinstance(entry, dict)}
    if fixed and "search.first" not in overrides:
        left = [_without(item, fixed) if isinstance(item, dict) else item for item in search["first"]]
        search["first"] = [item for item in left if item != {}]


def _without(mapping: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def _section(name: str, raw: Any, problems: Problems) -> Any:
    """The section, or None with the problems noted. A key without anything below it means its defaults."""
    model = SECTIONS[name]
    if raw is None or (name == "asha" and (raw == "on" or raw is True)):
        raw = {}
    if not isinstance(raw, Mapping):
        words = "off, or " if name == "asha" else ""
        problems.found((name,), raw, f"must be {words}a mapping of {listed(model.model_fields)}")
        return None
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        note_errors(error, model, problems, (name,))
        return None


def _weighted(data: Mapping[str, Any], methods: tuple[str, ...] | None, problems: Problems) -> bool:
    """Whether loss.weights stands for beta and the gammas (rightly or wrongly)."""
    loss = data.get("loss")
    if not isinstance(loss, Mapping) or loss.get("weights") is None:
        return False
    if methods is not None and methods != ("fsd_ilg",):
        problems.add(("loss", "weights"), f"is for method fsd_ilg alone, but method is {listed(methods)}.")
    return True


def _check_unknown(data: Mapping[str, Any], problems: Problems) -> None:
    names = list(Settings.model_fields)
    for key in data:
        if key in names:
            continue
        hint = f" Did you mean `space.{key}`?" if key in HYPERPARAMETERS else nearest(key, names)
        homes = [section for section, model in SECTIONS.items() if key in model.model_fields]
        if not hint and homes:
            hint = f" Did you mean `{homes[0]}.{key}`?"
        problems.add((key,), f"unknown key, must be one of {listed(names)}.{hint}")


def _check_sections(sections: Mapping[str, Any], methods: tuple[str, ...] | None, problems: Problems) -> None:
    """What spans several keys."""
    student, loss, asha = sections["student"], sections["loss"], sections.get("asha")
    if student is not None and student.hidden_size is not None and student.start != "random":
        problems.found(
            ("student", "hidden_size"), student.hidden_size, f"must be null unless start is random, not {student.start}"
        )
    if asha is not None and asha.grace > asha.reports:
        problems.found(("asha", "grace"), asha.grace, f"must be in 1..{asha.reports}, the number of reports")
    if student is None or loss is None or methods is None or not USES_FEATURES & set(methods):
        return
    path = ("loss", "layers")
    if isinstance(loss.layers, str):
        if student.layers == 1 and loss.layers != "last":
            problems.add(path, f"is {loss.layers}, but must be last for a student of one layer.")
        return
    for index, (_, layer) in enumerate(loss.layers):
        if layer > student.layers:
            problems.add((*path, index), f"found student layer {layer}, but must be in 0..{student.layers}.")
