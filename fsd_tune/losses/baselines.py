"""The terms of the methods that FSD is compared with: patient (PKD) and relational (RKD) knowledge distillation.

Formulas: docs/explanation/method.md, "Loss terms". Shapes: B examples, n tokens, H and H' hidden sizes of teacher and
student. Inputs in half precision are computed in float32.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fsd_tune.cka import centred_gram, widen
from fsd_tune.losses.structures import flatten


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
    student_cls, teacher_cls = (F.normalize(widen(x[:, 0]), dim=-1, eps=1e-8) for x in (student, teacher))
    return F.mse_loss(student_cls, teacher_cls.to(student_cls.dtype))


pkd_loss = cls_loss


# ---------------------------------------------------------------- Relational knowledge distillation
# Park et al., "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068. The relations of a batch's examples are
# distances of pairs and angles of triplets, all of which follow from the B x B Gram matrix.


@dataclass(frozen=True)
class _Relations:
    """The relations of B examples.

    Attributes:
        gram: [B, B], of the features minus the batch's mean.
        distances: Euclidean, [B, B]; 0 for a pair that is not `distinct`.
        distinct: bool [B, B], whether two examples differ by more than rounding; False on the diagonal.
    """

    gram: Tensor
    distances: Tensor
    distinct: Tensor


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
    distinct = relations.distinct & target_relations.distinct
    ends = ~torch.eye(len(distinct), dtype=torch.bool, device=distinct.device)
    defined = distinct[:, :, None] & distinct[None, :, :] & ends[:, None, :]
    cosines = _triplet_cosines(relations)
    target = _triplet_cosines(target_relations).to(cosines.dtype)
    triplet_losses = F.smooth_l1_loss(cosines, target, reduction="none")
    return torch.where(defined, triplet_losses, 0.0).sum() / defined.sum().clamp(min=1)


def _relations(feature: Tensor) -> _Relations:
    """Return the relations of the rows of `feature` [B, D].

    The rows are centred first, because a common part would cancel digits in G_ii + G_jj - 2 G_ij.
    """
    gram = centred_gram(feature).matrix
    squared_norms = gram.diagonal()
    norm_sums = squared_norms[:, None] + squared_norms[None, :]
    squared = norm_sums - 2 * gram
    # Smaller squares are rounding errors of the products, and the gradient of their square root would be arbitrary.
    distinct = squared.detach() > 32 * torch.finfo(gram.dtype).eps * norm_sums.detach()
    distances = torch.where(distinct, torch.where(distinct, squared, 1.0).sqrt(), 0.0)
    return _Relations(gram, distances, distinct)


def _triplet_cosines(relations: _Relations) -> Tensor:
    """Return the cosine of the angle at j between i and k, [B (i), B (j), B (k)]; meaningless if two are equal."""
    gram = relations.gram
    # (x_i - x_j) . (x_k - x_j)
    products = gram[:, None, :] - gram[:, :, None] - gram[None, :, :] + gram.diagonal()[None, :, None]
    lengths = torch.where(relations.distinct, relations.distances, 1.0)
    return products / (lengths[:, :, None] * lengths[None, :, :])
