"""The shape of the students that a search trains: depth, initial weights and width, each fixed or a choice.

`StudentSpace` is the section `student` of the settings. Everything that builds one student takes a `Student`, which
has one value for each key, from `student_of` or `students`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from fsd_tune.settings.domains import Choice
from fsd_tune.settings.fields import Section, accepted, read_value
from fsd_tune.settings.methods import USES_FEATURES, USES_MEMORY
from fsd_tune.settings.problems import Problems, describe, listed
from fsd_tune.settings.schema import Loss, Student
from fsd_tune.settings.yaml_file import KeyPath

if TYPE_CHECKING:
    from fsd_tune.settings.loader import Settings

# The keys of the section `student` that can be `{choice: [..]}`. Configurations, the study and reports have them under
# these names.
SHAPE = ("layers", "start", "hidden_size")
RANDOM = "random"


class StudentSpace(Section):
    """The section `student`, in which each key of `SHAPE` is a value or a choice of several.

    Attributes:
        model: see `Student`, as for the following attributes.
        layers: number of layers.
        start: initial weights.
        hidden_size: hidden size, None for the teacher's; other values are for the start `random` only.
        memory_start: initial student memory.
        freeze_embeddings: do not train the embeddings.
    """

    model: str | None = None
    layers: int | Choice = 6
    start: str | Choice = "copy"
    hidden_size: int | Choice | None = None
    memory_start: str = "matched"
    freeze_embeddings: bool = False

    @property
    def choices(self) -> dict[str, Choice]:
        """The choices by key, in the order of `SHAPE`."""
        entries = {name: getattr(self, name) for name in SHAPE}
        return {name: entry for name, entry in entries.items() if isinstance(entry, Choice)}

    def possible(self, name: str) -> tuple[Any, ...]:
        """Return the values that a key can have.

        Args:
            name: a key of `SHAPE`.
        """
        entry = getattr(self, name)
        return entry.choice if isinstance(entry, Choice) else (entry,)

    def with_values(self, values: Mapping[str, Any]) -> Student:
        """Return the section of one student.

        It has the teacher's width unless it starts at random. Beside other starts, `teacher` needs no model.

        Args:
            values: the values of at least the keys that are choices.
        """
        chosen = {name: values[name] if name in self.choices else getattr(self, name) for name in SHAPE}
        if chosen["start"] != RANDOM:
            chosen["hidden_size"] = None
        if chosen["start"] == "teacher" and len(self.possible("start")) > 1:
            chosen["model"] = None
        return Student.model_validate(dict(self) | chosen)


def student_of(settings: Settings, config: Mapping[str, Any]) -> Student:
    """Return the section `student` of one configuration.

    Args:
        settings: the settings of the search or run.
        config: a flat configuration, or the searched parameters of a trial. It has the searched keys of `SHAPE`; a
            missing `hidden_size` is None.
    """
    return settings.student.with_values({"hidden_size": None, **config})


def students(settings: Settings) -> tuple[Student, ...]:
    """Return the section `student` of each shape in the space, without duplicates.

    Args:
        settings: the settings of the search or run.
    """
    space = settings.student
    shapes = itertools.product(*(space.possible(name) for name in SHAPE))
    return tuple(dict.fromkeys(space.with_values(dict(zip(SHAPE, shape, strict=True))) for shape in shapes))


def described(student: Student | StudentSpace) -> dict[str, Any]:
    """Return depth, initial weights and width as records and summaries have them.

    Args:
        student: of one student, or of a search.

    Returns:
        `layers`, `start` and, unless it is the teacher's, `hidden_size`; the list of its values for a choice.
    """
    entries = {name: getattr(student, name) for name in SHAPE}
    return {
        name: list(entry.choice) if isinstance(entry, Choice) else entry
        for name, entry in entries.items()
        if entry is not None
    }


def default_value(name: str, entry: Choice) -> Any:
    """Return the value of a choice that is nearest to the default: the default itself, else by size, else the first.

    Args:
        name: a key of `SHAPE`.
        entry: its choice.
    """
    usual = Student.model_fields[name].default
    if usual in entry.choice or name == "start":
        return usual if usual in entry.choice else entry.choice[0]
    if usual is None:  # The teacher's width, which is above all others.
        return max(entry.choice)
    return min(entry.choice, key=lambda value: abs(value - usual))


def read(raw: Mapping[str, Any], problems: Problems) -> dict[str, Choice | None]:
    """Read the keys of the section `student` that are lists of values.

    Args:
        raw: the section as the file has it.
        problems: receives the problems.

    Returns:
        The choices by key; None for one that has a problem.
    """
    return {
        name: _read_choice(name, raw[name], ("student", name), problems)
        for name in SHAPE
        if isinstance(raw.get(name), Mapping | list)
    }


def _read_choice(name: str, raw: Any, path: KeyPath, problems: Problems) -> Choice | None:
    one = accepted(Student.model_fields[name])
    if not isinstance(raw, Mapping) or "choice" not in raw:
        kind = "a range" if isinstance(raw, Mapping) and {"low", "high"} & set(raw) else describe(raw)
        problems.add(path, f"found {kind}, but must be {one}, or {{choice: [..]}} of such values.")
        return None
    unknown = [key for key in raw if key != "choice"]
    for key in unknown:
        problems.add((*path, key), "unknown key, must be choice.")
    items = raw["choice"]
    if not isinstance(items, list) or not items:
        words = "an empty list" if items == [] else describe(items)
        problems.add((*path, "choice"), f"found {words}, but must be a list of at least one value.")
        return None
    values: list[Any] = []
    valid = not unknown
    for index, item in enumerate(items):
        read = read_value(Student, name, item, problems, (*path, "choice", index))
        if not read or read[0] in values:
            valid = False
        if read and read[0] in values:
            problems.add((*path, "choice", index), f"found {_word(read[0])} twice, but must be different values.")
        values += read
    return Choice(choice=tuple(values)) if valid else None


def check(student: StudentSpace, loss: Loss | None, methods: Collection[str] | None, problems: Problems) -> None:
    """Note the problems of the shapes with each other and with other settings.

    Args:
        student: the section `student`.
        loss: the section `loss`; None if it could not be read.
        methods: the chosen methods; None if they could not be read.
        problems: receives the problems.
    """
    widths = [width for width in student.possible("hidden_size") if width is not None]
    if widths and RANDOM not in student.possible("start"):
        starts = listed(student.possible("start"))
        problems.found(("student", "hidden_size"), widths[0], f"must be null unless start is random, not {starts}")
    if loss is not None and methods is not None and USES_FEATURES & set(methods):
        _check_layers(student, loss, USES_MEMORY & set(methods), problems)


def _check_layers(student: StudentSpace, loss: Loss, memory: Collection[str], problems: Problems) -> None:
    """Check that the layer pairs exist in the shallowest student, and that all depths have the same teacher memory."""
    path: KeyPath = ("loss", "layers")
    depths = student.possible("layers")
    least = min(depths)
    if isinstance(loss.layers, str):
        if least == 1 and loss.layers != "last":
            problems.add(path, f"is {loss.layers}, but must be last for a student of one layer.")
        return
    shallowest = "" if len(depths) == 1 else ", because student.layers can be that"
    for index, (_, layer) in enumerate(loss.layers):
        if layer > least:
            problems.add((*path, index), f"found student layer {layer}, but must be in 0..{least}{shallowest}.")
    if least == 1 and len(depths) > 1 and memory:
        problems.add(
            ("student", "layers"),
            f"found 1 beside other depths, but {min(memory)} has another teacher memory for a student of one layer: "
            "must be without 1, or loss.layers last.",
        )


def first_value(student: StudentSpace, name: str, item: Mapping[str, Any], path: KeyPath, problems: Problems) -> Any:
    """Return a value of `search.first` for a key of `SHAPE`, or note that the space does not have it.

    Args:
        student: the section `student`.
        name: the key.
        item: the configuration of `search.first`.
        path: the key path of the value.
        problems: receives the problems.
    """
    read = read_value(Student, name, item[name], problems, path)
    if not read:
        return None
    if name not in student.choices and read[0] != getattr(student, name):
        problems.found(path, item[name], f"the section student fixes it at {_word(getattr(student, name))}")
    elif read[0] not in student.possible(name):
        values = listed(map(_word, student.possible(name)))
        problems.found(path, item[name], f"must be one of {values}, the choice of student.{name}")
    elif name == "hidden_size" and read[0] is not None:
        start = item.get("start", None if "start" in student.choices else student.start)
        if start != RANDOM:
            problems.found(path, item[name], "must be null unless the configuration has start: random")
    return read[0]


def _word(value: Any) -> str:
    return "null" if value is None else str(value)
