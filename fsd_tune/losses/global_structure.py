"""The term of structures across batches: L_G (global inter-feature), against a memory of centroids.

Jung et al., "Feature structure distillation with Centered Kernel Alignment in BERT transferring", 2023,
arXiv 2204.08922; formulas in docs/explanation/method.md, "Loss terms".

Shapes: B examples, D and D' flattened feature widths of teacher and student, K centroids. Inputs in half precision
are computed in float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fsd_tune.cka import CENTRING_ERROR, CentredGram, centred_gram, widen
from fsd_tune.losses.alignment import Comparison, alignment_losses


class _Geometry(torch.autograd.Function):
    """An autograd function for the distances and cosines [B, K], and the memory's Gram matrix [K, K], not centred.

    The student memory is the largest trainable tensor beside the embeddings. Autograd would build its gradient from
    five tensors of its size (two for the Gram matrix, its norms, its centring, the features' product padded to its
    width). Here all else is computed from the small matrices of products.
    """

    @staticmethod
    def forward(ctx: Any, feature: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(feature.device.type, enabled=False):
            gram, product = memory @ memory.T, feature @ memory[:, : feature.shape[-1]].T
            feature_square = torch.bmm(feature.unsqueeze(1), feature.unsqueeze(2)).squeeze(-1)
            memory_square = gram.diagonal()
            # Rounding can leave a small negative square.
            tiny = torch.finfo(feature.dtype).tiny
            distances = (feature_square + memory_square).sub_(product, alpha=2).clamp_(min=tiny).sqrt_()
            # The cosine with a zero vector is then 0.
            feature_square, memory_square = feature_square.clamp(min=1e-16), memory_square.clamp(min=1e-16)
            inverse = (feature_square * memory_square).rsqrt_()
            cosines = product * inverse
            ctx.save_for_backward(feature, memory, distances, cosines, inverse, feature_square, memory_square)
            return distances, cosines, gram

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        feature, memory, distances, cosines, inverse, feature_square, memory_square = ctx.saved_tensors
        to_distances, to_cosines, to_gram = gradients
        width = feature.shape[-1]
        with torch.autocast(feature.device.type, enabled=False):
            # Below the clamp the gradient is zero, as at a true minimum.
            smallest = torch.finfo(feature.dtype).tiny ** 0.5
            to_squares = to_distances / F.threshold(distances, smallest, torch.inf)
            to_product = to_cosines * inverse - to_squares
            to_logs = to_cosines * cosines
            to_feature = to_memory = None
            if ctx.needs_input_grad[0]:
                factor = torch.addcdiv(to_squares.sum(1, True), to_logs.sum(1, True), feature_square, value=-1)
                to_feature = torch.addcmul(to_product @ memory[:, :width], feature, factor)
            if ctx.needs_input_grad[1]:
                mixed = to_gram + to_gram.T
                mixed.diagonal().add_(torch.addcdiv(to_squares.sum(0), to_logs.sum(0), memory_square, value=-1))
                to_memory = mixed @ memory
                to_memory[:, :width].addmm_(to_product.T, feature)
        return to_feature, to_memory


def _geometry(feature: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances and cosines as `distances_and_cosines`, and the memory's Gram matrix [K, K], not centred."""
    feature, memory = widen(feature), widen(memory)
    assert feature.shape[-1] <= memory.shape[-1], (feature.shape, memory.shape)
    result: tuple[Tensor, Tensor, Tensor] = _Geometry.apply(feature, memory)  # type: ignore[no-untyped-call]
    return result


