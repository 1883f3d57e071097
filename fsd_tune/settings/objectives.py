"""What a search is to find beside the best score: `search.objectives`, `search.limits`, `search.pick` and `latency`.

The costs of a student depend on its shape alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from fsd_tune.errors import nearest
from fsd_tune.settings.fields import Section, Whole
from fsd_tune.settings.problems import Problems, listed
from fsd_tune.settings.yaml_file import KeyPath

SCORE = "score"
COSTS = ("latency_ms", "parameters", "size_mb", "flops")
OBJECTIVES = (SCORE, *COSTS)
# The samplers that can search for several objectives.
SAMPLERS = ("tpe", "random", "gp")

OBJECTIVES_TEXT = f"a list of {listed(OBJECTIVES)}, with score"
LIMITS_TEXT = f"a mapping of {listed(COSTS)} to numbers above 0, such as {{latency_ms: 8}}"
PICK_TEXT = "best, knee, fastest or {within: POINTS}, such as {within: 1.0}"
_MAX_COST = 1e18
_MAX_POINTS = 100


class Within(Section):
    """`search.pick: {within: POINTS}`: the cheapest student whose score is at most so many points below the teacher's.

    A point is a hundredth of the metric.
    """

    within: float


Pick = Literal["best", "knee", "fastest"] | Within


class Latency(Section):
    """How the latency of each shape of the student is measured."""

    runtime: Literal["onnxruntime", "torch"] = Field(
        default="onnxruntime", description="onnxruntime (on the CPU) or torch (on the device of the trials)"
    )
    threads: Whole = Field(ge=1, le=1024, default=1, description="number of threads on the CPU")
    batch_size: Whole = Field(ge=1, le=4096, default=1, description="number of examples at a time")
    length: Whole | None = Field(
        ge=2, le=100_000, default=None, description="number of tokens of each example; null: the dev split's median"
    )


def read_search_keys(search: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """Remove `objectives`, `limits` and `pick` from a section `search`, and read them.

    Args:
        search: the section as plain values, changed in place.
        problems: receives the problems.

    Returns:
        The values that could be read, by key.
    """
    readers = {"objectives": _read_objectives, "limits": _read_limits, "pick": _read_pick}
    values = {key: read(search.pop(key), problems) for key, read in readers.items() if key in search}
    return {key: value for key, value in values.items() if value is not None}


def _read_objectives(raw: Any, problems: Problems) -> tuple[str, ...] | None:
    path: KeyPath = ("search", "objectives")
    if raw is None:
        return None
    # A flag can give the names without brackets: --objectives score,latency_ms
    names = [name.strip() for name in raw.split(",")] if isinstance(raw, str) else raw
    if not isinstance(names, list) or not names:
        problems.found(path, raw, f"must be {OBJECTIVES_TEXT}")
        return None
    valid = True
    for index, name in enumerate(names):
        if not isinstance(name, str) or name not in OBJECTIVES:
            problems.found((*path, index), name, f"must be one of {listed(OBJECTIVES)}", OBJECTIVES)
            valid = False
        elif name in names[:index]:
            problems.add((*path, index), f"found {name} twice, but must be different objectives.")
            valid = False
    if valid and SCORE not in names:
        problems.add(path, f"found {listed(names)}, but must include score.")
        valid = False
    return tuple(names) if valid else None


def _read_limits(raw: Any, problems: Problems) -> dict[str, float] | None:
    path: KeyPath = ("search", "limits")
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        problems.found(path, raw, f"must be {LIMITS_TEXT}")
        return None
    limits: dict[str, float] = {}
    for name, value in raw.items():
        if name == SCORE:
            problems.add((*path, name), f"cannot have a limit, because it is no cost; must be one of {listed(COSTS)}.")
        elif name not in COSTS:
            problems.add((*path, name), f"unknown cost, must be one of {listed(COSTS)}.{nearest(name, COSTS)}")
        else:
            number = problems.number((*path, name), value, float, 0, _MAX_COST, low_open=True)
            limits |= {} if number is None else {name: number}
    return limits


def _read_pick(raw: Any, problems: Problems) -> str | Within | None:
    path: KeyPath = ("search", "pick")
    words = ("best", "knee", "fastest")
    if raw in words:
        return str(raw)
    points: Any = None
    if isinstance(raw, Mapping) and set(raw) == {"within"}:
        points, path = raw["within"], (*path, "within")
    elif isinstance(raw, str) and raw.split()[:1] == ["within"] and len(raw.split()) == 2:
        # --pick "within 1.0"
        try:
            points = float(raw.split()[1])
        except ValueError:
            points = raw.split()[1]
    elif isinstance(raw, Mapping) and raw:
        for name in raw:
            if name != "within":
                problems.add((*path, name), f"unknown key, must be within.{nearest(name, ('within',))}")
        return None
    else:
        problems.found(path, raw, f"must be {PICK_TEXT}", words if raw == "within" else (*words, "within"))
        return None
    number = problems.number(path, points, float, 0, _MAX_POINTS)
    return None if number is None else Within(within=number)


def check(search: Any, problems: Problems) -> None:
    """Note what contradicts several objectives, or limits.

    Args:
        search: the section `search`.
        problems: receives the problems.
    """
    several: Sequence[str] = search.objectives if len(search.objectives) > 1 else ()
    if several and search.sampler not in SAMPLERS:
        problems.found(
            ("search", "sampler"), search.sampler, f"must be one of {listed(SAMPLERS)} with several objectives"
        )
    if several and search.stop_when is not None:
        problems.found(("search", "stop_when"), search.stop_when, "must be null with several objectives")
    if search.limits and search.sampler == "grid":
        problems.add(
            ("search", "limits"),
            f"found limits of {listed(search.limits)}, but sampler grid runs every combination; name only the shapes "
            "that are small enough instead.",
        )
