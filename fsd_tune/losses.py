"""The loss terms of feature structure distillation and of the methods that it is compared with.

Jung et al., "Feature structure distillation with Centered Kernel Alignment in BERT transferring", 2023,
arXiv 2204.08922; formulas in docs/explanation/method.md, "Loss terms". Losses receive tensors, never models.

Shapes: B examples, n tokens, H and H' hidden sizes of teacher and student, D and D' flattened feature widths,
K centroids, C classes. Inputs in half precision are computed in float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fsd_tune.cka import CentredGram, centre_gram, centred_gram, cka_loss, cka_of, widen

# ---------------------------------------------------------------- Labels and soft targets


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy with the labels, or the MSE for regression.

    Args:
        logits: [B, C]; C = 1 means regression.
        labels: int64 [B], or float [B] for regression.

    Returns:
        A scalar.
    """
    logits = widen(logits)
    if logits.shape[-1] == 1:
        return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


def kd_loss(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over classes, averaged over the batch.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531. For regression (C = 1) it is
    the MSE between the logits and the temperature has no effect, because a softmax over one logit is constant.

    Args:
        teacher_logits: [B, C], any floating dtype.
        student_logits: [B, C], any floating dtype.
        temperature: T, above 0.

    Returns:
        A scalar, float32 (float64 if the student's logits are).

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[2.0, 0.0]])
        >>> round(kd_loss(teacher, torch.tensor([[0.0, 0.0]]), temperature=2.0).item(), 4)
        0.4438
        >>> kd_loss(teacher, teacher, temperature=2.0).item()
        0.0
    """
    teacher, student = widen(teacher_logits), widen(student_logits)
    if student.shape[-1] == 1:
        return F.mse_loss(student, teacher)
    soft = F.kl_div(
        F.log_softmax(student / temperature, -1),
        F.log_softmax(teacher / temperature, -1),
        reduction="batchmean",
        log_target=True,
    )
    return soft * temperature**2


# ---------------------------------------------------------------- Feature structure distillation: L_I and L_L


def intra_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return L_I: -log of the batch's mean CKA, computed for each example over its tokens.

    The intra-feature term of Jung et al. (2023, arXiv 2204.08922).

    Args:
        teacher: hidden states [B, n, H], any floating dtype.
        student: hidden states [B, n, H'], any floating dtype.
        mask: [B, n], nonzero at real tokens; None counts every position.

    Returns:
        A scalar of at least -1e-8; 0 with zero gradient if no example has two different tokens.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]])
        >>> round(intra_loss(teacher, teacher[..., :1]).item(), 4)
        0.7791
    """
    return cka_loss(*cka_of(centred_gram(teacher, mask), centred_gram(student, mask)))


def local_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return L_L: -log of the CKA over the examples of a batch, each flattened with zeros at padded positions.

    The local inter-feature term of Jung et al. (2023, arXiv 2204.08922).

    Args:
        teacher: hidden states [B, n, H], any floating dtype.
        student: hidden states [B, n, H'], any floating dtype.
        mask: [B, n], nonzero at real tokens; None keeps every position.

    Returns:
        A scalar of at least -1e-8; 0 with zero gradient if the examples of one side are all equal.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 2.0]]])
        >>> round(local_loss(teacher, teacher[..., :1]).item(), 4)
        0.7791
    """
    return cka_loss(*cka_of(centred_gram(flatten(teacher, mask)), centred_gram(flatten(student, mask))))


def flatten(feature: Tensor, mask: Tensor | None = None) -> Tensor:
    """Flatten the tokens of each example, in at least float32, with zeros at padded positions.

    Args:
        feature: [B, n, H].
        mask: [B, n], nonzero at real tokens; None keeps every position.

    Returns:
        [B, n * H].
    """
    feature = widen(feature)
    if mask is not None:
        feature = torch.where(mask.unsqueeze(-1) > 0, feature, 0.0)
    return feature.flatten(1)


# ---------------------------------------------------------------- Feature structure distillation: L_G


class _Products(torch.autograd.Function):
    """Compute memory memory^T [K, K] and feature memory^T [B, K] with one pass over the memory's gradient.

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


# ---------------------------------------------------------------- Patient knowledge distillation


