"""Many replayed searches: which there are, side by side in processes, kept in a file so that a run can go on."""

import hashlib
import json
import logging
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks import alternatives, promotion, replay, strategies, surrogates, warm
from benchmarks.pool import end_with_parent
from benchmarks.ratios import Searches
from benchmarks.recommendations import OWN, SCOPES, Rule
from benchmarks.tables import Table
from fsd_tune.search.samplers import Suggester

ROOT = Path(__file__).parents[1]
OURS = "ours"
# The names of baselines begin so.
BASELINES = ("stock", "random", "Syne Tune")
_CHUNK = 10
# A changed source makes earlier searches another bench's.
_SOURCES = ("tables", "replay", "recommendations", "strategies")
_OWN_SOURCES = ("asha", "beliefs", "portfolio", "samplers", "study", "tpe", "trial_record", "warm_start")


_SCOPES = {f", scope {name}": rule for name, rule in SCOPES.items()}


@dataclass(frozen=True)
class Kind:
    """A kind of search.

    Attributes:
        make: makes it from a table, the index of the search, and the tables that are related.
        rules: what it hands out, by the end of its name; a run is read by all of them.
        own: true for what the project's code decides.
        warm: true if it starts from searches on the related tables.
    """

    make: Callable[[Table, int, Sequence[Table]], replay.Strategy]
    rules: Mapping[str, Rule] = field(
        default_factory=lambda: {f", scope {name}": rule for name, rule in SCOPES.items()}
    )
    own: bool = False
    warm: bool = False


def _stock(table: Table, search: int, **how: Any) -> strategies.Stock:
    return strategies.Stock(table, table.search_seed(search), **how)


# What the product recommends, and for comparison the best finished trial alone.
_KEPT = {"": OWN["all"], ", of finished trials alone": OWN["finished, last"]}
KINDS: dict[str, Kind] = {
    OURS: Kind(lambda table, search, _: strategies.Ours(table, table.search_seed(search)), _KEPT, own=True),
    "stock OptunaSearch + ASHA": Kind(lambda table, search, _: _stock(table, search)),
    "stock OptunaSearch + ASHA, 3 brackets": Kind(lambda table, search, _: _stock(table, search, brackets=3)),
    "random + ASHA": Kind(lambda table, search, _: _stock(table, search, sampler="random")),
}
SYNE_TUNE = "Syne Tune ASHA-CQR"
SLOW = {SYNE_TUNE: Kind(lambda table, search, _: strategies.SyneTuneCqr(table, table.search_seed(search)))}


def _warm(source: Callable[[Table, int], warm.Earlier]) -> Kind:
    rules = {"": OWN["all"]}
    return Kind(lambda table, search, others: warm.warm(table, search, others, source), rules, own=True, warm=True)


WARM, REVERSED = "ours, warm", "ours, warm from reversed tasks"
WARMED: dict[str, Kind] = {
    WARM: _warm(warm.searched),
    REVERSED: _warm(warm.searched_reversed),
    "ours, warm from the whole related tables": _warm(warm.known),
}


def _tried(suggester: type[Suggester]) -> Kind:
    rules = {f", {name}": rule for name, rule in OWN.items()}
    return Kind(lambda table, search, _: strategies.Ours(table, table.search_seed(search), suggester), rules, own=True)


def _paused(search_of: type[promotion.Paused], **how: Any) -> Kind:
    rules = {f", {name}": rule for name, rule in OWN.items()}
    return Kind(lambda table, search, _: search_of(table, table.search_seed(search), **how), rules, own=True)


TRIED: dict[str, Kind] = {
    "tried: pruned": _tried(alternatives.Pruned),
    "tried: last value": _tried(alternatives.LastValue),
    "tried: rung-wise": _tried(alternatives.RungWise),
    "tried: rung-wise, a third random (BOHB)": _tried(alternatives.Bohb),
    "tried: no random suggestions": _tried(alternatives.ModelAlone),
    "tried: a third random": _tried(alternatives.RandomThird),
    "tried: all random": _tried(alternatives.AllRandom),
    "tried: forest": _tried(alternatives.Forest),
    "tried: paused, not stopped": _paused(promotion.Paused),
    "tried: paused, not stopped, random points": _paused(promotion.Paused, sampler="random"),
    "tried: PASHA": _paused(promotion.Progressive),
    "tried: Gaussian process of points and shares": _tried(surrogates.GaussianProcess),
    "tried: quantile regression (CQR)": _tried(surrogates.Quantiles),
}


