"""What a search cost, and what more of it would (`search.price_per_hour`)."""

from fsd_tune.report.results import Results


def cost_of(results: Results) -> str:
    """Return the cost of a search and of its last gain, as a sentence.

    Args:
        results: the results of the search.

    Returns:
        The sentence; empty without a price or before the search has a wall time.
    """
    price = results.settings.get("search", {}).get("price_per_hour")
    seconds = results.summary.wall_seconds
    if not price or not seconds:
        return ""
    cost = price * seconds / 3600
    return f"{cost:.2f} at {price:g} an hour{_of_the_second_half(results, cost)}"


def _of_the_second_half(results: Results, cost: float) -> str:
    """Return what the second half of the search's steps gained, and the cost of a point at that rate."""
    curve = results.best_so_far()
    if curve.empty:
        return ""
    half = curve[curve["steps"] <= curve["steps"].iloc[-1] / 2]
    if half.empty:
        return ""
    gained = 100 * abs(curve["best"].iloc[-1] - half["best"].iloc[-1])
    if not gained:
        return "; the second half of its steps gained nothing"
    return f"; the second half of its steps gained {gained:.1f} points, at {cost / 2 / gained:.2f} each"