def cls_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the MSE between the [CLS] vectors of teacher and student, each scaled to unit length.

    Sun et al., "Patient Knowledge Distillation for BERT Model Compression", EMNLP 2019, arXiv 1908.09355; the mean over
    batch and dimensions, as in their code. A zero vector stays zero. Also called `pkd_loss`.

    Args:
        teacher: hidden states [B, n, H], any floating dtype; [CLS] is position 0.
        student: hidden states [B, n, H] of the same width.
        mask: ignored, because [CLS] is never padding; all terms of layer pairs have the same arguments.

    Returns:
        A scalar in [0, 4 / H].

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[[3.0, 0.0]]])
        >>> cls_loss(teacher, torch.tensor([[[0.0, 5.0]]])).item()
        1.0
        >>> cls_loss(teacher, 2 * teacher).item()
        0.0
    """
    # The bound on the norm keeps the gradient of the division finite for vectors close to zero.
    of_student, of_teacher = (F.normalize(widen(x[:, 0]), dim=-1, eps=1e-8) for x in (student, teacher))
    return F.mse_loss(of_student, of_teacher.to(of_student.dtype))


pkd_loss = cls_loss


# ---------------------------------------------------------------- Relational knowledge distillation
# Park et al., "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068. The relations of a batch's examples are
# distances of pairs and angles of triplets, all of which follow from the B x B Gram matrix.


@dataclass(frozen=True)
class _Relations:
    """The relations of B examples.

    Attributes:
        gram: [B, B], of the features minus the batch's mean.
        distances: Euclidean, [B, B]; 0 where not `apart`.
        apart: bool [B, B], whether two examples differ by more than rounding; False on the diagonal.
    """

    gram: Tensor
    distances: Tensor
    apart: Tensor


def rkd_distance_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return RKD-D: smooth L1 between the distances of all pairs, each side's divided by their mean over the pairs.

    Park et al. (2019, arXiv 1904.05068). The gradient passes through the student's mean as well.

    Args:
        teacher: hidden states [B, n, H], any floating dtype.
        student: hidden states [B, n, H'], any floating dtype.
        mask: [B, n], nonzero at real tokens; None keeps every position.

    Returns:
        A scalar; 0 if the examples of one side are all equal.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[[0.0]], [[1.0]], [[3.0]]])
        >>> rkd_distance_loss(teacher, 2 * teacher).item()
        0.0
        >>> round(rkd_distance_loss(teacher, teacher**2).item(), 4)
        0.037
    """
    distances = _relations(flatten(student, mask)).distances
    target_distances = _relations(flatten(teacher, mask)).distances
    pairs = max(1, len(distances) * (len(distances) - 1))
    mean, target_mean = distances.sum() / pairs, target_distances.sum() / pairs
    defined = (mean > 0) & (target_mean > 0)
    scaled = distances / torch.where(defined, mean, 1.0)
    target = target_distances / torch.where(defined, target_mean, 1.0)
    # The diagonal holds no pairs and adds nothing to the sum.
    total = F.smooth_l1_loss(scaled, target.to(scaled.dtype), reduction="sum") / pairs
    return torch.where(defined, total, 0.0)


def rkd_angle_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return RKD-A: smooth L1 between the cosines of the angles at j of all triplets (i, j, k) of different examples.

    Park et al. (2019, arXiv 1904.05068). It needs a few tensors of B x B x B numbers, which is little beside a student
    at the batch sizes of fine-tuning.

    Args:
        teacher: hidden states [B, n, H], any floating dtype.
        student: hidden states [B, n, H'], any floating dtype.
        mask: [B, n], nonzero at real tokens; None keeps every position.

    Returns:
        A scalar; 0 if no three examples differ.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
        >>> rkd_angle_loss(teacher, 2 * teacher).item()
        0.0
        >>> round(rkd_angle_loss(teacher, teacher * torch.tensor([1.0, 0.5])).item(), 4)
        0.0171
    """
    relations, target_relations = _relations(flatten(student, mask)), _relations(flatten(teacher, mask))
    apart = relations.apart & target_relations.apart
    ends = ~torch.eye(len(apart), dtype=torch.bool, device=apart.device)
    defined = apart[:, :, None] & apart[None, :, :] & ends[:, None, :]
    cosines = _triplet_cosines(relations)
    target = _triplet_cosines(target_relations).to(cosines.dtype)
    each = F.smooth_l1_loss(cosines, target, reduction="none")
    return torch.where(defined, each, 0.0).sum() / defined.sum().clamp(min=1)


def _relations(feature: Tensor) -> _Relations:
    """Return the relations of the rows of `feature` [B, D].

    The rows are centred first, because a common part would cancel digits in G_ii + G_jj - 2 G_ij.
    """
    gram = centred_gram(feature).matrix
    own = gram.diagonal()
    both = own[:, None] + own[None, :]
    squared = both - 2 * gram
    # Smaller squares are rounding errors of the products, and the gradient of their square root would be arbitrary.
    apart = squared.detach() > 32 * torch.finfo(gram.dtype).eps * both.detach()
    distances = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    return _Relations(gram, distances, apart)


def _triplet_cosines(relations: _Relations) -> Tensor:
    """Return the cosine of the angle at j between i and k, [B (i), B (j), B (k)]; meaningless if two are not apart."""
    gram = relations.gram
    # (x_i - x_j) . (x_k - x_j)
    products = gram[:, None, :] - gram[:, :, None] - gram[None, :, :] + gram.diagonal()[None, :, None]
    lengths = torch.where(relations.apart, relations.distances, 1.0)
    return products / (lengths[:, :, None] * lengths[None, :, :])
