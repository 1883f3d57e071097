"""Relational knowledge distillation (Park et al., "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068).

What is compared are the relations of a batch's examples to each other: distances of pairs, angles of triplets. Both
follow from the B x B Gram matrix of the flattened features, so that padding changes nothing and teacher and student may
have different widths. Shapes as in `losses.py`.

A relation that is undefined (one example, examples that are equal to rounding) is left out of its mean; if none
remains the term is 0 with zero gradient, as in CKA.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fsd_tune.cka import centred_gram
from fsd_tune.losses import flatten


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


def distance_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
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


def angle_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
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
    cosines = _cosines(ours)
    each = F.smooth_l1_loss(cosines, _cosines(theirs).to(cosines.dtype), reduction="none")
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


def _cosines(relations: _Relations) -> Tensor:
    """cos of the angle at j between i and k, [B (i), B (j), B (k)]; finite but meaningless where two are not apart."""
    gram = relations.gram
    # (x_i - x_j) . (x_k - x_j)
    products = gram[:, None, :] - gram[:, :, None] - gram[None, :, :] + gram.diagonal()[None, :, None]
    lengths = torch.where(relations.apart, relations.distances, 1.0)
    return products / (lengths[:, :, None] * lengths[None, :, :])
