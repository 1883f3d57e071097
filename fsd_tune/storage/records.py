"""Records in JSON files of this package: models that leave out damaged values, with one line for each."""

from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, ValidationError
from pydantic_core import ErrorDetails

# Seconds since 1970, or of a duration.
Seconds = Annotated[StrictFloat, Field(allow_inf_nan=False, ge=0, le=1e12)]


def _one_value(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str | None):
        raise ValueError("must be one value")
    return value


class Record(BaseModel):
    """Base class of the records. Keys that this version does not know are kept."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def from_json(cls, value: dict[str, Any], file: str) -> tuple[Self, list[str]]:
        """Return the record of a decoded file, without the values that are not accepted.

        Every field must have a default.

        Args:
            value: the mapping that the file holds.
            file: the name of the file in problems.

        Returns:
            The record, and a line for each value that was left out.
        """
        problems: list[str] = []
        while True:
            try:
                return cls.model_validate(value), problems
            except ValidationError as error:
                details = {_key(detail, value): detail for detail in reversed(error.errors())}
                problems += [_problem(file, key, detail) for key, detail in reversed(details.items())]
                value = {key: _without(part, key, details) for key, part in value.items() if (key,) not in details}


class TrialDescription(Record):
    """The `config.json` of a trial.

    Attributes:
        trial: the number of the trial.
        config: its hyperparameters, including `method`.
        generation: the generation of CMA-ES in which they were drawn.
        origin: the trial of an earlier search that had them; None if the search itself found them.
    """

    trial: Annotated[StrictInt, Field(ge=0)] | None = None
    config: dict[str, Annotated[Any, AfterValidator(_one_value)]] | None = None
    generation: StrictInt | None = None
    origin: StrictStr | None = None


class TrialEnding(Record):
    """The `trial.json` of an ended trial.

    Attributes:
        state: how the trial ended.
        reason: why it stopped or failed.
        time: when it ended, in seconds since 1970.
    """

    state: Literal["finished", "stopped", "failed"] | None = None
    reason: StrictStr | None = None
    time: Seconds | None = None


class Manifest(BaseModel):
    """The size, the checksum and the modification time in µs of each file of an artefact, and the facts of it.

    Earlier versions wrote no times.
    """

    files: dict[str, tuple[StrictInt, StrictStr] | tuple[StrictInt, StrictStr, StrictInt]]
    facts: dict[str, Any]


class Seal(BaseModel):
    """The size and the checksum of each file of a checkpoint, and the reports and steps that its run had made.

    Checkpoints of earlier versions were written at reports only and have no `step`.
    """

    files: dict[str, tuple[StrictInt, StrictStr]]
    report: Annotated[StrictInt, Field(ge=0)]
    step: Annotated[StrictInt, Field(ge=0)] = 0


def _key(detail: ErrorDetails, value: dict[str, Any]) -> tuple[str, ...]:
    """Return the key of an error, or its two keys if the error is in a part."""
    first, *rest = (str(part) for part in detail["loc"])
    part = value.get(first)
    return (first, rest[0]) if rest and isinstance(part, dict) and rest[0] in part else (first,)


def _without(part: Any, key: str, details: Collection[tuple[str, ...]]) -> Any:
    """Return a part of a record without the keys that are wrong."""
    return (
        {name: value for name, value in part.items() if (key, name) not in details} if isinstance(part, dict) else part
    )


def _problem(file: str, key: tuple[str, ...], detail: ErrorDetails) -> str:
    requirement = detail["msg"].replace("Input should be", "but must be").replace("Value error,", "but")
    found = str(detail["input"])
    return f"{file}: {'.'.join(key)}: found `{found if len(found) <= 60 else found[:57] + '...'}`, {requirement}."
