"""Linear centred kernel alignment (CKA), batched and masked.

Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, arXiv 1905.00414; formulas in
docs/explanation/method.md, "CKA".

Shape suffixes: n rows that are compared (tokens or examples), p and q feature widths, `...` batch dimensions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# The centred Gram matrix of equal rows contains only the rounding error of their mean, about eps per entry. A spread
# within this multiple of it counts as none.
CENTRING_ERROR = 8


@dataclass(frozen=True)
class CentredGram:
    """A double-centred Gram matrix with its norm.

    Attributes:
        matrix: H X X^T H, [..., n, n], float32 or float64; rows and columns of masked rows are zero.
        norm: the Frobenius norm of `matrix`, [...]; 1 if undefined, so that a division stays finite.
        defined: true if the norm exceeds the rounding error of centring, bool [...].
    """

    matrix: Tensor
    norm: Tensor
    defined: Tensor


def widen(x: Tensor) -> Tensor:
    """Return `x` in float32, or in float64 if it is float64, because sums of squares overflow in half precision.

    Args:
        x: floating-point numbers of any shape, precision and device.

    Returns:
        The same shape; `x` itself if it is float32 or float64.
    """
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def centred_gram(x: Tensor, mask: Tensor | None = None) -> CentredGram:
    """Return the double-centred Gram matrix of the rows of `x`.

    The feature means are subtracted before the product, because (HX)(HX)^T = H(XX^T)H. This avoids the cancellation of
    centring the Gram matrix itself, and H is never formed.

    Args:
        x: [..., n, p], any floating dtype; computed in at least float32.
        mask: [..., n], nonzero for the rows that count; None for all.

    Returns:
        The matrix [..., n, n] with its norm, differentiable with respect to `x`.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = widen(x)
        if mask is None:
            centred = x - x.mean(-2, keepdim=True)
            total = x.detach().square().sum((-2, -1))
        else:
            weight = mask.to(x.dtype).unsqueeze(-1)
            # Masked rows can contain NaN, and NaN times zero is NaN, so replace them.
            x = torch.where(weight > 0, x, 0.0)
            mean = x.sum(-2, keepdim=True) / weight.sum(-2, keepdim=True).clamp(min=1.0)
            centred = (x - mean) * weight
            total = x.detach().square().sum((-2, -1))
        matrix = centred @ centred.transpose(-2, -1)
        return _normed(matrix, (CENTRING_ERROR * torch.finfo(x.dtype).eps) ** 2 * total)


def centre_gram(gram: Tensor) -> CentredGram:
    """Double-centre an existing Gram matrix by its row, column and grand means.

    `centred_gram` is more accurate for rows that are nearly equal. Centring the products cancels digits, so this
    function counts a spread below n eps of the total as rounding error.

    Args:
        gram: [..., n, n], float32 or float64.

    Returns:
        The matrix [..., n, n] with its norm, differentiable with respect to `gram`.
    """
    rows = gram.mean(-1, keepdim=True)
    matrix = gram - rows - rows.transpose(-2, -1) + rows.mean(-2, keepdim=True)
    total = gram.detach().diagonal(dim1=-2, dim2=-1).sum(-1)
    return _normed(matrix, gram.shape[-1] * torch.finfo(gram.dtype).eps * total)


def _normed(matrix: Tensor, rounding: Tensor) -> CentredGram:
    """Return a centred Gram matrix [..., n, n] with its norm; undefined if its trace is at most `rounding` [...]."""
    spread = matrix.detach().diagonal(dim1=-2, dim2=-1).sum(-1)
    squared = matrix.square().sum((-2, -1))
    # The norm can underflow although the spread does not.
    defined = (spread > rounding) & (squared.detach() > 0)
    return CentredGram(matrix, torch.where(defined, squared, 1.0).sqrt(), defined)


def cka_of(first: CentredGram, second: CentredGram) -> tuple[Tensor, Tensor]:
    """Return the CKA of two centred Gram matrices, <K, L> / (|K| |L|) with the Frobenius product.

    Args:
        first: K, [..., n, n].
        second: L, [..., n, n].

    Returns:
        The values [...], zero if undefined, and a mask of the defined values, bool [...].
    """
    defined = first.defined & second.defined
    value = (first.matrix * second.matrix).sum((-2, -1)) / (first.norm * second.norm)
    return torch.where(defined, value, 0.0), defined


def linear_cka(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the linear CKA between the rows of `x` and of `y`, which may have different widths.

    CKA is 1 for features that agree up to rotation, shift and scale (Kornblith et al., 2019, arXiv 1905.00414).

    Args:
        x: [..., n, p], any floating dtype.
        y: [..., n, q], any floating dtype.
        mask: [..., n], nonzero for the rows that count; None for all.

    Returns:
        [...] in [0, 1], float32 (float64 if an input is). CKA is undefined for constant features and for fewer than
        two rows; the value is then NaN.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> rotated = torch.stack([x[:, 1], -x[:, 0]], -1)
        >>> round(linear_cka(x, 3 * rotated + 1).item(), 4)
        1.0
        >>> round(linear_cka(x, x[:, :1]).item(), 4)
        0.4588
        >>> linear_cka(x, torch.ones(3, 5)).item()
        nan
    """
    value, defined = cka_of(centred_gram(x, mask), centred_gram(y, mask))
    return torch.where(defined, value, torch.nan)


def cka_loss(value: Tensor, defined: Tensor) -> Tensor:
    """Return -log(mean(|CKA|) + 1e-8) over the defined values; 0 with zero gradient if none is defined.

    This is the loss of Jung et al. (2023, arXiv 2204.08922); see docs/explanation/method.md, "CKA".

    Args:
        value: CKA values [..., n], or a scalar, as `cka_of` returns them.
        defined: the mask of the defined values, bool of the same shape.

    Returns:
        [...], differentiable with respect to `value`.
    """
    count = defined.sum(-1)
    mean = torch.where(defined, value, 0.0).abs().sum(-1) / count.clamp(min=1)
    return torch.where(count > 0, -torch.log(torch.where(count > 0, mean, 1.0) + 1e-8), 0.0)
