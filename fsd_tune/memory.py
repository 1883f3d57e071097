"""The teacher memory: centroids of the teacher's flattened features and every example's targets against them.

Shapes: N examples, K centroids, D flattened width (longest example times hidden size). Knows nothing of Ray.
"""

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune import files
from fsd_tune.losses import distances_and_cosines
from fsd_tune.teacher_outputs import Progress, TeacherOutputs

# What k-means starts from: so many examples are clustered at once, more are swept in blocks. With the examples' Gram
# matrix (see `_rotated`) the time and memory of the start are bounded whatever the split's size.
SAMPLE_EXAMPLES = 4096
_SAMPLE_PER_CENTROID = 4
_BLOCK_BYTES = 1 << 27
_PROCEDURE = 2
_SWEEPS = 10
_RESTARTS = 3
_CPU = torch.device("cpu")


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
    """The name of a memory: everything that it depends on, the version of the procedure included."""
    return files.digest(outputs_key, layer, centroids, algorithm, _PROCEDURE)


def sample_size(k: int) -> int:
    """Examples that k-means with k centroids starts from, where there are so many."""
    return max(SAMPLE_EXAMPLES, _SAMPLE_PER_CENTROID * k)


def _dense(outputs: TeacherOutputs, layer: int, rows: NDArray[np.int64], width: int, device: torch.device) -> Tensor:
    """Flattened features of the given examples, float32 [rows, width * H]."""
    return torch.from_numpy(outputs.features(layer, rows, width)).to(device).flatten(1).float()


