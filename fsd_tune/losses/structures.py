"""The terms of feature structures inside a batch: L_I (intra-feature) and L_L (local inter-feature).

Jung et al., "Feature structure distillation with Centered Kernel Alignment in BERT transferring", 2023,
arXiv 2204.08922; formulas in docs/explanation/method.md, "Loss terms".

Shapes: B examples, n tokens, H and H' hidden sizes of teacher and student; `...` are optional dimensions of layer
pairs, which are computed together. Inputs in half precision are computed in float32.
"""

import torch
from torch import Tensor

from fsd_tune.cka import centred_gram, cka_loss, cka_of, widen


def intra_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return L_I: -log of the batch's mean CKA, computed for each example over its tokens.

    The intra-feature term of Jung et al. (2023, arXiv 2204.08922).

    Args:
        teacher: hidden states [..., B, n, H], any floating dtype.
        student: hidden states [..., B, n, H'], any floating dtype.
        mask: [B, n], nonzero at real tokens; None counts every position.

    Returns:
        [...] of at least -1e-8; 0 with zero gradient if no example has two different tokens.

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
        teacher: hidden states [..., B, n, H], any floating dtype.
        student: hidden states [..., B, n, H'], any floating dtype.
        mask: [B, n], nonzero at real tokens; None keeps every position.

    Returns:
        [...] of at least -1e-8; 0 with zero gradient if the examples of one side are all equal.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 2.0]]])
        >>> round(local_loss(teacher, teacher[..., :1]).item(), 4)
        0.7791
    """
    value, defined = cka_of(centred_gram(flatten(teacher, mask)), centred_gram(flatten(student, mask)))
    # One value for each layer pair, of which `cka_loss` must not take the mean before the logarithm.
    return cka_loss(value.unsqueeze(-1), defined.unsqueeze(-1))


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
        feature = torch.where(mask.unsqueeze(-1) > 0, feature, 0.0)
    return feature.flatten(-2)
