"""What ends a search before or at its last trial, and what is said of it."""

from typing import Any

from fsd_tune.search import grid
from fsd_tune.settings.loader import Settings


class Stall:
    """Counts the trials that have ended in a row without a better finished score (`search.stop_after_stalled`)."""

    def __init__(self, limit: int | None) -> None:
        self._limit, self._best, self._row = limit, float("-inf"), 0

    def ended(self, score: float | None) -> None:
        """A trial has ended, with a score if it finished."""
        if score is not None and score > self._best:
            self._best, self._row = score, 0
        else:
            self._row += 1

    @property
    def over(self) -> bool:
        """Whether no new trial is to begin."""
        return self._limit is not None and self._row >= self._limit


def planned(settings: Settings) -> int:
    """The trials that a search can have: as many as it asks for, of a grid at most its points."""
    asked = settings.search.trials
    return min(asked, grid.size(settings)) if settings.search.sampler == "grid" else asked


def notes(settings: Settings) -> list[str]:
    """What a grid's size means for the search."""
    if settings.search.sampler != "grid":
        return []
    points, asked = grid.size(settings), settings.search.trials
    if points > asked:
        many = f"more than {grid.MOST:,}" if points > grid.MOST else f"{points:,}"
        return [f"search.trials: {asked:,} of the grid's {many} points are run."]
    return (
        [f"search.trials: {asked:,}, but the grid has {points:,} points: the search ends there."]
        if points < asked
        else []
    )


def ended_by(settings: Settings, begun: int, broken_off: int, stalled: bool) -> dict[str, Any]:
    """What ended a search that ran to its end, for `summary.json`.

    Args:
        settings: of the search.
        begun: trials that have begun, ever.
        broken_off: those of them that have not ended; `resume` goes on with them.
        stalled: whether the rule of `search.stop_after_stalled` holds.

    Returns:
        {"budget": trials, grid, stop_after_stalled or time_budget, "not_run": trials that never began, "text": a
        sentence}
    """
    search, can = settings.search, planned(settings)
    left = max(can - begun, 0)
    parts = (f"{left} of {can} not run" if left else "", f"{broken_off} broken off" if broken_off else "")
    undone = ", ".join(filter(None, parts))
    if stalled and left:
        row = search.stop_after_stalled
        budget, text = "stop_after_stalled", f"stopped after {row} trials without a better one: {undone}"
    elif undone:
        budget, text = "time_budget", f"stopped after the time budget of {search.time_budget}: {undone}"
    elif can < search.trials:
        budget, text = "grid", f"the whole grid of {can} points was run; {search.trials} trials were asked for"
    else:
        budget, text = "trials", f"all {can} trials were run"
    return {"budget": budget, "not_run": left, "text": text}
