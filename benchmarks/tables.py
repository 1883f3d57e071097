"""Tables of learning curves that searches are replayed on: reading them, and what a search may see of them.

A table is three arrays of an `.npz` file: `NAME/U` [configurations, dimensions], scaled to 0..1; `NAME/curves` [seeds,
configurations, reports], the metric at equal parts of training (higher is better, NaN after a run diverged); and
`NAME/worth` [configurations], the mean of the last epochs. A file can hold many tables; without `NAME/` it holds one.
"""

import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# A trial takes longer or shorter than the mean by this standard deviation of the logarithm.
DURATION_SPREAD = 0.3
# The seed noise of tables of one seed, as multiples of the standard deviation of `worth` among the best fifth. A
# search draws its multiple from this range. Parts of its variance at the end: common to a training, and of each report.
NOISE_RANGE = (1.0, 1.5)
_COMMON, _OWN = np.sqrt(0.64), np.sqrt(0.36)
_PARTS = ("U", "curves", "worth")
# `ours` has so many numbers to search; see `strategies.space_of`.
MOST_DIMENSIONS = 10


class TableError(Exception):
    """A table that cannot be used; the text names the file, what was found and what is accepted."""


@dataclass(frozen=True)
class Seen:
    """What one search may see, and what its choice is worth.

    Attributes:
        curves: the trainings that the search sees, float [configurations, reports].
        worth: of each configuration on what the search does not see, float [configurations].
        seed: the recorded seed that the search sees.
    """

    curves: NDArray[np.float64]
    worth: NDArray[np.float64]
    seed: int


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: of the table.
        points: the configurations scaled to 0..1, float [configurations, dimensions].
        curves: float [seeds, configurations, reports].
        worth: float [configurations].
    """

    name: str
    points: NDArray[np.float64]
    curves: NDArray[np.float64]
    worth: NDArray[np.float64]

    @property
    def reports(self) -> int:
        return int(self.curves.shape[2])

    @property
    def unit(self) -> float:
        """The unit of regret: the standard deviation of the worth among the best fifth."""
        best = np.sort(self.worth)[-max(2, len(self.worth) // 5) :]
        return float(best.std()) or float(np.ptp(self.worth)) or 1.0

    @property
    def fingerprint(self) -> str:
        """A checksum of the content."""
        parts = (self.points, self.curves, self.worth)
        return f"{zlib.crc32(b''.join(np.ascontiguousarray(part).tobytes() for part in parts)):08x}"

    @property
    def durations(self) -> NDArray[np.float64]:
        """The time of a whole training of each configuration, float [configurations]; their mean is 1."""
        times = np.exp(np.random.default_rng(self._key(0)).normal(0, DURATION_SPREAD, len(self.points)))
        return np.asarray(times / times.mean())

    def search_seed(self, search: int) -> int:
        """Return the seed of a search's sampler, the same for every strategy."""
        return int(np.random.default_rng([*self._key(2), search]).integers(2**31))

    def nearest(self, point: NDArray[np.float64], taken: Collection[int] = ()) -> int:
        """Return the configuration nearest to a suggested point, of those that are not taken if there are any."""
        distances = ((self.points - point) ** 2).sum(axis=1)
        if len(taken) < len(distances):
            distances[list(taken)] = np.inf
        return int(distances.argmin())

    def seen(self, search: int) -> Seen:
        """Return what the search of this index sees. It is the same for every strategy, so searches are paired.

        With several recorded seeds a search sees one of them, and the last reports of the others judge it. With one
        seed it sees the curve with seed noise, and the noiseless worth judges it.
        """
        seeds = len(self.curves)
        if seeds > 1:
            seen, others = search % seeds, np.delete(self.curves, search % seeds, axis=0)
            last = others[:, :, -1]
            worst = np.nanmin(self.curves)
            return Seen(self.curves[seen], np.where(np.isnan(last), worst, last).mean(axis=0), seen)
        rng = np.random.default_rng([*self._key(1), search])
        deviation = rng.uniform(*NOISE_RANGE) * self.unit
        progress = np.arange(1, self.reports + 1) / self.reports
        count = len(self.points)
        common = _COMMON * rng.normal(size=(count, 1)) * np.sqrt(progress)
        own = _OWN * rng.normal(size=(count, self.reports))
        return Seen(self.curves[0] + deviation * (common + own), self.worth, 0)

    def _key(self, purpose: int) -> list[int]:
        return [zlib.crc32(self.name.encode()), purpose]


