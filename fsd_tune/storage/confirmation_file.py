"""What readers of a confirmation's `summary.json` need of it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictFloat, StrictInt, StrictStr, ValidationError

Score = Annotated[StrictFloat | StrictInt, Field(allow_inf_nan=False)]


class _Figures(BaseModel):
    mean: Score | None
    deviation: Score | None
    scores: dict[str, Score]
    failed: list[StrictInt]


class _Interval(BaseModel):
    estimate: Score
    low: Score | None
    high: Score | None


class _Candidate(BaseModel):
    role: Literal["candidate"]
    label: StrictStr
    search_score: Score
    config: dict[str, Any]
    selection: _Figures


class _Baseline(BaseModel):
    role: Literal["baseline"]
    label: StrictStr
    config: dict[str, Any]
    fresh: _Figures


class _Winner(BaseModel):
    role: Literal["winner"]
    label: StrictStr
    trial: StrictInt | None
    search_score: Score
    config: dict[str, Any]
    selection: _Figures
    fresh: _Figures


class _Difference(BaseModel):
    baseline: StrictStr
    verdict: StrictStr
    interval: _Interval | None
    pairs: StrictInt
    adjusted_p: Score | None
    sequential: bool


class _Optimism(BaseModel):
    search: Score | None
    selection: Score | None
    fresh: Score | None


class _Confirmation(BaseModel):
    metric: StrictStr
    dev_examples: StrictInt
    winner: _Winner
    configurations: list[Annotated[_Winner | _Baseline | _Candidate, Field(discriminator="role")]]
    differences: list[_Difference]
    optimism: _Optimism
    selection_seeds: list[StrictInt] = Field(min_length=1)
    fresh_seeds: list[StrictInt] = Field(min_length=1)


def confirmation_problems(value: dict[str, Any]) -> list[str]:
    """Return the problems of a confirmation's summary.

    Args:
        value: the mapping that the file holds.

    Returns:
        Lines `key: problem`; empty if the summary can be used.
    """
    try:
        _Confirmation.model_validate(value)
    except ValidationError as error:
        return [f"{'.'.join(map(str, each['loc']))}: {each['msg'].lower()}" for each in error.errors()]
    return []
