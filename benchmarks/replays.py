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

import numpy as np
import optuna

from benchmarks import alternatives, replay, strategies
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
_OWN_SOURCES = ("asha", "beliefs", "samplers", "study", "tpe", "trial_record")


_SCOPES = {f", scope {name}": rule for name, rule in SCOPES.items()}


@dataclass(frozen=True)
class Kind:
    """A kind of search.

    Attributes:
        make: makes it from a table and a seed.
        rules: what it hands out, by the end of its name; a run is read by all of them.
        own: true for what the project's code decides.
    """

    make: Callable[[Table, int], replay.Strategy]
    rules: Mapping[str, Rule] = field(
        default_factory=lambda: {f", scope {name}": rule for name, rule in SCOPES.items()}
    )
    own: bool = False


# What the product recommends, and for comparison the best finished trial alone.
_KEPT = {"": OWN["all"], ", of finished trials alone": OWN["finished, last"]}
KINDS: dict[str, Kind] = {
    OURS: Kind(lambda table, seed: strategies.Ours(table, seed), _KEPT, own=True),
    "stock OptunaSearch + ASHA": Kind(lambda table, seed: strategies.Stock(table, seed)),
    "stock OptunaSearch + ASHA, 3 brackets": Kind(lambda table, seed: strategies.Stock(table, seed, brackets=3)),
    "random + ASHA": Kind(lambda table, seed: strategies.Stock(table, seed, "random")),
}
SYNE_TUNE = "Syne Tune ASHA-CQR"
SLOW = {SYNE_TUNE: Kind(lambda table, seed: strategies.SyneTuneCqr(table, seed))}


def _tried(suggester: type[Suggester]) -> Kind:
    rules = {f", {name}": rule for name, rule in OWN.items()}
    return Kind(lambda table, seed: strategies.Ours(table, seed, suggester), rules, own=True)


TRIED: dict[str, Kind] = {
    "tried: pruned": _tried(alternatives.Pruned),
    "tried: last value": _tried(alternatives.LastValue),
    "tried: rung-wise": _tried(alternatives.RungWise),
    "tried: rung-wise, a third random (BOHB)": _tried(alternatives.Bohb),
    "tried: a third random": _tried(alternatives.RandomThird),
    "tried: forest": _tried(alternatives.Forest),
}


def chosen(tried: bool = False, syne_tune: bool = False) -> list[str]:
    """Return the names of the kinds to run."""
    return [*KINDS, *(TRIED if tried else ()), *(SLOW if syne_tune else ())]


def run(
    tables: Sequence[Table], names: Sequence[str], searches: int, path: Path, processes: int
) -> dict[str, Searches]:
    """Run the searches that the file lacks.

    Args:
        tables: the tables.
        names: the kinds of search.
        searches: how many of each on each table.
        path: a JSON line for each search; lines of other tables or of changed code are kept and not read.
        processes: how many processes run them.

    Returns:
        By table, the regrets by the full name of each strategy.
    """
    held = _read(path)
    versions = {name: _version(_kind(name)) for name in names}
    jobs = []
    for table in tables:
        for name in names:
            missing = [s for s in range(searches) if (table.fingerprint, name, s, versions[name]) not in held]
            jobs += [(table, name, missing[i : i + _CHUNK]) for i in range(0, len(missing), _CHUNK)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        # A killed run can leave half a line.
        stream.write("\n" if path.stat().st_size else "")
        for done, ((table, name), results) in enumerate(_results(jobs, processes), start=1):
            for number, regrets in results.items():
                key = (table.fingerprint, name, number, versions[name])
                held[key] = regrets
                stream.write(json.dumps({"key": key, "table": table.name, "regrets": regrets}) + "\n")
            stream.flush()
            print(f"  {done}/{len(jobs)} parts: {table.name}, {name}", file=sys.stderr, flush=True)
    found = {}
    for table in tables:
        measured = {
            name + rule: np.asarray(
                [held[table.fingerprint, name, s, versions[name]][rule] for s in range(searches)], dtype=float
            )
            for name in names
            for rule in _kind(name).rules
        }
        found[table.name] = Searches(measured, np.asarray([s % len(table.curves) for s in range(searches)]))
    return found


def _results(
    jobs: Sequence[tuple[Table, str, list[int]]], processes: int
) -> Iterator[tuple[tuple[Table, str], dict[int, dict[str, list[float]]]]]:
    """Yield the table and kind of each job with its regrets by search, as they are done."""
    if processes == 1:
        for table, name, numbers in jobs:
            yield (table, name), _searches(table, name, numbers)
    elif jobs:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            running = {pool.submit(_searches, table, name, numbers): (table, name) for table, name, numbers in jobs}
            for future in as_completed(running):
                yield running[future], future.result()


def _kind(name: str) -> Kind:
    return (KINDS | TRIED | SLOW)[name]


def _version(kind: Kind) -> str:
    files = [ROOT / "benchmarks" / f"{name}.py" for name in _SOURCES]
    if kind.own:
        files += [ROOT / "fsd_tune" / "search" / f"{name}.py" for name in _OWN_SOURCES]
        files += [ROOT / "fsd_tune" / "settings" / "schema.py", ROOT / "benchmarks" / "alternatives.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


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


def _searches(table: Table, name: str, numbers: Sequence[int]) -> dict[int, dict[str, list[float]]]:
    """Run a part of the searches, in a process of its own."""
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for noisy in ("ray", "syne_tune"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    kind = _kind(name)
    return {
        number: replay.replay(table, kind.make(table, table.search_seed(number)), number, kind.rules)
        for number in numbers
    }
