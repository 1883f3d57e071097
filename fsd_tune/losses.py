"""The terms of feature structure distillation and the methods that add them up (method.md, "The terms").

Losses receive tensors, never models. Shapes: B examples, n tokens, H and H' hidden sizes of teacher and student,
D and D' flattened feature widths, K centroids, C classes. Half-precision inputs are computed in float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fsd_tune.cka import CentredGram, centre_gram, centred_gram, cka_loss, cka_of, widen


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits [B, C] with labels int64 [B]; MSE for regression (C = 1, labels float [B])."""
    logits = widen(logits)
    if logits.shape[-1] == 1:
        return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


def kd_loss(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over classes, averaged over the batch.

    For regression (C = 1) the MSE between the two logits; a softmax over one logit would be constant, so the
    temperature has no effect.

    Args:
        teacher_logits, student_logits: [B, C].
        temperature: above 0.
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


def intra_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """L_I: for each example, CKA between its token matrices; -log of the batch's mean.

    Args:
        teacher, student: [B, n, H] and [B, n, H'].
        mask: [B, n], nonzero at real tokens; None counts every position.
    """
    return cka_loss(*cka_of(centred_gram(teacher, mask), centred_gram(student, mask)))


def local_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """L_L: CKA over the examples of a batch, each flattened to one vector with zeros at padded positions.

    Args:
        teacher, student: [B, n, H] and [B, n, H'].
        mask: [B, n], nonzero at real tokens; None keeps every position.
    """
    return cka_loss(*cka_of(centred_gram(flatten(teacher, mask)), centred_gram(flatten(student, mask))))


def cls_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Patient distillation: MSE between the [CLS] vectors of teacher and student, each of unit length.

    Sun et al., "Patient Knowledge Distillation for BERT Model Compression", EMNLP 2019, arXiv 1908.09355; the mean over
    batch and dimensions, as in their code. A zero vector stays zero.

    Args:
        teacher, student: [B, n, H] both; [CLS] is position 0.
        mask: without effect, for [CLS] is never padding; taken so that all terms of layer pairs are called alike.
    """
    # Below 1e-8 no vector is of unit length: the gradient of the division stays finite.
    ours, theirs = (F.normalize(widen(x[:, 0]), dim=-1, eps=1e-8) for x in (student, teacher))
    return F.mse_loss(ours, theirs.to(ours.dtype))


def flatten(feature: Tensor, mask: Tensor | None = None) -> Tensor:
    """[B, n, H] to [B, n*H] in at least float32, with zeros at padded positions (mask [B, n])."""
    feature = widen(feature)
    if mask is not None:
        feature = torch.where(mask.unsqueeze(-1) > 0, feature, 0.0)
    return feature.flatten(1)


class _Products(torch.autograd.Function):
    """memory memory^T [K, K] and feature memory^T [B, K] with one pass over the memory's gradient.

    The student memory is the largest trainable tensor beside the embeddings. Autograd would build its gradient from
    five tensors of its size (two for the Gram matrix, its norms, its centring, the features' product padded to its
    width); everything else in L_G is a function of these two small matrices.
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
    """Distances and cosines [B, K] of `distances_and_cosines`, and the memory's Gram matrix [K, K], not centred."""
    with torch.autocast(feature.device.type, enabled=False):
        feature, memory = widen(feature), widen(memory)
        assert feature.shape[-1] <= memory.shape[-1], (feature.shape, memory.shape)
        gram, product = _Products.apply(feature, memory)  # type: ignore[no-untyped-call]
        feature_square = feature.square().sum(-1, keepdim=True)
        memory_square = gram.diagonal()
        # Rounding may leave a tiny negative square; below the clamp the gradient is zero, as at a true minimum.
        tiny = torch.finfo(feature.dtype).tiny
        distances = (feature_square + memory_square - 2 * product).clamp(min=tiny).sqrt()
        cosines = product / (feature_square.clamp(min=1e-16).sqrt() * memory_square.clamp(min=1e-16).sqrt())
        return distances, cosines, gram


def distances_and_cosines(feature: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distances and cosines between each flattened feature and each centroid, both [B, K].

    A feature narrower than the memory (a batch padded to its own longest example) counts as zero beyond its end,
    so the product needs only the positions that the batch touches. The cosine with a zero vector is 0.

    Args:
        feature: [B, d] with d <= D.
        memory: [K, D].
    """
    distances, cosines, _ = _compare(feature, memory)
    return distances, cosines


@dataclass(frozen=True)
class GlobalTargets:
    """What the teacher contributes to L_G for one batch: distances and cosines [B, K], its memory's Gram [K, K]."""

    distances: Tensor
    cosines: Tensor
    memory_gram: CentredGram


def global_terms(
    targets: GlobalTargets, student_feature: Tensor, student_memory: Tensor, distance: str = "raw"
) -> dict[str, Tensor]:
    """The three parts of L_G: `memory` (CKA of the memories), `distance` and `cosine` (MSEs), each a scalar.

    Args:
        targets: the teacher's part.
        student_feature: [B, d'] with d' <= D'.
        student_memory: [K, D'].
        distance: "raw", or "relative": each side's distances divided by their own mean over the B x K entries, the
            gradient going through the student's.
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
    """L_G of its parts: CKA loss + gamma_m * distance MSE + (1 - gamma_m) * cosine MSE (method.md, "L_G")."""
    return parts["memory"] + gamma_m * parts["distance"] + (1 - gamma_m) * parts["cosine"]


def global_loss(
    teacher_feature: Tensor,
    student_feature: Tensor,
    teacher_memory: Tensor,
    student_memory: Tensor,
    gamma_m: float,
    distance: str = "raw",
) -> Tensor:
    """L_G against the memories of teacher and student (method.md, "L_G").

    Args:
        teacher_feature, student_feature: flattened features [B, D] and [B, D'].
        teacher_memory, student_memory: [K, D] and [K, D'].
        gamma_m: share of the distances, in 0..1.
        distance: "raw" or "relative", see `global_terms`.
    """
    targets = GlobalTargets(*distances_and_cosines(teacher_feature, teacher_memory), centred_gram(teacher_memory))
    return global_sum(global_terms(targets, student_feature, student_memory, distance), gamma_m)


# Relational knowledge distillation (Park et al., CVPR 2019, arXiv 1904.05068): relations of the examples of a batch,
# that is distances of pairs and angles of triplets, all of which follow from the B x B Gram matrix.


@dataclass(frozen=True)
class _Relations:
    """How B examples lie to each other.

    Attributes:
        gram: [B, B], of the features minus the batch's mean.
        distances: Euclidean, [B, B]; 0 where not `apart`.
        apart: bool [B, B], whether two examples differ by more than rounding; False on the diagonal.
    """

    gram: Tensor
    distances: Tensor
    apart: Tensor


def rkd_distance_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """RKD-D: smooth L1 between the distances of all pairs, each side's divided by their mean over the pairs.

    The gradient goes through the student's mean, too. 0 where the examples of one side are all equal.

    Args:
        teacher, student: [B, n, H] and [B, n, H'].
        mask: [B, n], nonzero at real tokens; None keeps every position.
    """
    ours, theirs = _relations(flatten(student, mask)).distances, _relations(flatten(teacher, mask)).distances
    pairs = max(1, len(ours) * (len(ours) - 1))
    mean, target_mean = ours.sum() / pairs, theirs.sum() / pairs
    defined = (mean > 0) & (target_mean > 0)
    scaled = ours / torch.where(defined, mean, 1.0)
    target = theirs / torch.where(defined, target_mean, 1.0)
    # The diagonal is no pair; it adds nothing to the sum.
    total = F.smooth_l1_loss(scaled, target.to(scaled.dtype), reduction="sum") / pairs
    return torch.where(defined, total, 0.0)


def rkd_angle_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """RKD-A: smooth L1 between the cosines of the angles at j of all triplets (i, j, k) of different examples.

    It holds B x B x B numbers a few times over: little beside a student at the batch sizes of fine-tuning.

    Args:
        teacher, student: [B, n, H] and [B, n, H'].
        mask: [B, n], nonzero at real tokens; None keeps every position.
    """
    ours, theirs = _relations(flatten(student, mask)), _relations(flatten(teacher, mask))
    apart = ours.apart & theirs.apart
    ends = ~torch.eye(len(apart), dtype=torch.bool, device=apart.device)
    defined = apart[:, :, None] & apart[None, :, :] & ends[:, None, :]
    cosines = _triplet_cosines(ours)
    each = F.smooth_l1_loss(cosines, _triplet_cosines(theirs).to(cosines.dtype), reduction="none")
    return torch.where(defined, each, 0.0).sum() / defined.sum().clamp(min=1)


def _relations(feature: Tensor) -> _Relations:
    """The relations of the rows of `feature` [B, D].

    Distances and angles are those of the centred rows; what the rows have in common would cost digits in
    G_ii + G_jj - 2 G_ij.
    """
    gram = centred_gram(feature).matrix
    own = gram.diagonal()
    both = own[:, None] + own[None, :]
    squared = both - 2 * gram
    # Below that it is the rounding of the products; the square root's gradient there would be arbitrarily large.
    apart = squared.detach() > 32 * torch.finfo(gram.dtype).eps * both.detach()
    distances = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    return _Relations(gram, distances, apart)


def _triplet_cosines(relations: _Relations) -> Tensor:
    """cos of the angle at j between i and k, [B (i), B (j), B (k)]; finite but meaningless where two are not apart."""
    gram = relations.gram
    # (x_i - x_j) . (x_k - x_j)
    products = gram[:, None, :] - gram[:, :, None] - gram[None, :, :] + gram.diagonal()[None, :, None]
    lengths = torch.where(relations.apart, relations.distances, 1.0)
    return products / (lengths[:, :, None] * lengths[None, :, :])
