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

from fsd_tune.cka import CentredGram, centre_gram, centred_gram, cka_loss, cka_of, widen


class _Products(torch.autograd.Function):
    """An autograd function for memory memory^T [K, K] and feature memory^T [B, K] with one gradient of the memory.

    The student memory is the largest trainable tensor beside the embeddings. Autograd would build its gradient from
    five tensors of its size (two for the Gram matrix, its norms, its centring, the features' product padded to its
    width). Everything else in L_G is a function of these two small matrices.
    """

    @staticmethod
    def forward(ctx: Any, feature: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(feature, memory)
        return memory @ memory.T, feature @ memory[:, : feature.shape[-1]].T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        feature, memory = ctx.saved_tensors
        gram, product = gradients
        width = feature.shape[-1]
        to_feature = product @ memory[:, :width] if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return to_feature, None
        to_memory = (gram + gram.T) @ memory
        to_memory[:, :width].addmm_(product.T, feature)
        return to_feature, to_memory


def _compare(feature: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances and cosines as `distances_and_cosines`, and the memory's Gram matrix [K, K], not centred."""
    with torch.autocast(feature.device.type, enabled=False):
        feature, memory = widen(feature), widen(memory)
        assert feature.shape[-1] <= memory.shape[-1], (feature.shape, memory.shape)
        gram, product = _Products.apply(feature, memory)  # type: ignore[no-untyped-call]
        feature_square = feature.square().sum(-1, keepdim=True)
        memory_square = gram.diagonal()
        # Rounding can leave a small negative square. Below the clamp the gradient is zero, as at a true minimum.
        tiny = torch.finfo(feature.dtype).tiny
        distances = (feature_square + memory_square - 2 * product).clamp(min=tiny).sqrt()
        cosines = product / (feature_square.clamp(min=1e-16).sqrt() * memory_square.clamp(min=1e-16).sqrt())
        return distances, cosines, gram


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
    distances, cosines, _ = _compare(feature, memory)
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
    distances, cosines, gram = _compare(student_feature, student_memory)
    target = targets.distances.to(distances.dtype)
    if distance == "relative":
        distances = distances / distances.mean()
        target = target / target.mean()
    else:
        assert distance == "raw", distance
    return {
        "memory": cka_loss(*cka_of(targets.memory_gram, centre_gram(gram))),
        "distance": F.mse_loss(distances, target),
        "cosine": F.mse_loss(cosines, targets.cosines.to(cosines.dtype)),
    }


def global_sum(parts: Mapping[str, Tensor], gamma_m: float) -> Tensor:
    """Return L_G from its parts: memory + gamma_m * distance + (1 - gamma_m) * cosine.

    Args:
        parts: as `global_terms` returns them.
        gamma_m: weight of the distances, in [0, 1].

    Returns:
        A scalar.
    """
    return parts["memory"] + gamma_m * parts["distance"] + (1 - gamma_m) * parts["cosine"]


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
