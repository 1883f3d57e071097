"""The members of a front as tables: for a page, a terminal and `--json`."""

from dataclasses import asdict, dataclass
from typing import Any

from fsd_tune.profiling.table import table
from fsd_tune.report.members import POINTS, Front, Member, front_of, pick_words
from fsd_tune.report.results import Results


@dataclass(frozen=True)
class Row:
    """A member of the front beside the teacher.

    Attributes:
        trial: the number of the trial.
        shape: the student's shape in words.
        score: its score.
        loses: points below the teacher; None if the teacher's score is not known.
        latency_ms: latency in milliseconds; None if it was not measured.
        times_as_fast: the teacher's latency divided by this one; None if it was not measured.
        parameters: number of weights.
        size_mb: megabytes in float32.
        flops: operations for one example; None if they cannot be counted.
        chosen: whether `best/` holds its student.
        folder: the name of its student's folder in `best/front/`.
    """

    trial: int
    shape: str
    score: float
    loses: float | None
    latency_ms: float | None
    times_as_fast: float | None
    parameters: int
    size_mb: float
    flops: int | None
    chosen: bool
    folder: str


def front_rows(results: Results, front: Front) -> list[Row]:
    """Return a row for each member, from the cheapest on.

    Args:
        results: the results of the search.
        front: its front.
    """
    teacher = results.summary.shapes.teacher
    teacher_ms = None if teacher is None else teacher.latency_ms

    def row(member: Member) -> Row:
        cost = member.cost
        faster = teacher_ms / cost.latency_ms if teacher_ms and cost.latency_ms else None
        return Row(
            member.number, cost.text, member.score, member.loses, cost.latency_ms, faster, cost.parameters,
            cost.size_mb, cost.flops, member.number == front.chosen.number, member.folder,
        )  # fmt: skip

    return [row(member) for member in front.members]


def chosen_text(results: Results, front: Front) -> str:
    """Return a sentence about the member whose student is in `best/`.

    Args:
        results: the results of the search.
        front: its front.
    """
    why = pick_words(results)
    member = front.chosen
    reason = f"search.pick: {why}" if why else "it has the highest score"
    if front.is_fallback:
        reason = f"it has the highest score, because none is {why}"
    return f"best/ holds trial {member.number}, {member.cost.text} ({reason})."


def smallest_text(front: Front) -> str:
    """Return a sentence about the smallest student within one point of the teacher; empty without a teacher's score.

    Args:
        front: the front of the search.
    """
    smallest = front.smallest
    if smallest is None:
        nearest = min(front.members, key=lambda member: member.loses if member.loses is not None else 0.0)
        if nearest.loses is None:
            return ""
        return (
            f"No student is within {POINTS:g} point of the teacher; the nearest, trial {nearest.number} "
            f"({nearest.cost.text}), is {nearest.loses:.1f} points below."
        )
    assert smallest.loses is not None
    points = f"{abs(smallest.loses):.1f} points"
    side = "as good as" if points == "0.0 points" else f"{points} {'below' if smallest.loses > 0 else 'above'}"
    return (
        f"The smallest within {POINTS:g} point of the teacher is trial {smallest.number}: {smallest.cost.text}, "
        f"{smallest.cost.size_mb:.1f} MB, {side} it."
    )


def front_lines(results: Results) -> list[str]:
    """Return the front as lines for a terminal; empty if the search has none.

    Args:
        results: the results of the search.
    """
    front = front_of(results)
    if front is None:
        return []
    rows = front_rows(results, front)
    has_latency = all(row.latency_ms is not None for row in rows)
    header = ["front", results.metric, "points lost", *(["p50 ms", "times as fast"] if has_latency else []), "MB"]
    cells = [
        [
            f"{'*' if row.chosen else ' '} {row.shape}, trial {row.trial}",
            f"{row.score:.4f}",
            "-" if row.loses is None else f"{row.loses:.1f}",
            *([f"{row.latency_ms:.3g}", f"{row.times_as_fast or 0:.1f}"] if has_latency else []),
            f"{row.size_mb:.1f}",
        ]
        for row in rows
    ]
    lines = table(header, cells)
    if has_latency:
        lines.append(f"latency: {results.summary.shapes.conditions}")
    lines.append(f"* {chosen_text(results, front)}")
    smallest = smallest_text(front)
    return lines + ([smallest] if smallest else [])


def front_document(results: Results) -> dict[str, Any] | None:
    """Return the front as a JSON document; None if the search has none.

    Args:
        results: the results of the search.

    Returns:
        {"costs": names, "members": rows as `Row`, "chosen": trial, "smallest_within_1_point": trial or None}.
    """
    front = front_of(results)
    if front is None:
        return None
    return {
        "costs": list(front.costs),
        "members": [asdict(row) for row in front_rows(results, front)],
        "chosen": front.chosen.number,
        "smallest_within_1_point": None if front.smallest is None else front.smallest.number,
    }
