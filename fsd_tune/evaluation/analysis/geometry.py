"""Compare a student's geometry with its teacher's: distances and cosines of pairs, and their gaps.

Pairs are the tokens of an example (intra) or the examples, each flattened with zeros at padded positions (local), as
in the loss terms L_I and L_L (docs/explanation/method.md, "Loss terms"). Everything is computed in float64 from
features stored in half precision (`teacher_outputs`), so that a model compared with itself has gaps of exactly 0.
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

# Limit of token pairs in memory: 16 bytes each for either model.
MOST_PAIRS = 4_000_000
_BINS = 40
_BATCH = 32
_COLUMNS = 8192

Pairs = tuple[NDArray[np.float64], NDArray[np.float64]]


def pairwise_geometry(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Euclidean distances and the cosines of all pairs of rows, both [..., n, n].

    Args:
        gram: products of the rows, float64 [..., n, n], not centred. The cosine with a zero vector is 0.
    """
    squares = gram.diagonal(dim1=-2, dim2=-1)
    distances = (squares.unsqueeze(-1) + squares.unsqueeze(-2) - 2 * gram).clamp(min=0).sqrt()
    norms = squares.clamp(min=1e-16).sqrt()
    return distances, gram / (norms.unsqueeze(-1) * norms.unsqueeze(-2))


def intra_cka(teacher: TeacherOutputs, student: TeacherOutputs) -> list[list[float]]:
    """Return the token-wise CKA of all layers with all layers, the mean over examples.

    Args:
        teacher: its stored features.
        student: stored features of the same examples.

    Returns:
        [student layers][teacher layers]; NaN where undefined.
    """

    def features() -> Iterator[LayerFeatures]:
        for rows, mask in _batches(teacher):
            of_student, of_teacher = (
                [_tokens(model, layer, rows, mask).float() for layer in sorted(model.shards)]
                for model in (student, teacher)
            )
            yield of_student, of_teacher, mask

    return token_cka(features())


def local_cka(teacher: list[Tensor], student: list[Tensor]) -> list[list[float]]:
    """Return the CKA over the examples of all layers with all layers.

    Args:
        teacher: for each layer the products [S, S] of the flattened examples, as `example_gram` gives them.
        student: likewise.

    Returns:
        [student layers][teacher layers]; NaN where undefined.
    """
    of_student, of_teacher = ([centre_gram(gram) for gram in grams] for grams in (student, teacher))
    return mean_cka([(of_student, of_teacher)])


def example_gram(outputs: TeacherOutputs, layer: int, centroids: NDArray[np.float32] | None = None) -> Tensor:
    """Return the products of the flattened examples, followed by centroids: float64 [S + K, S + K].

    Args:
        outputs: features of a model on the sample.
        layer: index of `hidden_states`.
        centroids: float32 [K, D]; the narrower of examples and centroids is padded with zeros.
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
    """Return the products of examples, followed by the mean of each cluster's examples: [S + K', S + K'].

    Args:
        gram: [S, S], as `example_gram` returns it.
        clusters: int [S]; a cluster without examples has no mean.
    """
    member = torch.from_numpy(clusters[None] == np.unique(clusters)[:, None]).double()
    mixed = torch.cat([torch.eye(len(gram), dtype=torch.float64), member / member.sum(1, keepdim=True)])
    return mixed @ gram @ mixed.T


def intra_pairs(outputs: TeacherOutputs, layer: int, examples: int) -> Pairs:
    """Return the distances and cosines of all pairs of tokens within an example, both [P].

    Args:
        outputs: features of a model on the sample.
        layer: index of `hidden_states`.
        examples: use this many of the first examples.

    Returns:
        Two float64 arrays; P counts the pairs of all used examples, without padding.
    """
    parts = []
    for rows, mask in _batches(outputs, examples):
        tokens = _tokens(outputs, layer, rows, mask).double()
        both = pairwise_geometry(tokens @ tokens.transpose(1, 2))
        # Real tokens come first, so that of a pair (i, j) with i < j only j may be padding.
        kept = torch.ones(mask.shape[1], mask.shape[1]).triu(1).bool() & mask.bool().unsqueeze(1)
        parts.append([values[kept].numpy() for values in both])
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
    """Return how many of the first examples together have at most `most` pairs of tokens; at least one.

    Args:
        lengths: tokens of each example, int64 [S].
        most: limit of pairs.
    """
    pairs = np.cumsum(lengths * (lengths - 1) // 2)
    return max(1, int(np.searchsorted(pairs, most, "right")))


def gap(teacher: Pairs, student: Pairs) -> dict[str, Any]:
    """Return the published metrics: mean and standard deviation of the L1 gap over all pairs (Jung et al., 2023).

    Args:
        teacher: distances and cosines of its pairs, both [P].
        student: those of the same pairs.

    Returns:
        {"pairs": P, "distance", "relative_distance", "cosine": {"mean", "deviation"}}. Relative distances are divided
        by the mean of their own model, so that students of another width can be compared; if all are 0, so is the gap.
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
        teacher: distances and cosines of its pairs, both [P].
        student: those of the same pairs.

    Returns:
        {"cosine": edges, "distance": edges, "teacher", "student": counts by distance and cosine}.
    """
    edges = []
    for which in (1, 0):
        low, high = (float(pick([pick(pairs[which]) for pairs in (teacher, student)])) for pick in (np.min, np.max))
        margin = 0.0 if high > low else max(abs(low), 1.0) * 0.01
        edges.append(np.linspace(low - margin, high + margin, _BINS + 1))
    counts = {
        name: np.histogram2d(pairs[0], pairs[1], bins=(edges[1], edges[0]))[0].astype(int).tolist()
        for name, pairs in (("teacher", teacher), ("student", student))
    }
    return {"cosine": edges[0].tolist(), "distance": edges[1].tolist(), **counts}


def embedded(gram: Tensor, seed: int) -> NDArray[np.float32]:
    """Return scikit-learn's t-SNE of points, float32 [N, 2], from their Euclidean distances.

    Args:
        gram: products of the points, [N, N].
        seed: of t-SNE.
    """
    from sklearn.manifold import TSNE

    distances = pairwise_geometry(gram)[0].numpy()
    np.fill_diagonal(distances, 0.0)
    perplexity = min(30.0, (len(distances) - 1) / 3)
    tsne = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=seed)
    points: NDArray[np.float32] = tsne.fit_transform(distances).astype(np.float32)
    return points


def _batches(outputs: TeacherOutputs, examples: int | None = None) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Yield rows of similar length and their mask [B, n]; the same for all models that have read the same tokens."""
    lengths = np.diff(outputs.offsets)[:examples]
    for rows in by_length(lengths, _BATCH):
        yield rows, torch.from_numpy((np.arange(lengths[rows].max()) < lengths[rows, None]).astype(np.int64))


def _tokens(outputs: TeacherOutputs, layer: int, rows: NDArray[np.int64], mask: Tensor) -> Tensor:
    return torch.from_numpy(outputs.features(layer, rows, mask.shape[1]))
