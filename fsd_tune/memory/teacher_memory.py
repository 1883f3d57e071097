"""The teacher memory: centroids of the teacher's flattened features and every example's targets against them.

Shapes: N examples, K centroids, D flattened width (longest example times hidden size). Knows nothing of Ray.
"""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.losses import distances_and_cosines
from fsd_tune.memory import published_kmeans
from fsd_tune.memory.blocks import blocks, dense
from fsd_tune.memory.sizes import memory_bytes
from fsd_tune.memory.teacher_outputs import Progress, TeacherOutputs
from fsd_tune.storage import artifacts

# k-means starts from so many examples at most, as sketches of so many numbers each: the start's time and memory are
# bounded whatever the split's size.
SAMPLE_EXAMPLES = 32_768
_SKETCH = 256
_PROCEDURE = 4
_SWEEPS = 10
_STILL = 0.03
_RESTARTS = 3
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class TeacherMemory:
    """Centroids and targets; read-only.

    Attributes:
        centroids: float32 [K, D], zero beyond the longest example's positions.
        sizes: int64 [K], examples of each cluster; none is empty unless the algorithm is `published`.
        clusters: int32 [N], the cluster of each example.
        distances: float32 [N, K], Euclidean.
        cosines: float32 [N, K].
    """

    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    clusters: NDArray[np.int32]
    distances: NDArray[np.float32]
    cosines: NDArray[np.float32]


def key(outputs_key: str, layer: int, centroids: int, algorithm: str) -> str:
    """The name of a memory: everything that it depends on, the version of the procedure included."""
    return artifacts.digest(outputs_key, layer, centroids, algorithm, _PROCEDURE)


