"""The students that no other one beats in score and cost, and the one of them that `search.pick` chooses."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from fsd_tune.report import front
from fsd_tune.report.results import Results
from fsd_tune.settings.objectives import SCORE, Pick, Within
from fsd_tune.storage.layout import TrialState
from fsd_tune.storage.shape_costs import ShapeCost

LATENCY = "latency_ms"
# "The smallest within 1 point of the teacher."
POINTS = 1.0
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Member:
    """A finished trial whose student no other one beats in score and cost.

    Attributes:
        number: the number of the trial.
        cost: what its shape costs.
        score: its score.
        loses: points (hundredths of the metric) that it is below the teacher; None if the teacher's score is not known.
        folder: the name of its folder in `best/front/`.
    """

    number: int
    cost: ShapeCost
    score: float
    loses: float | None
    folder: str


@dataclass(frozen=True, eq=False)
class Front:
    """The front of a search whose space has several shapes.

    Attributes:
        axis: the cost that orders the members and that charts show.
        costs: all costs that count, `axis` first.
        members: from the cheapest to the best.
        others: the rows of the finished trials that are not members.
        chosen: the member whose student is in `best/`.
        is_fallback: whether no student is `within` the points of `search.pick`, so that the best was chosen.
        smallest: the finished trial of the smallest student within one point of the teacher; None if there is none.
    """

    axis: str
    costs: tuple[str, ...]
    members: tuple[Member, ...]
    others: pd.DataFrame
    chosen: Member
    is_fallback: bool
    smallest: Member | None


def front_costs(objectives: Sequence[str], limits: Collection[str], known: Collection[str]) -> tuple[str, ...]:
    """Return the costs that decide which students are members of the front.

    Args:
        objectives: `search.objectives`.
        limits: the costs that `search.limits` bounds.
        known: the costs that are known for every shape.

    Returns:
        The cost objectives. Without any, one cost: the first with a limit, else latency, else the number of parameters.
        Empty if that is not known.
    """
    costs = tuple(name for name in objectives if name != SCORE)
    if costs:
        return costs if set(costs) <= set(known) else ()
    return tuple(name for name in (*limits, LATENCY, "parameters") if name in known)[:1]


def front_of(results: Results, how: Pick | None = None) -> Front | None:
    """Return the front of a search; None if its space has a single shape, or if no trial has finished.

    Args:
        results: the results of the search.
        how: `search.pick`; None for that of the search's settings.
    """
    shapes = results.summary.shapes.students or []
    if len(shapes) < 2 or "shape" not in results.trials:
        return None
    search = results.settings.get("search") or {}
    known = set.intersection(*(set(shape.costs) for shape in shapes))
    costs = front_costs(search.get("objectives") or (SCORE,), search.get("limits") or {}, known)
    finished = results.trials[results.trials["state"] == TrialState.FINISHED].dropna(subset=["score", *costs])
    if not costs or finished.empty:
        return None
    points = finished[["score", *costs]].to_numpy(np.float64) * np.array([1.0] + [-1.0] * len(costs))
    is_member = front.nondominated(points) & ~pd.DataFrame(points).duplicated().to_numpy()
    members = [_member(results, row) for row in finished[is_member].sort_values([costs[0], "score"]).to_dict("records")]
    teacher = results.summary.teacher.score
    how = how or _pick_of(search.get("pick"))
    # `fastest` means the time, whatever the objectives are.
    order = [LATENCY, *costs] if how == "fastest" and LATENCY in known else [*costs]
    numbers = [member.number for member in members]
    rows = finished.set_index("number").loc[numbers]
    chosen = front.pick(rows["score"].to_numpy(np.float64), rows[order].to_numpy(np.float64), how, teacher)
    member = members[chosen]
    return Front(
        axis=costs[0],
        costs=costs,
        members=tuple(members),
        others=finished[~is_member],
        chosen=member,
        is_fallback=isinstance(how, Within) and (member.loses is None or member.loses > how.within + 100 * _ROUNDING),
        smallest=_smallest(results, finished, teacher),
    )


def chosen_trial(results: Results, how: Pick | None = None) -> "pd.Series[Any] | None":
    """Return the finished trial whose student `best/` holds; None when none has finished.

    Args:
        results: the results of the search.
        how: `search.pick`; None for that of the search's settings.
    """
    found = front_of(results, how)
    if found is None:
        return results.best
    return results.trials[results.trials["number"] == found.chosen.number].iloc[0]


def pick_words(results: Results) -> str:
    """Return what `search.pick` asks for, for a page: empty for the best score.

    Args:
        results: the results of the search.
    """
    how = _pick_of((results.settings.get("search") or {}).get("pick"))
    if isinstance(how, Within):
        return f"within {how.within:g} point{'s' * (how.within != 1)} of the teacher"
    return "" if how == "best" else how


def _pick_of(value: Any) -> Pick:
    if isinstance(value, dict):
        return Within(within=float(value["within"]))
    return cast(Pick, value or "best")


def _smallest(results: Results, finished: pd.DataFrame, teacher: float | None) -> Member | None:
    if teacher is None:
        return None
    close = finished[finished["score"] >= teacher - POINTS / 100 - _ROUNDING].sort_values(
        ["parameters", "score"], ascending=[True, False], kind="stable"
    )
    return _member(results, close.iloc[0].to_dict()) if len(close) else None


def _member(results: Results, row: dict[Any, Any]) -> Member:
    number, score, teacher = int(row["number"]), float(row["score"]), results.summary.teacher.score
    cost = next(cost for cost in results.summary.shapes.students or [] if cost.text == row["shape"])
    folder = f"trial-{number:04d}_{cost.text.replace(',', '').replace(' ', '-')}"
    return Member(number, cost, score, None if teacher is None else 100 * (teacher - score), folder)
