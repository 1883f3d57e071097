"""The teacher memory as the published code computes it, for comparison with k-means.

docs/explanation/method.md, "Teacher memory", has the procedure. Details are as in train_memory.py of
github.com/maroo-sky/FSD (900b483) with its defaults: steps are single examples in the order of the split. Each
step overwrites mean and deviation, so they end as the last example's. Of the three passes, the first leaves centroids
near zero, the second assigns and the third updates.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.memory.teacher_outputs import Progress, TeacherOutputs, blocks, dense


def start(outputs: TeacherOutputs, layer: int, k: int, seed: int) -> Tensor:
    """Return the centroids that examples are assigned to, drawn from a normal distribution.

    Their mean and variance are those (unbiased) of the D numbers of the last example's flattened feature, each divided
    by N.

    Args:
        outputs: the teacher's outputs.
        layer: index of `hidden_states`.
        k: number of centroids.
        seed: of the normal numbers.

    Returns:
        float32 [K, D].
    """
    n = len(outputs)
    last = dense(outputs, layer, np.asarray([n - 1]), outputs.longest, torch.device("cpu")).double()
    normal = torch.randn(k, last.shape[1], generator=torch.Generator().manual_seed(seed))
    return normal * float((last.var() / n).sqrt()) + float(last.mean() / n)


def cluster(
    outputs: TeacherOutputs, layer: int, k: int, progress: Progress, device: torch.device, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Cluster the flattened features of a layer as the published code does.

    The published code starts each centroid at zero and replaces it by (centroid + feature) / 2 for each example in
    turn. The last example of a cluster therefore weighs 1/2, the one before 1/4, and so on. Here the centroids are
    sums with these weights, which can be added in any order.

    Args:
        outputs: the teacher's outputs.
        layer: index of `hidden_states`.
        k: number of centroids.
        progress: called with the examples done.
        device: where products are computed.
        seed: of the start. Callers keep the default, because the name of a memory does not contain the seed.

    Returns:
        Centroids, float32 [K, D], and the cluster of each example, int32 [N]. Centroids of empty clusters stay zero.
    """
    n, hidden = len(outputs), outputs.width(layer)
    centres = start(outputs, layer, k, seed).to(device)
    norms = centres.square().sum(1)
    clusters, done = np.empty(n, np.int32), 0
    for rows, width in blocks(outputs, layer):
        points = dense(outputs, layer, rows, width, device)
        gaps = torch.addmm(norms, points, centres[:, : width * hidden].T, alpha=-2)
        clusters[rows] = gaps.argmin(1).int().cpu().numpy()
        done += len(rows)
        progress("published memory", done, 2 * n)
    weights = _weights(clusters)
    sums = torch.zeros(k, outputs.longest * hidden, dtype=torch.float64, device=device)
    for rows, width in blocks(outputs, layer, np.flatnonzero(weights)):
        shares = torch.zeros(k, len(rows), dtype=torch.float64)
        shares[clusters[rows], np.arange(len(rows))] = torch.from_numpy(weights[rows])
        sums[:, : width * hidden] += shares.to(device) @ dense(outputs, layer, rows, width, device).double()
    progress("published memory", 1, 1)
    return sums.float().cpu().numpy(), clusters


def _weights(clusters: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return each example's weight in its centroid, float64 [N]: 2^-(1 + later ones of its cluster), 0 below 2^-64."""
    later = np.empty(len(clusters), np.int64)
    seen: dict[int, int] = {}
    for row in range(len(clusters) - 1, -1, -1):
        cluster = int(clusters[row])
        later[row] = seen.get(cluster, 0)
        seen[cluster] = later[row] + 1
    return np.where(later < 64, np.exp2(-1.0 - later), 0.0)