def chosen(tried: bool = False, syne_tune: bool = False, warm: bool = False) -> list[str]:
    """Return the names of the kinds to run."""
    return [*KINDS, *(WARMED if warm else ()), *(TRIED if tried else ()), *(SLOW if syne_tune else ())]


def run(
    tables: Sequence[Table],
    names: Sequence[str],
    searches: int,
    path: Path,
    processes: int,
    related: Mapping[str, Sequence[Table]] | None = None,
) -> dict[str, Searches]:
    """Run the searches that the file lacks.

    Args:
        tables: the tables.
        names: the kinds of search.
        searches: how many of each on each table.
        path: a JSON line for each search; lines of other tables or of changed code are kept and not read.
        processes: how many processes run them.
        related: by table, those that warm searches start from.

    Returns:
        By table, the regrets by the full name of each strategy.
    """
    held = _read(path)
    related = related or {}
    versions = {
        (table.name, name): _version(_kind(name), related.get(table.name, ())) for table in tables for name in names
    }

    def key_of(table: Table, name: str, search: int) -> tuple[str, str, int, str]:
        return table.fingerprint, name, search, versions[table.name, name]

    jobs = []
    for table in tables:
        others = related.get(table.name, ())
        for name in names:
            missing = [s for s in range(searches) if key_of(table, name, s) not in held]
            jobs += [(table, name, missing[i : i + _CHUNK], others) for i in range(0, len(missing), _CHUNK)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        # A killed run can leave half a line.
        stream.write("\n" if path.stat().st_size else "")
        for done, ((table, name), results) in enumerate(_results(jobs, processes), start=1):
            for number, regrets in results.items():
                key = key_of(table, name, number)
                held[key] = regrets
                stream.write(json.dumps({"key": key, "table": table.name, "regrets": regrets}) + "\n")
            stream.flush()
            print(f"  {done}/{len(jobs)} parts: {table.name}, {name}", file=sys.stderr, flush=True)
    found = {}
    for table in tables:
        measured = {
            name + rule: np.asarray([held[key_of(table, name, s)][rule] for s in range(searches)], dtype=float)
            for name in names
            for rule in _kind(name).rules
        }
        found[table.name] = Searches(measured, np.asarray([s % len(table.curves) for s in range(searches)]))
    return found


def _results(
    jobs: Sequence[tuple[Table, str, list[int], Sequence[Table]]], processes: int
) -> Iterator[tuple[tuple[Table, str], dict[int, dict[str, list[float]]]]]:
    """Yield the table and kind of each job with its regrets by search, as they are done."""
    if processes == 1:
        for table, name, numbers, others in jobs:
            yield (table, name), searches_of(table, name, numbers, others)
    elif jobs:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, end_with_parent) as pool:
            running = {pool.submit(searches_of, *job): job[:2] for job in jobs}
            for future in as_completed(running):
                yield running[future], future.result()


def _kind(name: str) -> Kind:
    return (KINDS | WARMED | TRIED | SLOW)[name]


def _version(kind: Kind, related: Sequence[Table] = ()) -> str:
    files = [ROOT / "benchmarks" / f"{name}.py" for name in _SOURCES]
    if kind.own:
        files += [ROOT / "fsd_tune" / "search" / f"{name}.py" for name in _OWN_SOURCES]
        files.append(ROOT / "fsd_tune" / "settings" / "schema.py")
        files += [ROOT / "benchmarks" / f"{name}.py" for name in ("alternatives", "promotion", "surrogates")]
    parts = [file.read_bytes() for file in files]
    if kind.warm:
        parts += [(ROOT / "benchmarks" / "warm.py").read_bytes(), *(table.fingerprint.encode() for table in related)]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def _read(path: Path) -> dict[tuple[str, str, int, str], dict[str, list[float]]]:
    held = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            held[tuple(row["key"])] = row["regrets"]
    return held


def searches_of(
    table: Table, name: str, numbers: Sequence[int], related: Sequence[Table]
) -> dict[int, dict[str, list[float]]]:
    """Return the regrets of some searches, by the search's index and the rule."""
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for noisy in ("ray", "syne_tune"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    kind = _kind(name)
    return {number: replay.replay(table, kind.make(table, number, related), number, kind.rules) for number in numbers}
