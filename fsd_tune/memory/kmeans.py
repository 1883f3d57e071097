"""k-means over the stored teacher features of a whole split, in bounded memory.

scikit-learn clusters sketches of a sample; sweeps over all stored features (Lloyd's iterations) then refine that.
Shapes: N examples, K clusters, D flattened width (longest example times hidden size).
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.memory.teacher_outputs import Progress, TeacherOutputs, blocks, dense

# The start uses at most this many examples, each as a sketch of SKETCH_SIZE numbers, so that its time and memory are
# bounded for a split of any size.
SAMPLE_EXAMPLES = 32_768
SKETCH_SIZE = 256
_SWEEPS = 10
# Sweeps end when at most this share of the examples changes its cluster.
_MOVED_SHARE = 0.03
_RESTARTS = 3
_CPU = torch.device("cpu")


def cluster(
    outputs: TeacherOutputs, layer: int, k: int, progress: Progress, device: torch.device = _CPU, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Cluster the flattened features of a layer; no cluster is empty.

    Args:
        outputs: the teacher's outputs.
        layer: index of `hidden_states`.
        k: number of centroids, at most N.
        progress: called with the progress of the sweeps.
        device: where products are computed.
        seed: of the start. Callers keep the default, because the name of a memory does not contain the seed.

    Returns:
        Centroids, float32 [K', D], and the cluster of each example, int32 [N]. K' is k, or the number of distinct
        examples if that is smaller.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    n, longest = len(outputs), outputs.longest
    assert k <= n, (k, n)
    sample_size = max(k, SAMPLE_EXAMPLES)
    rng = np.random.default_rng(seed)
    sample = np.arange(n) if n <= sample_size else np.sort(rng.choice(n, sample_size, replace=False))
    progress("k-means", 0, 1)
    with warnings.catch_warnings():
        # Fewer distinct examples than centroids leave empty clusters, which are dropped below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        sketches = sketch(outputs, layer, sample, device, seed)
        labels = KMeans(k, n_init=_RESTARTS, random_state=seed).fit(sketches).labels_
    sums = ClusterSums(int(labels.max()) + 1, n, longest * outputs.width(layer), device)
    for rows, width in blocks(outputs, layer, sample):
        sums.move(rows, dense(outputs, layer, rows, width, device), labels[np.searchsorted(sample, rows)])
    sums.drop_empty()
    return refine(outputs, layer, sums, progress)


class ClusterSums:
    """Clusters that are stored as sums of their examples, so that moving an example costs only two additions.

    Attributes:
        labels: int32 [N], the cluster of each example; -1 for none yet.
        counts: int64 [K], examples of each cluster.
    """

    def __init__(self, k: int, n: int, width: int, device: torch.device) -> None:
        """Start without any example in a cluster.

        Args:
            k: number of clusters.
            n: number of examples.
            width: D.
            device: where the sums are kept.
        """
        self._sums = torch.zeros(k, width, dtype=torch.float64, device=device)
        self.counts = np.zeros(k, np.int64)
        self.labels = np.full(n, -1, np.int32)

    def move(self, rows: NDArray[np.int64], points: Tensor, labels: NDArray[np.int32]) -> int:
        """Move examples into clusters.

        Args:
            rows: examples, int64 [B].
            points: their features, float32 [B, at most D]; numbers beyond its width are zero.
            labels: their new clusters, int32 [B].

        Returns:
            The number of examples that changed their cluster.
        """
        moved = np.flatnonzero(self.labels[rows] != labels)
        if len(moved) == 0:
            return 0
        new, old = labels[moved], self.labels[rows[moved]]
        # A product instead of scattered additions: 1 for an example that enters a cluster, -1 for one that leaves it.
        change = torch.zeros(len(self.counts), len(moved))
        change[new, np.arange(len(moved))] = 1
        change[old[old >= 0], np.flatnonzero(old >= 0)] = -1
        self._sums[:, : points.shape[1]] += change.to(points) @ points[torch.from_numpy(moved).to(points.device)]
        k = len(self.counts)
        self.counts += np.bincount(new, minlength=k) - np.bincount(old[old >= 0], minlength=k)
        self.labels[rows[moved]] = new
        return len(moved)

    def drop_empty(self) -> None:
        """Remove the clusters without an example."""
        nonempty = np.flatnonzero(self.counts)
        new_index = np.full(len(self.counts), -1, np.int32)
        new_index[nonempty] = np.arange(len(nonempty))
        self.labels = np.where(self.labels >= 0, new_index[self.labels], -1).astype(np.int32)
        self._sums = self._sums[torch.from_numpy(nonempty).to(self._sums.device)]
        self.counts = self.counts[nonempty]

    def centroids(self) -> Tensor:
        """Return the means of the clusters, float32 [K, D]."""
        return (self._sums / torch.from_numpy(self.counts).to(self._sums.device)[:, None]).float()


def sketch(
    outputs: TeacherOutputs, layer: int, sample: NDArray[np.int64], device: torch.device, seed: int
) -> NDArray[np.float32]:
    """Return a short vector for each example; its distances to the others approximate those of the features.

    A Gaussian projection changes each squared distance by a share of about sqrt(2 / SKETCH_SIZE) (Johnson and
    Lindenstrauss, 1984).

    Args:
        outputs: the teacher's outputs.
        layer: index of `hidden_states`.
        sample: examples in ascending order, int64 [B].
        device: where products are computed.
        seed: of the projection.

    Returns:
        float32 [B, SKETCH_SIZE], or the features themselves if they are no wider.
    """
    whole = outputs.longest * outputs.width(layer)
    if whole <= SKETCH_SIZE:
        return dense(outputs, layer, sample, outputs.longest, device).cpu().numpy()
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(whole, SKETCH_SIZE, generator=generator).to(device) / SKETCH_SIZE**0.5
    # Subtracting one example from all keeps distances, and keeps rounding small when the examples lie close together.
    origin = dense(outputs, layer, sample[:1], outputs.longest, device) @ projection
    sketches = np.empty((len(sample), SKETCH_SIZE), np.float32)
    for rows, width in blocks(outputs, layer, sample):
        points = dense(outputs, layer, rows, width, device)
        sketches[np.searchsorted(sample, rows)] = (points @ projection[: points.shape[1]] - origin).cpu().numpy()
    return sketches


def refine(
    outputs: TeacherOutputs, layer: int, sums: ClusterSums, progress: Progress
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Run Lloyd's iterations over all examples, until at most 3 in 100 change their cluster.

    Args:
        outputs: the teacher's outputs.
        layer: index of `hidden_states`.
        sums: the starting clusters; changed in place.
        progress: called with the examples done.

    Returns:
        Centroids, float32 [K, D], and the cluster of each example, int32 [N].
    """
    n, hidden = len(outputs), outputs.width(layer)
    squares = np.full(n, np.nan, np.float32)  # squared norms of the examples, the same in every sweep
    for sweep in range(_SWEEPS):
        centroids = sums.centroids()
        norms = centroids.square().sum(1)
        gaps = np.empty(n, np.float32)
        moved = done = 0
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
        if moved <= n * _MOVED_SHARE:
            break
    progress("k-means", 1, 1)
    return sums.centroids().cpu().numpy(), sums.labels
