"""Field types that the models of YAML files share, and pydantic's errors as messages of this package."""

import os
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from fsd_tune.errors import nearest
from fsd_tune.settings.problems import Problems, as_number, listed, span
from fsd_tune.settings.yaml_file import KeyPath

_NUMBER_ERRORS = ("int_", "float_", "greater_than", "less_than", "finite_number")


class Section(BaseModel):
    """Base class of the sections: frozen, without unknown keys or conversions between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


@dataclass(frozen=True)
class Accepted:
    """An annotation that says what a field accepts, if its type and range do not say it."""

    text: str


@dataclass(frozen=True)
class Reason:
    """An annotation that gives the reason for the ends of a field's range."""

    text: str


class Bounds(NamedTuple):
    """The accepted numbers of a field, as `as_number` takes them."""

    kind: type
    low: float
    high: float
    low_open: bool


def _read_whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_text(value: Any) -> str:
    """Return a value that is text.

    Args:
        value: the value.

    Raises:
        ValueError: it is not text, or empty.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text (put quotes around a number that is meant as text)")
    return value


def _read_truth(value: Any) -> bool:
    if value in ("yes", "on", "no", "off"):
        return value in ("yes", "on")
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


# A range is part of each field: `Field(ge=..., le=...)` or `Field(gt=..., le=...)`.
Whole = Annotated[int, BeforeValidator(_read_whole)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, BeforeValidator(read_text), Accepted("text")]
# A path or hub id, with `~` expanded.
Place = Annotated[Text, AfterValidator(os.path.expanduser)]
Truth = Annotated[bool, BeforeValidator(_read_truth), Accepted("true or false")]


def note_errors(error: ValidationError, model: type[BaseModel], problems: Problems, path: KeyPath = ()) -> None:
    """Note the errors that pydantic found in a mapping.

    Args:
        error: the error.
        model: the model that the mapping was validated against.
        problems: receives the problems.
        path: the key path of the mapping.
    """
    for each in error.errors(include_url=False):
        _note_error(each, model, problems, path)


def read_value(model: type[BaseModel], name: str, raw: Any, problems: Problems, path: KeyPath) -> list[Any]:
    """Return the checked value of one field in a list, or an empty list after noting a problem.

    Args:
        model: a model whose other fields have defaults.
        name: the field.
        raw: the value in the file.
        problems: receives the problem.
        path: the key path of the value.
    """
    try:
        return [getattr(model.model_validate({name: raw}), name)]
    except ValidationError as error:
        for each in error.errors(include_url=False):
            _note_value(each, model.model_fields[name], problems, path)
        return []


def bounds(field: FieldInfo) -> Bounds:
    """Return the range of a field that holds a number.

    A field of several types, such as `Whole | None`, has its range in its own metadata.

    Args:
        field: a field that pydantic limits with `ge` or `gt` and with `le`.
    """
    kind = int if int in types_of(field.annotation) else float
    above = [each.gt for each in field.metadata if isinstance(each, Gt)]
    least = [each.ge for each in field.metadata if isinstance(each, Ge)]
    most = [each.le for each in field.metadata if isinstance(each, Le)]
    low: Any = (above or least)[0]
    high: Any = most[0]
    return Bounds(kind, low, high, low_open=bool(above))


def accepted(field: FieldInfo) -> str:
    """Return what a field accepts, in words.

    Args:
        field: a field of a model of a YAML file.

    Returns:
        A phrase for messages, such as `a number from 0 to 1, or null`.
    """
    options = list(types_of(field.annotation))
    phrase = next((each.text for each in (*field.metadata, *options) if isinstance(each, Accepted)), "")
    if not phrase:
        model = next((each for each in options if isinstance(each, type) and issubclass(each, BaseModel)), None)
        if model is not None:
            phrase = f"a mapping of {listed(model.model_fields)}"
        elif any(isinstance(each, Le) for each in field.metadata):
            phrase = span(*bounds(field))
        else:
            names = words(field.annotation)
            assert names, f"nothing says what {field} accepts: annotate it with Accepted"
            phrase = f"one of {listed(names)}"
    return f"{phrase}, or null" if type(None) in options else phrase


def words(annotation: Any) -> tuple[str, ...]:
    """Return the words of a Literal, which may be part of a union with None.

    Args:
        annotation: the type of a field.

    Returns:
        The words in the order of the Literal, empty if there is none.
    """
    return next((get_args(each) for each in (annotation, *get_args(annotation)) if get_origin(each) is Literal), ())


def types_of(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union one by one, and the annotations on them.

    Args:
        annotation: the type of a field, such as `int | None`; any other type is yielded unchanged.
    """
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        for part in get_args(annotation):
            yield from types_of(part)
    else:
        yield annotation


def _note_error(error: Mapping[str, Any], model: type[BaseModel], problems: Problems, path: KeyPath) -> None:
    keys = error["loc"]
    kind = error["type"]
    path = (*path, *error["loc"])
    if kind == "extra_forbidden":
        names = _model_at(model, keys[:-1]).model_fields
        problems.add(path, f"unknown key, must be one of {listed(names)}.{nearest(keys[-1], names)}")
    elif kind in ("model_type", "model_attributes_type"):
        names = _model_at(model, keys).model_fields
        problems.found(path, error["input"], f"must be a mapping of {listed(names)}")
    else:
        _note_value(error, _model_at(model, keys[:-1]).model_fields[keys[-1]], problems, path)


def _note_value(error: Mapping[str, Any], field: FieldInfo, problems: Problems, path: KeyPath) -> None:
    kind = error["type"]
    if kind == "missing":
        problems.add(path, f"is missing: {field.description}.")
    elif kind == "literal_error":
        names = words(field.annotation)
        problems.found(path, error["input"], f"must be one of {listed(names)}", names)
    elif kind == "value_error":
        problems.found(path, error["input"], str(error["ctx"]["error"]))
    else:
        assert kind.startswith(_NUMBER_ERRORS), error
        reason = next((f": {each.text}" for each in field.metadata if isinstance(each, Reason)), "")
        try:
            as_number(error["input"], *bounds(field))
        except ValueError as number_error:
            problems.found(path, error["input"], f"{number_error}{reason}")
        else:
            raise AssertionError(error)


def _model_at(model: type[BaseModel], keys: tuple[Any, ...]) -> type[BaseModel]:
    for key in keys:
        options = types_of(model.model_fields[key].annotation)
        model = next(each for each in options if isinstance(each, type) and issubclass(each, BaseModel))
    return model
