"""Compare a student's geometry with its teacher's: distances and cosines of pairs, and their gaps.

Pairs are pairs of tokens of an example (intra) or pairs of examples (local), each flattened with zeros at padded
positions, as in the loss terms L_I and L_L (docs/explanation/method.md, "Loss terms"). Everything is computed in
float64 from features stored in half precision (`teacher_outputs`), so a model compared with itself has gaps of exactly
0.
Shapes: S examples, n tokens, P pairs.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsd_tune.cka import centre_gram
from fsd_tune.data.batching import by_length
from fsd_tune.memory.teacher_outputs import TeacherOutputs
from fsd_tune.models.layer_cka import LayerFeatures, mean_cka, token_cka

# Limit of token pairs in memory; each takes 16 bytes for each model.
MOST_PAIRS = 4_000_000
_BINS = 40
_BATCH = 32
_COLUMNS = 8192

Pairs = tuple[NDArray[np.float64], NDArray[np.float64]]


def pairwise_geometry(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Euclidean distances and the cosines of all pairs of rows, both [..., n, n].

    Args:
        gram: products of the rows, float64 [..., n, n], not centred.

    Returns:
        Distances and cosines; the cosine with a zero vector is 0.
    """
    squares = gram.diagonal(dim1=-2, dim2=-1)
    distances = (squares.unsqueeze(-1) + squares.unsqueeze(-2) - 2 * gram).clamp(min=0).sqrt()
    norms = squares.clamp(min=1e-16).sqrt()
    return distances, gram / (norms.unsqueeze(-1) * norms.unsqueeze(-2))


def intra_cka(teacher: TeacherOutputs, student: TeacherOutputs) -> list[list[float]]:
    """Return the token-wise CKA of every student layer with every teacher layer, as the mean over examples.

    Args:
        teacher: the teacher's stored features.
        student: the student's stored features of the same examples.

    Returns:
        [student layers][teacher layers]; NaN if undefined.
    """

    def features() -> Iterator[LayerFeatures]:
        for rows, mask in _batches(teacher):
            student_features, teacher_features = (
                [_tokens(model, layer, rows, mask).float() for layer in sorted(model.shards)]
                for model in (student, teacher)
            )
            yield student_features, teacher_features, mask

    return token_cka(features())


def local_cka(teacher: list[Tensor], student: list[Tensor]) -> list[list[float]]:
    """Return the CKA over examples of every student layer with every teacher layer.

    Args:
        teacher: for each layer of the teacher, the products [S, S] of the flattened examples from `example_gram`.
        student: the same for the student.

    Returns:
        [student layers][teacher layers]; NaN if undefined.
    """
    centred_student, centred_teacher = ([centre_gram(gram) for gram in grams] for grams in (student, teacher))
    return mean_cka([(centred_student, centred_teacher)])


def example_gram(outputs: TeacherOutputs, layer: int, centroids: NDArray[np.float32] | None = None) -> Tensor:
    """Return the products of the flattened examples and, after them, of centroids.

    Args:
        outputs: features of a model on the sample.
        layer: index of `hidden_states`.
        centroids: float32 [K, D]; the narrower of examples and centroids is padded with zeros.

    Returns:
        float64 [S + K, S + K], not centred.
    """
    rows = np.arange(len(outputs))
    parts: list[NDArray[Any]] = [outputs.features(layer, rows, outputs.longest).reshape(len(rows), -1)]
    parts += [] if centroids is None else [centroids]
    size = sum(len(part) for part in parts)
    gram = torch.zeros(size, size, dtype=torch.float64)
    for start in range(0, max(part.shape[1] for part in parts), _COLUMNS):
        blocks = [part[:, start : start + _COLUMNS].astype(np.float64) for part in parts]
        width = max(block.shape[1] for block in blocks)
        block = np.concatenate([np.pad(block, ((0, 0), (0, width - block.shape[1]))) for block in blocks])
        gram += torch.from_numpy(block @ block.T)
    return gram


def with_means(gram: Tensor, clusters: NDArray[np.integer[Any]]) -> Tensor:
    """Return the products of examples and, after them, of the mean of each cluster's examples.

    Args:
        gram: [S, S], as `example_gram` returns it.
        clusters: the cluster of each example, int [S].

    Returns:
        [S + K', S + K'] for K' clusters that have examples.
    """
    member = torch.from_numpy(clusters[None] == np.unique(clusters)[:, None]).double()
    mixed = torch.cat([torch.eye(len(gram), dtype=torch.float64), member / member.sum(1, keepdim=True)])
    return mixed @ gram @ mixed.T


