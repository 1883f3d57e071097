"""The terms of feature structures inside a batch: L_I (intra-feature) and L_L (local inter-feature).

Jung et al., "Feature structure distillation with Centered Kernel Alignment in BERT transferring", 2023,
arXiv 2204.08922; formulas in docs/explanation/method.md, "Loss terms".

Shapes: B examples, n tokens, H and H' hidden sizes of teacher and student; `...` are optional dimensions of layer
pairs, which are computed together. Inputs in half precision are computed in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fsd_tune.cka import widen
from fsd_tune.losses.alignment import Comparison, alignment_losses


@dataclass(frozen=True)
class Features:
    """Hidden states of a teacher and a student in one tensor, so that each operation is launched once for both.

    Attributes:
        student: the student's hidden states as they were given, [..., B, n, H'].
        both: of teacher and student, [2, P, B, n, max(H, H')], at least float32, without gradient, zero at padded
            positions; P layer pairs. Zeros after the narrower features change no inner product.
        mask: [B, n], nonzero at real tokens; None counts every position.
        padding: the other positions, bool [B, n, 1]; None without a mask.
    """

    student: Tensor
    both: Tensor
    mask: Tensor | None
    padding: Tensor | None

    @classmethod
    @torch.no_grad()
    def of(cls, teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> "Features":
        """Return the features of teacher [..., B, n, H] and student [..., B, n, H'], of any floating dtype.

        Args:
            teacher: hidden states.
            student: hidden states.
            mask: [B, n], nonzero at real tokens; None counts every position.
        """
        width = max(teacher.shape[-1], student.shape[-1])
        sides = [F.pad(side, (0, width - side.shape[-1])) if side.shape[-1] < width else side.detach()
                 for side in (teacher, student)]  # fmt: skip
        both = widen(torch.stack(sides)).reshape(2, -1, *sides[1].shape[-3:])
        padding = None if mask is None else (mask == 0).unsqueeze(-1)
        if padding is not None:
            # Padded positions can contain NaN, and NaN times zero is NaN, so replace them.
            both.masked_fill_(padding, 0.0)
        return cls(student, both, mask, padding)


@torch.no_grad()
def compare_tokens(features: Features) -> Comparison:
    """Return the comparison of L_I: the tokens of each example.

    Args:
        features: of a batch.

    Returns:
        One group of B comparisons for each layer pair.
    """
    both, mask = features.both, features.mask
    if mask is None:
        centred = both - both.mean(-2, keepdim=True)
    else:
        weight = mask.unsqueeze(-1)
        mean = both.sum(-2, keepdim=True) / weight.sum(-2, keepdim=True).clamp(min=1)
        centred = torch.addcmul(both, mean, weight, value=-1)
    return _comparison(features, centred, torch.linalg.vector_norm(both, dim=(-2, -1)))


@torch.no_grad()
def compare_examples(features: Features) -> Comparison:
    """Return the comparison of L_L: the examples of a batch, each flattened to one row.

    Args:
        features: of a batch.

    Returns:
        One group of one comparison for each layer pair.
    """
    rows = features.both.flatten(-2).unsqueeze(2)
    centred = rows - rows.mean(-2, keepdim=True)
    # An example is zero at its padding, but the mean is not, and so are centred rows.
    return _comparison(features, centred, torch.linalg.vector_norm(rows, dim=(-2, -1)), features.padding)


def _comparison(features: Features, centred: Tensor, sizes: Tensor, padding: Tensor | None = None) -> Comparison:
    """Return the comparison of centred rows [2, g, m, n, p] that had the norms `sizes` [2, g, m] before."""
    with torch.autocast(centred.device.type, enabled=False):
        rows = centred.flatten(0, 2)
        grams = torch.bmm(rows, rows.transpose(-2, -1))
    own = rows[len(rows) // 2 :]
    hidden, width = features.student.shape[-1], features.both.shape[-1]
    if hidden < width:
        own = own.reshape(*own.shape[:-1], -1, width)[..., :hidden].flatten(-2)
    return Comparison(features.student, grams.view(*sizes.shape, *grams.shape[-2:]), sizes, own, padding)


# The terms that compare features by CKA.
COMPARED: dict[str, Callable[[Features], Comparison]] = {"intra": compare_tokens, "local": compare_examples}


def intra_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return L_I: -log of the batch's mean CKA, computed for each example over its tokens.

    The intra-feature term of Jung et al. (2023, arXiv 2204.08922).

    Args:
        teacher: hidden states [..., B, n, H], any floating dtype.
        student: hidden states [..., B, n, H'], any floating dtype.
        mask: [B, n], nonzero at real tokens; None counts every position.

    Returns:
        A scalar of at least -1e-8, the mean over `...`; 0 with zero gradient if no example has two different tokens.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]])
        >>> round(intra_loss(teacher, teacher[..., :1]).item(), 4)
        0.7791
    """
    return alignment_losses({"intra": [compare_tokens(Features.of(teacher, student, mask))]})["intra"]


def local_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return L_L: -log of the CKA over the examples of a batch, each flattened with zeros at padded positions.

    The local inter-feature term of Jung et al. (2023, arXiv 2204.08922).

    Args:
        teacher: hidden states [..., B, n, H], any floating dtype.
        student: hidden states [..., B, n, H'], any floating dtype.
        mask: [B, n], nonzero at real tokens; None keeps every position.

    Returns:
        A scalar of at least -1e-8, the mean over `...`; 0 with zero gradient if the examples of one side are all equal.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 2.0]]])
        >>> round(local_loss(teacher, teacher[..., :1]).item(), 4)
        0.7791
    """
    return alignment_losses({"local": [compare_examples(Features.of(teacher, student, mask))]})["local"]


def flatten(feature: Tensor, mask: Tensor | None = None) -> Tensor:
    """Flatten the tokens of each example, in at least float32, with zeros at padded positions.

    Args:
        feature: [..., B, n, H].
        mask: [B, n], nonzero at real tokens; None keeps every position.

    Returns:
        [..., B, n * H].
    """
    feature = widen(feature)
    if mask is not None:
        feature = feature.masked_fill((mask == 0).unsqueeze(-1), 0.0)
    return feature.flatten(-2)
