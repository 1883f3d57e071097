"""The section `search` of a settings file."""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fsd_tune.settings.fields import Accepted, Number, Section, Whole
from fsd_tune.settings.objectives import LIMITS_TEXT, OBJECTIVES_TEXT, PICK_TEXT, Pick
from fsd_tune.settings.problems import as_number

_DURATION = re.compile(r"(?:(\d{1,5})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?")
_DURATIONS = "a duration such as 2h, 30m, 1h30m or 90s"
_FIRST = "a list of configurations such as [{alpha: 0.5}]"
_WARM_FROM = "auto, off, or folders of earlier searches such as [runs/cola, runs/mrpc]"
_SELECT_ON = "dev or {holdout: share of the training split, above 0 and at most 0.5}"
MAX_SEED = 2**32 - 1  # NumPy accepts no larger seed.


def _read_select_on(value: Any) -> Any:
    if value == "dev" or isinstance(value, Holdout):
        return value
    if not isinstance(value, Mapping) or set(value) != {"holdout"}:
        raise ValueError(f"must be {_SELECT_ON}")
    try:
        return Holdout(holdout=as_number(value["holdout"], float, 0, 0.5, low_open=True))
    except ValueError:
        raise ValueError(f"must be {_SELECT_ON}") from None


def _read_warm_from(value: Any) -> Any:
    if value in ("auto", "off"):
        return value
    # A flag can give several folders without brackets: --warm-from runs/cola,runs/mrpc
    folders = value.split(",") if isinstance(value, str) else value
    if not isinstance(folders, list | tuple) or not folders:
        raise ValueError(f"must be {_WARM_FROM}")
    if not all(isinstance(folder, str) and folder.strip() for folder in folders):
        raise ValueError(f"must be {_WARM_FROM}")
    paths = tuple(map(os.path.expanduser, map(str.strip, folders)))
    if len(set(paths)) < len(paths):
        raise ValueError("must be a list of different folders")
    return paths


def seconds(duration: str) -> int:
    """Return the seconds of a duration such as 2h, 30m, 1h30m or 90s.

    Args:
        duration: hours, minutes and seconds in this order; any of them can be left out.

    Raises:
        ValueError: the text is not a duration, or the duration is zero.
    """
    match = _DURATION.fullmatch(duration)
    hours, minutes, rest = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + rest
    if total == 0:
        raise ValueError(f"must be {_DURATIONS}")
    return total


def _read_duration(value: Any) -> Any:
    if value is not None:
        seconds(value if isinstance(value, str) else "")
    return value


class Holdout(Section):
    """Selection on a share of the training split that is held out."""

    holdout: float


class Search(Section):
    """The search: its trials, its sampler and the scoring of trials."""

    trials: Whole = Field(ge=1, le=10**6, default=64, description="number of trials")
    seed: Whole = Field(
        ge=0,
        le=MAX_SEED,
        default=0,
        description="seed of the sampler, the batch order and the initialisation",
    )
    sampler: Literal["tpe", "random", "grid", "cmaes", "gp"] = Field(
        default="tpe",
        description="sampler of configurations: tpe (with more than six hyperparameters, two of three early "
        "suggestions are random), random, grid (all combinations of choices and stepped ranges), "
        "cmaes (tpe for choices and conditional parameters) or gp (Gaussian process)",
    )
    objectives: Annotated[tuple[str, ...], Accepted(OBJECTIVES_TEXT)] = Field(
        default=("score",),
        description="what trials are judged by: the score alone, or the score and costs of the student, which are "
        "minimised",
    )
    limits: Annotated[dict[str, float], Accepted(LIMITS_TEXT)] = Field(
        default={}, description="highest costs of a student; shapes that cost more are not trained"
    )
    pick: Annotated[Pick, Accepted(PICK_TEXT)] = Field(
        default="best",
        description="student to keep as the best: best (highest score), knee (best trade of score and cost), fastest, "
        "or {within: POINTS}, the cheapest one at most so many points below the teacher",
    )
    compare_methods: Literal["equal", "best_overall"] | None = Field(
        default=None,
        description="if method is a choice: equal (each method gets the same number of reports) or best_overall (the "
        "sampler spends freely); null: equal, but best_overall with a grid",
    )
    first: Annotated[tuple[dict[str, Any], ...], Accepted(_FIRST)] = Field(
        default=(), description="configurations to try first, after the defaults"
    )
    warm_from: Annotated[
        Literal["auto", "off"] | tuple[str, ...], BeforeValidator(_read_warm_from), Accepted(_WARM_FROM)
    ] = Field(
        default="auto",
        description="earlier searches whose best configurations are tried after those of first: folders, off, or auto "
        "(of a command with several tasks, the tasks before)",
    )
    select_on: Annotated[Literal["dev"] | Holdout, BeforeValidator(_read_select_on), Accepted(_SELECT_ON)] = Field(
        default="dev",
        description="examples that trials are judged on: dev, or {holdout: 0.1}, a share of the training split",
    )
    time_budget: Annotated[str | None, BeforeValidator(_read_duration), Accepted(_DURATIONS)] = Field(
        default=None,
        description="end the search after this time, and train its best trial to its end: 2h, 30m, 1h30m, 90s; null: "
        "no limit",
    )

    stop_after_stalled: Whole | None = Field(
        ge=1,
        le=10**9,
        default=None,
        description="start no new trials after N trials without a better finished one; null: no limit",
    )
    stop_when: Literal["noise"] | None = Field(
        default=None,
        description="noise: start no new trials once a better configuration would gain less than the standard error of "
        "a score; null: go on",
    )
    price_per_hour: Number | None = Field(
        gt=0,
        le=10**6,
        default=None,
        description="price of an hour of all machines of the search, for the cost in its report; null: no cost",
    )

    @property
    def time_budget_seconds(self) -> int | None:
        """The time budget in seconds, or None."""
        return None if self.time_budget is None else seconds(self.time_budget)