def distances_and_cosines(feature: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Return Euclidean distances and cosines between each flattened feature and each centroid.

    A feature narrower than the memory (of a batch padded to its own longest example) counts as zero beyond its end, so
    the product needs only the positions of the batch.

    Args:
        feature: [B, d] with d <= D, any floating dtype.
        memory: [K, D], any floating dtype.

    Returns:
        Distances [B, K] and cosines [B, K]; the cosine with a zero vector is 0.
    """
    distances, cosines, _ = _geometry(feature, memory)
    return distances, cosines


@dataclass(frozen=True)
class GlobalTargets:
    """The teacher's part of L_G for one batch.

    Attributes:
        distances: Euclidean, between each feature and each centroid, [B, K].
        cosines: likewise, [B, K].
        memory_gram: the centred Gram matrix of the teacher memory, [K, K].
    """

    distances: Tensor
    cosines: Tensor
    memory_gram: CentredGram


class _OverMean(torch.autograd.Function):
    """An autograd function that divides distances by their mean, with the gradient through the mean."""

    @staticmethod
    def forward(ctx: Any, distances: Tensor) -> Tensor:
        mean = distances.mean()
        relative = distances / mean
        ctx.save_for_backward(relative, mean)
        return relative

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        relative, mean = ctx.saved_tensors
        along = torch.dot(gradient.flatten(), relative.flatten())
        result: Tensor = torch.sub(gradient, along, alpha=1 / gradient.numel()) / mean
        return result


def global_parts(
    targets: GlobalTargets, student_feature: Tensor, student_memory: Tensor, distance: str = "raw"
) -> tuple[Comparison, dict[str, Tensor]]:
    """Return the comparison of the memories by CKA, and the other two parts of L_G.

    Args:
        targets: the teacher's part.
        student_feature: flattened features [B, d'] with d' <= D'.
        student_memory: centroids [K, D'].
        distance: "raw" or "relative", see `global_terms`.

    Returns:
        The comparison, and {"distance": MSE, "cosine": MSE}, each a scalar.
    """
    distances, cosines, gram = _geometry(student_feature, student_memory)
    target = targets.distances.to(distances.dtype)
    if distance == "relative":
        distances = _OverMean.apply(distances)  # type: ignore[no-untyped-call]
        target = target / target.mean()
    else:
        assert distance == "raw", distance
    parts = {
        "distance": F.mse_loss(distances, target),
        "cosine": F.mse_loss(cosines, targets.cosines.to(cosines.dtype)),
    }
    return _compare_memories(targets.memory_gram, gram), parts


@torch.no_grad()
def _compare_memories(teacher: CentredGram, gram: Tensor) -> Comparison:
    """Return the comparison of the teacher memory with the Gram matrix [K, K] of the student memory, not centred."""
    grams = torch.stack((teacher.matrix, gram.detach()))
    totals = grams.diagonal(dim1=-2, dim2=-1).sum(-1)
    grams = grams - grams.mean(-1, keepdim=True)
    grams = grams - grams.mean(-2, keepdim=True)
    eps = torch.finfo(grams.dtype).eps
    # Centring the products cancels digits, see `fsd_tune.cka.centre_gram`.
    # If the teacher's CKA is undefined, so is every comparison with it: the size is then infinite.
    sizes = (totals * (len(gram) / eps / CENTRING_ERROR**2) / teacher.defined).sqrt()
    return Comparison(gram, grams[:, None, None], sizes[:, None, None])


def global_terms(
    targets: GlobalTargets, student_feature: Tensor, student_memory: Tensor, distance: str = "raw"
) -> dict[str, Tensor]:
    """Return the three parts of L_G.

    Args:
        targets: the teacher's part.
        student_feature: flattened features [B, d'] with d' <= D'.
        student_memory: centroids [K, D'].
        distance: "raw", or "relative" to divide each side's distances by their mean over the B x K entries; the
            gradient passes through the student's mean.

    Returns:
        {"memory": -log CKA of the memories, "distance": MSE, "cosine": MSE}, each a scalar.
    """
    comparison, parts = global_parts(targets, student_feature, student_memory, distance)
    return alignment_losses({"memory": [comparison]}) | parts


def global_sum(parts: Mapping[str, Tensor], gamma_m: float) -> Tensor:
    """Return L_G from its parts: memory + gamma_m * distance + (1 - gamma_m) * cosine.

    Args:
        parts: as `global_terms` returns them.
        gamma_m: weight of the distances, in [0, 1].

    Returns:
        A scalar.
    """
    return parts["memory"] + torch.lerp(parts["cosine"], parts["distance"], gamma_m)


def global_loss(
    teacher_feature: Tensor,
    student_feature: Tensor,
    teacher_memory: Tensor,
    student_memory: Tensor,
    gamma_m: float,
    distance: str = "raw",
) -> Tensor:
    """Return L_G, which compares the features of teacher and student with the centroids in their memories.

    The global inter-feature term of Jung et al. (2023, arXiv 2204.08922); see docs/explanation/method.md, "Teacher
    memory".

    Args:
        teacher_feature: flattened features [B, D], any floating dtype.
        student_feature: flattened features [B, D'], any floating dtype.
        teacher_memory: centroids [K, D].
        student_memory: trainable centroids [K, D'].
        gamma_m: weight of the distances, in [0, 1]; 1 - gamma_m weighs the cosines.
        distance: "raw" or "relative", see `global_terms`.

    Returns:
        A scalar.

    Example:
        >>> import torch
        >>> feature = torch.tensor([[1.0, 0.0]])
        >>> memory = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> round(abs(global_loss(feature, feature, memory, memory, gamma_m=0.5).item()), 4)
        0.0
        >>> round(global_loss(feature, 2 * feature, memory, memory, gamma_m=0.5).item(), 4)
        0.4189
    """
    targets = GlobalTargets(*distances_and_cosines(teacher_feature, teacher_memory), centred_gram(teacher_memory))
    return global_sum(global_terms(targets, student_feature, student_memory, distance), gamma_m)
