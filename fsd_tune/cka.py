"""Linear centred kernel alignment, batched and masked (method.md, "Linear CKA"; Kornblith et al. 2019).

Shape suffixes: n rows that are compared (tokens or examples), p and q feature widths, `...` batch dimensions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CentredGram:
    """A double-centred Gram matrix with what CKA needs of it.

    Attributes:
        matrix: H X X^T H, [..., n, n], float32 or float64; rows and columns of masked rows are zero.
        norm: its Frobenius norm, [...]; 1 where undefined, so that a division stays finite.
        defined: whether the norm is more than the rounding of a centring, bool [...].
    """

    matrix: Tensor
    norm: Tensor
    defined: Tensor


def widen(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 if it already is: sums of squares overflow or round away in half precision."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def centred_gram(x: Tensor, mask: Tensor | None = None) -> CentredGram:
    """The double-centred Gram matrix of the rows of `x`.

    The feature means are subtracted before the product: (HX)(HX)^T = H(XX^T)H, without the cancellation of
    centring the Gram matrix itself and without ever forming H.

    Args:
        x: [..., n, p], any floating dtype; computed in at least float32.
        mask: [..., n], nonzero for the rows that count; None for all.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = widen(x)
        if mask is None:
            centred = x - x.mean(-2, keepdim=True)
            total = x.detach().square().sum((-2, -1))
        else:
            weight = mask.to(x.dtype).unsqueeze(-1)
            # Masked rows may hold anything, NaN included: they are replaced, not multiplied.
            x = torch.where(weight > 0, x, 0.0)
            mean = x.sum(-2, keepdim=True) / weight.sum(-2, keepdim=True).clamp(min=1.0)
            centred = (x - mean) * weight
            total = x.detach().square().sum((-2, -1))
        matrix = centred @ centred.transpose(-2, -1)
        # Equal rows leave the rounding of their mean behind, about eps per entry: that is no structure.
        return _normed(matrix, (8 * torch.finfo(x.dtype).eps) ** 2 * total)


def centre_gram(gram: Tensor) -> CentredGram:
    """Double-centre a Gram matrix [..., n, n] by its row, column and grand means.

    For matrices that exist anyway. Rows with much in common lose digits to cancellation here: their spread counts as
    rounding below n eps of the whole, where `centred_gram` still resolves it.
    """
    rows = gram.mean(-1, keepdim=True)
    matrix = gram - rows - rows.transpose(-2, -1) + rows.mean(-2, keepdim=True)
    total = gram.detach().diagonal(dim1=-2, dim2=-1).sum(-1)
    return _normed(matrix, gram.shape[-1] * torch.finfo(gram.dtype).eps * total)


def _normed(matrix: Tensor, rounding: Tensor) -> CentredGram:
    """A centred Gram matrix [..., n, n] with its norm; undefined where its trace is at most `rounding` [...]."""
    spread = matrix.detach().diagonal(dim1=-2, dim2=-1).sum(-1)
    squared = matrix.square().sum((-2, -1))
    # A norm may underflow where the spread does not.
    defined = (spread > rounding) & (squared.detach() > 0)
    return CentredGram(matrix, torch.where(defined, squared, 1.0).sqrt(), defined)


def cka_of(first: CentredGram, second: CentredGram) -> tuple[Tensor, Tensor]:
    """CKA of two centred Gram matrices: (value [...], zero where undefined; defined, bool [...])."""
    defined = first.defined & second.defined
    value = (first.matrix * second.matrix).sum((-2, -1)) / (first.norm * second.norm)
    return torch.where(defined, value, 0.0), defined


def linear_cka(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Linear CKA between the rows of `x` and of `y`, which may have different widths.

    Args:
        x: [..., n, p], any floating dtype.
        y: [..., n, q].
        mask: [..., n], nonzero for the rows that count; None for all.

    Returns:
        [...] in [0, 1], float32 (float64 when an input is), NaN where CKA is undefined: constant features or fewer
        than two rows.
    """
    value, defined = cka_of(centred_gram(x, mask), centred_gram(y, mask))
    return torch.where(defined, value, torch.nan)


def cka_loss(value: Tensor, defined: Tensor) -> Tensor:
    """-log(mean(|CKA|) + 1e-8) over the defined ones; 0 with zero gradient if none is (method.md, "Linear CKA").

    Args:
        value, defined: as `cka_of` returns them, of any shape.

    Returns:
        A scalar.
    """
    count = defined.sum()
    mean = torch.where(defined, value, 0.0).abs().sum() / count.clamp(min=1)
    return torch.where(count > 0, -torch.log(torch.where(count > 0, mean, 1.0) + 1e-8), 0.0)