def _blocks(outputs: TeacherOutputs, layer: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """All rows, longest first, in blocks that are dense in bounded memory, each with its longest example's length.

    Blocks of similar length need products over few positions beyond the stored ones.
    """
    lengths = np.diff(outputs.offsets)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        width = int(lengths[order[start]])
        end = start + max(1, _BLOCK_BYTES // (4 * width * outputs.width(layer)))
        yield order[start:end], width
        start = end


def kmeans(
    outputs: TeacherOutputs, layer: int, k: int, progress: Progress, device: torch.device = _CPU, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Centroids float32 [K', D] and the cluster of each example, int32 [N]; no cluster is empty.

    K' is k, or the number of distinct examples when they are fewer.

    scikit-learn clusters the split, or `sample_size(k)` examples of a larger one; then at most 10 sweeps over the
    stored features refine the sample's centroids on all examples.

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
    room = sample_size(k)
    rng = np.random.default_rng(seed)
    sample = np.arange(n) if n <= room else np.sort(rng.choice(n, room, replace=False))
    progress("k-means", 0, 1)
    with warnings.catch_warnings():
        # Fewer distinct examples than centroids: the clusters that stay empty are dropped below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        coordinates = _rotated(outputs, layer, sample, device)
        found = KMeans(k, n_init=_RESTARTS, random_state=seed).fit(coordinates).labels_
    labels = np.unique(found, return_inverse=True)[1]
    counts = np.bincount(labels)
    centroids = torch.zeros(len(counts), longest * outputs.width(layer), device=device)
    for part in np.array_split(np.arange(len(sample)), -(-len(sample) // 256)):
        points = _dense(outputs, layer, sample[part], longest, device)
        centroids.index_add_(0, torch.from_numpy(labels[part]).to(device), points)
    centroids /= torch.from_numpy(counts).to(device)[:, None]
    if len(sample) == n:
        progress("k-means", 1, 1)
        return centroids.cpu().numpy(), labels.astype(np.int32)
    centroids, clusters = _sweep(outputs, layer, centroids, progress)
    return centroids.cpu().numpy(), clusters


def _rotated(outputs: TeacherOutputs, layer: int, rows: NDArray[np.int64], device: torch.device) -> NDArray[np.float32]:
    """Coordinates of the examples with the same distances in at most as many dimensions as there are examples.

    N points lie in an N-dimensional space: the Cholesky factor of their centred Gram matrix gives coordinates in it.
    k-means sees only distances, so its result is that on the points, at a fraction of the products (24,576 dimensions
    to 1,000). The Gram matrix is summed over positions, so that the points are never dense at once.
    """
    n, longest, hidden = len(rows), outputs.longest, outputs.width(layer)
    if n >= longest * hidden:
        return _dense(outputs, layer, rows, longest, device).cpu().numpy()
    gram = torch.zeros(n, n, dtype=torch.float64, device=device)
    mean = _dense(outputs, layer, rows[:1], longest, device)[0]
    step = max(1, _BLOCK_BYTES // (4 * n * hidden))
    for start in range(0, longest, step):
        # Subtracting any one point keeps distances, and keeps rounding small where the points lie close together.
        part = torch.from_numpy(outputs.features(layer, rows, longest, start, start + step)).to(device).flatten(1)
        part = part.float() - mean[start * hidden : (start + step) * hidden]
        gram += part @ part.T
    gram -= gram.mean(0, keepdim=True)
    gram -= gram.mean(1, keepdim=True)
    jitter = 1e-6 * float(gram.diagonal().mean()) + 1e-12
    while True:
        # A centred Gram matrix is singular. The jitter moves every point away from all others by the same little.
        factor, failed = torch.linalg.cholesky_ex(gram + jitter * torch.eye(n, dtype=gram.dtype, device=device))
        if not failed:
            rotated: NDArray[np.float32] = factor.float().cpu().numpy()
            return rotated
        jitter *= 10


def _sweep(
    outputs: TeacherOutputs, layer: int, centroids: Tensor, progress: Progress
) -> tuple[Tensor, NDArray[np.int32]]:
    """Lloyd's iterations over all examples, block by block, until fewer than 1 in 1,000 changes its cluster."""
    n, k, device = len(outputs), len(centroids), centroids.device
    hidden = outputs.width(layer)
    labels = np.full(n, -1, np.int32)
    for sweep in range(_SWEEPS):
        sums, counts = torch.zeros(centroids.shape, dtype=torch.float64, device=device), np.zeros(k, np.int64)
        gaps, before, norms = np.empty(n, np.float32), labels.copy(), centroids.square().sum(1)
        done = 0
        for rows, width in _blocks(outputs, layer):
            points = _dense(outputs, layer, rows, width, device)
            squares = norms - 2 * points @ centroids[:, : width * hidden].T
            least, nearest = squares.min(1)
            labels[rows] = nearest.cpu().numpy()
            gaps[rows] = (least + points.square().sum(1)).cpu().numpy()
            counts += np.bincount(labels[rows], minlength=k)
            # One product instead of a scattered addition per example.
            sums[:, : width * hidden] += torch.nn.functional.one_hot(nearest, k).float().T @ points
            done += len(rows)
            progress("k-means", sweep * n + done, _SWEEPS * n)
        for empty in np.flatnonzero(counts == 0):
            # The example farthest from its centroid gets one of its own, and leaves its old cluster.
            row = int(np.where(counts[labels] > 1, gaps, -np.inf).argmax())
            point = _dense(outputs, layer, np.asarray([row]), outputs.longest, device)[0]
            sums[labels[row]] -= point
            counts[labels[row]] -= 1
            labels[row], sums[empty], counts[empty], gaps[row] = empty, point, 1, 0
        centroids = (sums / torch.from_numpy(counts).to(device)[:, None]).float()
        if (labels != before).mean() < 1e-3:
            break
    progress("k-means", 1, 1)
    return centroids, labels


def write(
    folder: Path, outputs: TeacherOutputs, layer: int, k: int, progress: Progress, device: torch.device = _CPU
) -> None:
    """Cluster, compute every example's targets, and write the memory.

    Args:
        folder: the artefact's final name.
        outputs: the teacher's.
        layer: index of `hidden_states`.
        k: number of centroids, at most N.
        progress: told how far it is.
        device: where products are computed.

    Raises:
        FsdTuneError: no space left.
    """
    started = time.monotonic()
    n, width = len(outputs), outputs.longest * outputs.width(layer)
    with files.writing(folder, bytes_needed=4 * (k * width + 2 * n * k)) as (temporary, facts):
        centroids, clusters = kmeans(outputs, layer, k, progress, device)
        placed = torch.from_numpy(centroids).to(device)
        shape = (n, len(centroids))
        distances, cosines = (
            files.reserved(temporary / f"{name}.npy", shape, np.float32) for name in ("distances", "cosines")
        )
        inertia, done = 0.0, 0
        for rows, longest in _blocks(outputs, layer):
            feature = _dense(outputs, layer, rows, longest, device)
            d, c = (part.cpu().numpy() for part in distances_and_cosines(feature, placed))
            distances[rows], cosines[rows] = d, c
            inertia += float((d[np.arange(len(rows)), clusters[rows]].astype(np.float64) ** 2).sum())
            done += len(rows)
            progress("targets", done, n)
        sizes = np.bincount(clusters)
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