def read(places: Sequence[Path]) -> list[Table]:
    """Read the tables of files and of all `.npz` files of folders, in the order of their names.

    Raises:
        TableError: a place does not exist, holds no table, or a table has another form; one line each.
    """
    problems: list[str] = []
    tables: dict[str, Table] = {}
    for path in _files(places, problems):
        try:
            for table in _tables(path, problems):
                if table.name in tables:
                    problems.append(f"{path}: {table.name}: found a second table of this name; each needs its own.")
                tables[table.name] = table
        except (OSError, ValueError, EOFError) as error:
            problems.append(f"{path}: cannot be read as an .npz file without pickles: {error}")
    if problems or not tables:
        raise TableError("\n".join(problems) or "found no table; give --tables a file or folder of .npz tables")
    return [tables[name] for name in sorted(tables)]


def _files(places: Sequence[Path], problems: list[str]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            found = sorted(place.glob("*.npz"))
            if not found:
                problems.append(f"{place}: found no .npz file in this folder.")
            yield from found
        elif place.is_file():
            yield place
        else:
            problems.append(f"{place}: no such file or folder; give .npz tables.")


def _tables(path: Path, problems: list[str]) -> Iterator[Table]:
    with np.load(path, allow_pickle=False) as arrays:
        prefixes = sorted({key.rpartition("/")[0] for key in arrays.files if key.rpartition("/")[2] in _PARTS})
        if not prefixes:
            problems.append(f"{path}: found {', '.join(arrays.files) or 'nothing'}, but a table has U, curves, worth.")
        for prefix in prefixes:
            name = prefix or path.stem
            keys = [f"{prefix}/{part}".lstrip("/") for part in _PARTS]
            missing = [key for key in keys if key not in arrays.files]
            if missing:
                problems.append(f"{path}: {name}: lacks {', '.join(missing)}.")
                continue
            points, curves, worth = (np.asarray(arrays[key], dtype=float) for key in keys)
            problem = _problem(points, curves, worth)
            if problem:
                problems.append(f"{path}: {name}: {problem}")
                continue
            # A column without two values says nothing; some tables hold one of NaN.
            varied = [column for column in range(points.shape[1]) if np.ptp(points[:, column]) > 0]
            if not 1 <= len(varied) <= MOST_DIMENSIONS:
                problems.append(
                    f"{path}: {name}: found {len(varied)} dimensions that vary, but must be 1 to {MOST_DIMENSIONS}."
                )
                continue
            yield Table(name, points[:, varied], curves, worth)


def _problem(points: NDArray[np.float64], curves: NDArray[np.float64], worth: NDArray[np.float64]) -> str:
    """Return what is wrong with a table's arrays; empty if nothing is."""
    if points.ndim != 2 or curves.ndim != 3 or worth.ndim != 1:
        return f"found arrays of {points.ndim}, {curves.ndim} and {worth.ndim} axes, but U, curves, worth have 2, 3, 1."
    if not len(points) == curves.shape[1] == len(worth):
        return f"found {len(points)}, {curves.shape[1]} and {len(worth)} configurations in U, curves and worth."
    if len(points) < 10 or curves.shape[2] < 2:
        return f"found {len(points)} configurations and {curves.shape[2]} reports, but must be at least 10 and 2."
    if np.isnan(worth).any() or np.nanmin(points) < -1e-6 or np.nanmax(points) > 1 + 1e-6:
        return "found NaN in worth or values of U outside of 0..1."
    return ""