def intra_pairs(outputs: TeacherOutputs, layer: int, examples: int) -> Pairs:
    """Return the distances and cosines of all pairs of tokens within an example, both [P].

    Args:
        outputs: features of a model on the sample.
        layer: index of `hidden_states`.
        examples: number of examples to use, from the first.

    Returns:
        Two float64 arrays; P is the number of pairs in the used examples, without padding.
    """
    parts = []
    for rows, mask in _batches(outputs, examples):
        tokens = _tokens(outputs, layer, rows, mask).double()
        distances_and_cosines = pairwise_geometry(tokens @ tokens.transpose(1, 2))
        # Padding comes last, so in a pair (i, j) with i < j only j can be padding.
        is_pair = torch.ones(mask.shape[1], mask.shape[1]).triu(1).bool() & mask.bool().unsqueeze(1)
        parts.append([values[is_pair].numpy() for values in distances_and_cosines])
    distances, cosines = (np.concatenate(values) for values in zip(*parts, strict=True))
    return distances, cosines


def local_pairs(gram: Tensor) -> Pairs:
    """Return the distances and cosines of all pairs of examples, both [P].

    Args:
        gram: products of the flattened examples, float64 [S, S], as `example_gram` returns them.

    Returns:
        Two float64 arrays; P is S(S - 1)/2.
    """
    upper = torch.ones_like(gram).triu(1).bool()
    distances, cosines = (values[upper].numpy() for values in pairwise_geometry(gram))
    return distances, cosines


def examples_within(lengths: NDArray[np.int64], most: int = MOST_PAIRS) -> int:
    """Return the number of first examples that together have at most `most` pairs of tokens.

    Args:
        lengths: tokens of each example, int64 [S].
        most: limit of pairs.

    Returns:
        At least 1, even if the first example has more pairs.
    """
    pairs = np.cumsum(lengths * (lengths - 1) // 2)
    return max(1, int(np.searchsorted(pairs, most, "right")))


def gap(teacher: Pairs, student: Pairs) -> dict[str, Any]:
    """Return the published metrics: mean and standard deviation of the L1 gap over all pairs (Jung et al., 2023).

    Args:
        teacher: distances and cosines of the teacher's pairs, both [P].
        student: distances and cosines of the same pairs of the student.

    Returns:
        {"pairs": P, "distance", "relative_distance", "cosine": {"mean", "deviation"}}. Relative distances are divided
        by their mean in the same model, so that students of another width can be compared; all 0 stays 0.
    """

    def figures(first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, float]:
        difference = np.abs(first - second)
        return {"mean": float(difference.mean()), "deviation": float(difference.std())}

    relative = [distances / (distances.mean() or 1.0) for distances, _ in (teacher, student)]
    return {
        "pairs": len(teacher[0]),
        "distance": figures(teacher[0], student[0]),
        "relative_distance": figures(*relative),
        "cosine": figures(teacher[1], student[1]),
    }


def cosine_euclidean(teacher: Pairs, student: Pairs) -> dict[str, Any]:
    """Count pairs by distance and cosine, on the same grid for both models.

    Args:
        teacher: distances and cosines of the teacher's pairs, both [P].
        student: distances and cosines of the same pairs of the student.

    Returns:
        {"cosine": edges, "distance": edges, "teacher", "student": counts by distance and cosine}.
    """
    edges = []
    for index in (1, 0):  # cosines, distances
        low, high = (float(pick([pick(pairs[index]) for pairs in (teacher, student)])) for pick in (np.min, np.max))
        margin = 0.0 if high > low else max(abs(low), 1.0) * 0.01
        edges.append(np.linspace(low - margin, high + margin, _BINS + 1))
    counts = {
        name: np.histogram2d(pairs[0], pairs[1], bins=(edges[1], edges[0]))[0].astype(int).tolist()
        for name, pairs in (("teacher", teacher), ("student", student))
    }
    return {"cosine": edges[0].tolist(), "distance": edges[1].tolist(), **counts}


def embedded(gram: Tensor, seed: int) -> NDArray[np.float32]:
    """Return scikit-learn's t-SNE of points, computed from their Euclidean distances.

    Args:
        gram: products of the points, [N, N].
        seed: the seed of t-SNE.

    Returns:
        float32 [N, 2].
    """
    from sklearn.manifold import TSNE

    distances = pairwise_geometry(gram)[0].numpy()
    np.fill_diagonal(distances, 0.0)
    perplexity = min(30.0, (len(distances) - 1) / 3)
    tsne = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=seed)
    points: NDArray[np.float32] = tsne.fit_transform(distances).astype(np.float32)
    return points


def _batches(outputs: TeacherOutputs, examples: int | None = None) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Yield rows of similar length and their mask [B, n]. They depend only on the tokens, not on the model."""
    lengths = np.diff(outputs.offsets)[:examples]
    for rows in by_length(lengths, _BATCH):
        yield rows, torch.from_numpy((np.arange(lengths[rows].max()) < lengths[rows, None]).astype(np.int64))


def _tokens(outputs: TeacherOutputs, layer: int, rows: NDArray[np.int64], mask: Tensor) -> Tensor:
    return torch.from_numpy(outputs.features(layer, rows, mask.shape[1]))
