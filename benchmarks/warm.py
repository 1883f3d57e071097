"""Searches that start from earlier ones on related tables (`make bench-search BENCH=--warm`): leave one task out."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks import replay, strategies
from benchmarks.tables import Table
from fsd_tune.search.warm_start import WarmTrial, learned_scores, portfolios
from fsd_tune.settings.loader import Settings

# So many earlier tasks; of more related tables the next ones in the order of their names, cyclically.
MOST_RELATED = 3

# The trials of an earlier search: points of the unit cube and scores.
Earlier = list[tuple[NDArray[np.float64], float]]
_made: dict[tuple[str, str, int], Earlier] = {}


def related(table: Table, tables: Sequence[Table]) -> list[Table]:
    """Return the earlier tasks of a table: others of the same configurations."""
    family = sorted((t for t in tables if np.array_equal(t.points, table.points)), key=lambda t: t.name)
    place = [t.name for t in family].index(table.name)
    return (family[place + 1 :] + family[:place])[:MOST_RELATED]


def searched(table: Table, search: int) -> Earlier:
    """Return what a search of ours has tried on a table, with the scores that its sampler has learned."""
    key = (table.name, table.fingerprint, search)
    if key not in _made:
        ours = strategies.Ours(table, table.search_seed(search))
        replay.replay(table, ours, search, {})
        scores = learned_scores(ours.trials)
        _made[key] = [(ours.point(ours.trials[number].params), score) for number, score in scores.items()]
    return _made[key]


def searched_reversed(table: Table, search: int) -> Earlier:
    """Return an earlier search on the opposite task: what is best here was worst there."""
    opposite = replace(table, name=f"{table.name}, reversed", curves=-table.curves, worth=-table.worth)
    return searched(opposite, search)


def known(table: Table, search: int) -> Earlier:
    """Return the true worth of all configurations, which no search ever knows: what transfer could reach."""
    return list(zip(table.points, table.worth.tolist(), strict=True))


def warm(
    table: Table, search: int, earlier_tables: Sequence[Table], source: Callable[[Table, int], Earlier]
) -> strategies.Ours:
    """Return a search of ours that starts from earlier ones.

    Args:
        table: the new task.
        search: the index of the search, on the earlier tables, too.
        earlier_tables: the earlier tasks.
        source: what is known of an earlier task.
    """
    sources = [source(earlier, search) for earlier in earlier_tables]

    def portfolio(settings: Settings, config: Callable[[NDArray[np.float64]], dict[str, float]]) -> list[WarmTrial]:
        searches = [
            [
                WarmTrial(
                    origin=f"{other.name} trial {number}",
                    score=score,
                    config={"method": settings.methods[0]} | config(point),
                )
                for number, (point, score) in enumerate(trials)
            ]
            for other, trials in zip(earlier_tables, sources, strict=True)
        ]
        return list(portfolios(settings, searches))

    return strategies.Ours(table, table.search_seed(search), earlier=portfolio)