def kmeans(
    outputs: TeacherOutputs, layer: int, k: int, progress: Progress, device: torch.device = _CPU, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Centroids float32 [K', D] and the cluster of each example, int32 [N]; no cluster is empty.

    K' is k, or the number of distinct examples when they are fewer.

    scikit-learn clusters sketches of the examples, of a sample of them in a larger split; at most 10 sweeps over the
    stored features then refine that on all examples.

    Args:
        outputs: the teacher's.
        layer: index of `hidden_states`.
        k: number of centroids, at most N.
        device: where products are computed.
        seed: of the start; fixed by callers, for a memory is named by its content.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    n, longest = len(outputs), outputs.longest
    assert k <= n, (k, n)
    room = max(k, SAMPLE_EXAMPLES)
    rng = np.random.default_rng(seed)
    sample = np.arange(n) if n <= room else np.sort(rng.choice(n, room, replace=False))
    progress("k-means", 0, 1)
    with warnings.catch_warnings():
        # Fewer distinct examples than centroids: the clusters that stay empty are dropped below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        sketches = _sketches(outputs, layer, sample, device, seed)
        found = KMeans(k, n_init=_RESTARTS, random_state=seed).fit(sketches).labels_
    sums = _Sums(int(found.max()) + 1, n, longest * outputs.width(layer), device)
    for rows, width in blocks(outputs, layer, sample):
        sums.move(rows, dense(outputs, layer, rows, width, device), found[np.searchsorted(sample, rows)])
    sums.drop_empty()
    return _sweep(outputs, layer, sums, progress)


class _Sums:
    """The clusters as sums of their examples: moving an example costs two additions, whatever the others do.

    Attributes:
        labels: int32 [N], the cluster of each example; -1 for none yet.
        counts: int64 [K].
    """

    def __init__(self, k: int, n: int, width: int, device: torch.device) -> None:
        self._sums = torch.zeros(k, width, dtype=torch.float64, device=device)
        self.counts, self.labels = np.zeros(k, np.int64), np.full(n, -1, np.int32)

    def move(self, rows: NDArray[np.int64], points: Tensor, to: NDArray[np.int32]) -> int:
        """Put the examples `rows` with features `points` [rows, at most width] into clusters; how many have moved."""
        moved = np.flatnonzero(self.labels[rows] != to)
        if len(moved) == 0:
            return 0
        new, old = to[moved], self.labels[rows[moved]]
        # A product instead of scattered additions: 1 where an example comes, -1 where it leaves.
        change = torch.zeros(len(self.counts), len(moved))
        change[new, np.arange(len(moved))] = 1
        change[old[old >= 0], np.flatnonzero(old >= 0)] = -1
        self._sums[:, : points.shape[1]] += change.to(points) @ points[torch.from_numpy(moved).to(points.device)]
        k = len(self.counts)
        self.counts += np.bincount(new, minlength=k) - np.bincount(old[old >= 0], minlength=k)
        self.labels[rows[moved]] = new
        return len(moved)

    def drop_empty(self) -> None:
        """Leave out the clusters without an example."""
        kept = np.flatnonzero(self.counts)
        place = np.full(len(self.counts), -1, np.int32)
        place[kept] = np.arange(len(kept))
        self.labels = np.where(self.labels >= 0, place[self.labels], -1).astype(np.int32)
        self._sums, self.counts = self._sums[torch.from_numpy(kept).to(self._sums.device)], self.counts[kept]

    def centroids(self) -> Tensor:
        """Float32 [K, width]."""
        return (self._sums / torch.from_numpy(self.counts).to(self._sums.device)[:, None]).float()


def _sketches(
    outputs: TeacherOutputs, layer: int, sample: NDArray[np.int64], device: torch.device, seed: int
) -> NDArray[np.float32]:
    """Few numbers for each example whose distances are nearly those of the features, float32 [rows, dimensions].

    A Gaussian projection keeps squared distances to about sqrt(2 / dimensions) of each (Johnson and Lindenstrauss).
    Features that are no wider are returned as they are.
    """
    whole = outputs.longest * outputs.width(layer)
    if whole <= _SKETCH:
        return dense(outputs, layer, sample, outputs.longest, device).cpu().numpy()
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(whole, _SKETCH, generator=generator).to(device) / _SKETCH**0.5
    # Any one example subtracted from all keeps distances, and keeps rounding small where they lie close together.
    origin = dense(outputs, layer, sample[:1], outputs.longest, device) @ projection
    made = np.empty((len(sample), _SKETCH), np.float32)
    for rows, width in blocks(outputs, layer, sample):
        points = dense(outputs, layer, rows, width, device)
        made[np.searchsorted(sample, rows)] = (points @ projection[: points.shape[1]] - origin).cpu().numpy()
    return made


def _sweep(
    outputs: TeacherOutputs, layer: int, sums: _Sums, progress: Progress
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Lloyd's iterations over all examples, block by block, until at most 3 in 100 change their cluster."""
    n, hidden = len(outputs), outputs.width(layer)
    squares = np.full(n, np.nan, np.float32)  # of the examples' norms: the same in every sweep
    for sweep in range(_SWEEPS):
        centroids = sums.centroids()
        norms, gaps, moved, done = centroids.square().sum(1), np.empty(n, np.float32), 0, 0
        for rows, width in blocks(outputs, layer):
            points = dense(outputs, layer, rows, width, centroids.device)
            least, nearest = torch.addmm(norms, points, centroids[:, : width * hidden].T, alpha=-2).min(1)
            if sweep == 0:
                squares[rows] = points.square().sum(1).cpu().numpy()
            gaps[rows] = least.cpu().numpy() + squares[rows]
            moved += sums.move(rows, points, nearest.int().cpu().numpy())
            done += len(rows)
            progress("k-means", sweep * n + done, _SWEEPS * n)
        for empty in np.flatnonzero(sums.counts == 0):
            # The example farthest from its centroid gets a cluster of its own.
            row = np.asarray([np.where(sums.counts[sums.labels] > 1, gaps, -np.inf).argmax()])
            point = dense(outputs, layer, row, outputs.longest, centroids.device)
            moved += sums.move(row, point, np.asarray([empty], np.int32))
            gaps[row] = 0
        if moved <= n * _STILL:
            break
    progress("k-means", 1, 1)
    return sums.centroids().cpu().numpy(), sums.labels


def write(
    folder: Path,
    outputs: TeacherOutputs,
    layer: int,
    k: int,
    algorithm: str,
    progress: Progress,
    device: torch.device = _CPU,
) -> None:
    """Cluster, compute every example's targets, and write the memory.

    Args:
        folder: the artefact's final name.
        outputs: the teacher's.
        layer: index of `hidden_states`.
        k: number of centroids, at most N.
        algorithm: kmeans or published.
        progress: told how far it is.
        device: where products are computed.

    Raises:
        FsdTuneError: no space left.
    """
    started = time.monotonic()
    n, width = len(outputs), outputs.longest * outputs.width(layer)
    with artifacts.writing(folder, bytes_needed=memory_bytes(n, k, width)) as (temporary, facts):
        cluster = {"kmeans": kmeans, "published": published_kmeans.build}[algorithm]
        centroids, clusters = cluster(outputs, layer, k, progress, device)
        placed = torch.from_numpy(centroids).to(device)
        shape = (n, len(centroids))
        distances, cosines = (
            artifacts.reserved(temporary / f"{name}.npy", shape, np.float32) for name in ("distances", "cosines")
        )
        inertia, done = 0.0, 0
        for rows, longest in blocks(outputs, layer):
            feature = dense(outputs, layer, rows, longest, device)
            d, c = (part.cpu().numpy() for part in distances_and_cosines(feature, placed))
            distances[rows], cosines[rows] = d, c
            inertia += float((d[np.arange(len(rows)), clusters[rows]].astype(np.float64) ** 2).sum())
            done += len(rows)
            progress("targets", done, n)
        sizes = np.bincount(clusters, minlength=len(centroids))
        for name, array in (("centroids", centroids), ("sizes", sizes), ("clusters", clusters)):
            np.save(temporary / f"{name}.npy", array)
        facts.update(
            examples=n, centroids=len(centroids), width=width, layer=layer, inertia=inertia, sizes=sizes.tolist(),
            seconds=round(time.monotonic() - started, 3),
        )  # fmt: skip


def read(folder: Path, mapped: bool) -> TeacherMemory:
    """The memory in `folder`, memory-mapped or in memory."""
    mode: Any = "r" if mapped else None
    names = ("centroids", "sizes", "clusters", "distances", "cosines")
    return TeacherMemory(*(np.load(folder / f"{name}.npy", mmap_mode=mode) for name in names))
