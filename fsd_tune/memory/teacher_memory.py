"""The teacher memory: centroids of the teacher's flattened features and each example's targets against them.

Shapes: N examples, K centroids, D flattened width (longest example times hidden size).
See docs/explanation/method.md, "Teacher memory".
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fsd_tune.losses import distances_and_cosines
from fsd_tune.memory import kmeans, published_kmeans
from fsd_tune.memory.sizes import memory_bytes
from fsd_tune.memory.teacher_outputs import Progress, TeacherOutputs, blocks, dense
from fsd_tune.storage import artifacts

# Part of a memory's name: raise it when the procedure changes.
_PROCEDURE = 4
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class TeacherMemory:
    """Read-only centroids and targets.

    Attributes:
        centroids: float32 [K, D], zero beyond the longest example's positions.
        sizes: int64 [K], number of examples of each cluster; only the `published` algorithm leaves clusters empty.
        clusters: int32 [N], index of each example's cluster.
        distances: float32 [N, K], Euclidean distance of each example to each centroid.
        cosines: float32 [N, K], cosine of each example and each centroid.
    """

    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    clusters: NDArray[np.int32]
    distances: NDArray[np.float32]
    cosines: NDArray[np.float32]


def memory_key(outputs_key: str, layer: int, centroids: int, algorithm: str) -> str:
    """Return the name of a memory: a digest of everything that it depends on.

    Args:
        outputs_key: name of the teacher outputs.
        layer: index of `hidden_states`.
        centroids: K.
        algorithm: kmeans or published.
    """
    return artifacts.digest(outputs_key, layer, centroids, algorithm, _PROCEDURE)


def write_memory(
    folder: Path,
    outputs: TeacherOutputs,
    layer: int,
    k: int,
    algorithm: str,
    progress: Progress,
    device: torch.device = _CPU,
) -> None:
    """Cluster the features, compute the targets of every example, and write the memory.

    Args:
        folder: folder to write.
        outputs: the teacher's outputs.
        layer: index of `hidden_states`.
        k: number of centroids, at most N.
        algorithm: kmeans or published.
        progress: called with the progress of each stage.
        device: where products are computed.

    Raises:
        FsdTuneError: the disk is full.
    """
    started = time.monotonic()
    n, width = len(outputs), outputs.longest * outputs.width(layer)
    with artifacts.writing(folder, bytes_needed=memory_bytes(n, k, width)) as (temporary, facts):
        cluster = {"kmeans": kmeans.cluster, "published": published_kmeans.cluster}[algorithm]
        centroids, clusters = cluster(outputs, layer, k, progress, device)
        on_device = torch.from_numpy(centroids).to(device)
        shape = (n, len(centroids))
        distances, cosines = (
            artifacts.reserved(temporary / f"{name}.npy", shape, np.float32) for name in ("distances", "cosines")
        )
        inertia, done = 0.0, 0
        for rows, longest in blocks(outputs, layer):
            feature = dense(outputs, layer, rows, longest, device)
            d, c = (part.cpu().numpy() for part in distances_and_cosines(feature, on_device))
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


def read_memory(folder: Path, mapped: bool) -> TeacherMemory:
    """Return the memory in `folder`.

    Args:
        folder: a folder that `write_memory` has written.
        mapped: map the files instead of reading them into memory.

    Raises:
        DamagedError: a file is damaged.
    """
    names = ("centroids", "sizes", "clusters", "distances", "cosines")
    return TeacherMemory(*(artifacts.read_array(folder / f"{name}.npy", mapped) for name in names))
