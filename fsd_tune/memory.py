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

from fsd_tune import files
from fsd_tune.losses import distances_and_cosines, flatten
from fsd_tune.teacher_outputs import Progress, TeacherOutputs

# Dense features that k-means may hold at once; a larger split is clustered on a sample, then swept.
_SAMPLE_BYTES = 1 << 30
_BLOCK_BYTES = 1 << 27
_SWEEPS = 10
_RESTARTS = 3


@dataclass(frozen=True)
class TeacherMemory:
    """Centroids and targets; read-only.

    Attributes:
        centroids: float32 [K, D], zero beyond the longest example's positions.
        sizes: int64 [K], examples of each cluster.
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
    """The name of a memory: everything that it depends on."""
    return files.digest(outputs_key, layer, centroids, algorithm)


def _dense(outputs: TeacherOutputs, layer: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Flattened features of the given examples, float32 [rows, D]."""
    return outputs.features(layer, rows, outputs.longest).reshape(len(rows), -1).astype(np.float32)


def _blocks(outputs: TeacherOutputs, layer: int) -> list[NDArray[np.int64]]:
    """All rows, in consecutive blocks that are dense in bounded memory."""
    rows = max(1, _BLOCK_BYTES // (4 * outputs.longest * outputs.width(layer)))
    return [np.arange(start, min(start + rows, len(outputs))) for start in range(0, len(outputs), rows)]


def kmeans(
    outputs: TeacherOutputs, layer: int, k: int, progress: Progress, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Centroids float32 [K', D] and the cluster of each example, int32 [N]; no cluster is empty.

    K' is k, or the number of distinct examples when they are fewer.

    scikit-learn clusters the split, or a sample of it when all would not fit; then at most 10 sweeps over the stored
    features refine the sample's centroids on all examples.

    Args:
        outputs: the teacher's.
        layer: index of `hidden_states`.
        k: number of centroids, at most N.
        seed: of the start; fixed by callers, for a memory is named by its content.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    n, width = len(outputs), outputs.longest * outputs.width(layer)
    assert k <= n, (k, n)
    room = max(k, _SAMPLE_BYTES // (4 * width))
    rng = np.random.default_rng(seed)
    sample = np.arange(n) if n <= room else np.sort(rng.choice(n, room, replace=False))
    progress("k-means", 0, 1)
    points = _dense(outputs, layer, sample)
    with warnings.catch_warnings():
        # Fewer distinct examples than centroids: the clusters that stay empty are dropped below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(k, n_init=_RESTARTS, random_state=seed).fit(_rotated(points)).labels_
    labels = np.unique(found, return_inverse=True)[1]
    k = int(labels.max()) + 1
    centroids = np.zeros((k, width), np.float32)
    for cluster in range(k):
        centroids[cluster] = points[labels == cluster].mean(0)
    if len(sample) == n:
        progress("k-means", 1, 1)
        return centroids, labels.astype(np.int32)
    del points
    return _sweep(outputs, layer, centroids, progress)


def _rotated(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coordinates with the same distances in fewer dimensions, when there are fewer points than dimensions.

    N points lie in an N-dimensional space: their Gram matrix's eigenvectors give coordinates in it. k-means sees only
    distances, so its result is that on the points, at a fraction of the products (24,576 dimensions to 1,000).
    """
    n, width = points.shape
    if n >= width or n > 4096:
        return points
    centred = points - points.mean(0)
    values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    rotated: NDArray[np.float32] = (vectors * np.sqrt(np.clip(values, 0, None))).astype(np.float32)
    return rotated


def _sweep(
    outputs: TeacherOutputs, layer: int, centroids: NDArray[np.float32], progress: Progress
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Lloyd's iterations over all examples, block by block, until fewer than 1 in 1,000 changes its cluster."""
    n, k = len(outputs), len(centroids)
    labels = np.full(n, -1, np.int32)
    for sweep in range(_SWEEPS):
        progress("k-means", sweep, _SWEEPS)
        sums, counts = np.zeros(centroids.shape, np.float64), np.zeros(k, np.int64)
        gaps, before = np.empty(n, np.float32), labels.copy()
        for rows in _blocks(outputs, layer):
            points = _dense(outputs, layer, rows)
            squares = (centroids**2).sum(1) - 2 * points @ centroids.T
            labels[rows] = squares.argmin(1)
            gaps[rows] = squares.min(1) + (points**2).sum(1)
            np.add.at(counts, labels[rows], 1)
            # One product instead of a scattered addition per example.
            sums += (labels[rows] == np.arange(k)[:, None]).astype(np.float32) @ points
        for empty in np.flatnonzero(counts == 0):
            # The example farthest from its centroid gets one of its own, and leaves its old cluster.
            row = int(np.where(counts[labels] > 1, gaps, -np.inf).argmax())
            point = _dense(outputs, layer, np.asarray([row]))[0]
            sums[labels[row]] -= point
            counts[labels[row]] -= 1
            labels[row], sums[empty], counts[empty], gaps[row] = empty, point, 1, 0
        centroids = (sums / counts[:, None]).astype(np.float32)
        if (labels != before).mean() < 1e-3:
            break
    progress("k-means", _SWEEPS, _SWEEPS)
    return centroids, labels


def write(folder: Path, outputs: TeacherOutputs, layer: int, k: int, progress: Progress) -> None:
    """Cluster, compute every example's targets, and write the memory.

    Raises:
        FsdTuneError: no space left.
    """
    started = time.monotonic()
    n, width = len(outputs), outputs.longest * outputs.width(layer)
    with files.writing(folder, bytes_needed=4 * (k * width + 2 * n * k)) as (temporary, facts):
        centroids, clusters = kmeans(outputs, layer, k, progress)
        distances, cosines = (np.empty((n, len(centroids)), np.float32) for _ in range(2))
        for rows in _blocks(outputs, layer):
            feature = torch.from_numpy(outputs.features(layer, rows, outputs.longest))
            d, c = distances_and_cosines(flatten(feature), torch.from_numpy(centroids))
            distances[rows], cosines[rows] = d.numpy(), c.numpy()
            progress("targets", int(rows[-1]) + 1, n)
        sizes = np.bincount(clusters)
        held = TeacherMemory(centroids, sizes, clusters, distances, cosines)
        for name, array in vars(held).items():
            np.save(temporary / f"{name}.npy", array)
        inertia = float((distances[np.arange(n), clusters].astype(np.float64) ** 2).sum())
        facts.update(
            examples=n, centroids=len(centroids), width=width, layer=layer, inertia=inertia, sizes=sizes.tolist(),
            seconds=round(time.monotonic() - started, 3),
        )  # fmt: skip


def read(folder: Path, mapped: bool) -> TeacherMemory:
    """The memory in `folder`, memory-mapped or in memory."""
    mode: Any = "r" if mapped else None
    names = ("centroids", "sizes", "clusters", "distances", "cosines")
    return TeacherMemory(*(np.load(folder / f"{name}.npy", mmap_mode=mode) for name in names))
