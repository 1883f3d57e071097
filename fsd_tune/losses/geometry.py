"""The terms of `gram` and `procrustes`: distances between the geometries of a teacher's and a student's features.

Bhattarai et al., "Knowledge distillation through geometry-aware representational alignment", 2025, arXiv 2509.25253;
formulas in docs/explanation/method.md, "Loss terms". Both are functions of centred Gram matrices, as CKA is, so the
rows and their order of computation are those of `fsd_tune.losses.structures`.

Shapes: g layer pairs of m comparisons of n rows; B examples, n tokens, H and H' hidden sizes of teacher and student;
`...` are optional dimensions of layer pairs. Inputs in half precision are computed in float32.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fsd_tune.cka import CENTRING_ERROR
from fsd_tune.losses.alignment import Comparison
from fsd_tune.losses.structures import Features, compare_examples, compare_tokens

# Returns the distances [g, m] of normalised Gram matrices [g, m, n, n] of teacher and student, and the gradients of
# the distances with respect to the student's.
_Distance = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def gram_intra_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean over examples of the Frobenius norm of the difference of their tokens' Gram matrices.

    The features of each side are centred and divided by their Frobenius norm first, so that their size does not count.

    Args:
        teacher: hidden states [..., B, n, H], any floating dtype.
        student: hidden states [..., B, n, H'], any floating dtype.
        mask: [B, n], nonzero at real tokens; None counts every position.

    Returns:
        A scalar from 0 to sqrt(2), the mean over `...`; 0 with zero gradient if no example has two different tokens.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]])
        >>> gram_intra_loss(teacher, 3 * teacher + 1).item() < 1e-6
        True
        >>> round(gram_intra_loss(teacher, teacher[..., :1]).item(), 4)
        0.9798
    """
    return _loss(compare_tokens(Features.of(teacher, student, mask)), _gram, student)


def gram_local_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the Frobenius norm of the difference of the Gram matrices of a batch's examples.

    Each example is flattened to one row, with zeros at padded positions. Features are centred and scaled as in
    `gram_intra_loss`.

    Args:
        teacher: hidden states [..., B, n, H], any floating dtype.
        student: hidden states [..., B, n, H'], any floating dtype.
        mask: [B, n], nonzero at real tokens; None keeps every position.

    Returns:
        A scalar from 0 to sqrt(2), the mean over `...`; 0 with zero gradient if the examples of one side are all equal.
    """
    return _loss(compare_examples(Features.of(teacher, student, mask)), _gram, student)


def procrustes_intra_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the Procrustes distance between the tokens of teacher and student, averaged over examples.

    The squared distance that is left after the best rotation of the student's features, which are, like the teacher's,
    centred and divided by their Frobenius norm first.

    Args:
        teacher: hidden states [..., B, n, H], any floating dtype.
        student: hidden states [..., B, n, H'], any floating dtype; the narrower side counts as zero beyond its end.
        mask: [B, n], nonzero at real tokens; None counts every position.

    Returns:
        A scalar from 0 to 2, the mean over `...`; 0 with zero gradient if no example has two different tokens.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]])
        >>> procrustes_intra_loss(teacher, 3 * teacher.flip(-1) + 1).item() < 1e-5
        True
        >>> round(procrustes_intra_loss(teacher, teacher[..., :1]).item(), 4)
        0.7351
    """
    return _loss(compare_tokens(_in_float64(teacher, student, mask)), _procrustes, student)


def procrustes_local_loss(teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the Procrustes distance between the examples of a batch, each flattened to one row.

    Padded positions are zero. Features are centred and scaled as in `procrustes_intra_loss`.

    Args:
        teacher: hidden states [..., B, n, H], any floating dtype.
        student: hidden states [..., B, n, H'], any floating dtype.
        mask: [B, n], nonzero at real tokens; None keeps every position.

    Returns:
        A scalar from 0 to 2, the mean over `...`; 0 with zero gradient if the examples of one side are all equal.
    """
    return _loss(compare_examples(_in_float64(teacher, student, mask)), _procrustes, student)


def _in_float64(teacher: Tensor, student: Tensor, mask: Tensor | None) -> Features:
    """Return features in float64: the singular values of X^T Y are the roots of those of Gram matrices.

    A rounding error of 1e-7 would be one of 3e-4 in a singular value.
    """
    return Features.of(teacher.double(), student.double(), mask)


def _loss(comparison: Comparison, distance: _Distance, student: Tensor) -> Tensor:
    """Return the mean over layer pairs of the mean distance of the defined comparisons, in at least float32."""
    dtype = torch.promote_types(student.dtype, torch.float32)
    loss: Tensor = _MeanDistance.apply(  # type: ignore[no-untyped-call]
        comparison, distance, torch.finfo(dtype).eps, comparison.student
    )
    return loss.to(dtype)


class _MeanDistance(torch.autograd.Function):
    """An autograd function for the mean distance of comparisons of features that were given with precision `eps`."""

    @staticmethod
    def forward(ctx: Any, comparison: Comparison, distance: _Distance, eps: float, student: Tensor) -> Tensor:
        with torch.autocast(student.device.type, enabled=False):
            grams = comparison.grams
            # |X|^2 of the centred rows. As with CKA, a spread within the rounding error of centring counts as none.
            squares = grams.diagonal(dim1=-2, dim2=-1).sum(-1)
            defined = (squares > (CENTRING_ERROR * eps * comparison.sizes) ** 2).all(0)
            # Undefined Gram matrices become zero.
            scales = squares.masked_fill(~defined, torch.inf)
            normed = grams / scales[..., None, None]
            distances, gradients = distance(*normed)
            counts = defined.sum(-1, keepdim=True).clamp(min=1)
            weights = defined.to(distances.dtype) / (counts * len(defined))
            # The gradient through the division by the trace.
            along = (gradients * normed[1]).sum((-2, -1), keepdim=True)
            gradients = torch.addcmul(gradients, along, _eye(gradients), value=-1)
            ctx.comparison = comparison
            ctx.save_for_backward(gradients * (weights / scales[1])[..., None, None])
            return (distances * weights).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        with torch.autocast(gradients.device.type, enabled=False):
            return None, None, None, ctx.comparison.to_student((gradients * gradient).flatten(0, 1))


def _gram(teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    """Return |L - K|_F and its gradient; a norm within rounding is 0, and its gradient too."""
    difference = student - teacher
    norms = torch.linalg.vector_norm(difference, dim=(-2, -1))
    equal = norms <= CENTRING_ERROR * torch.finfo(norms.dtype).eps
    return norms.masked_fill(equal, 0.0), difference / norms.masked_fill(equal, torch.inf)[..., None, None]


def _procrustes(teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    """Return |X|^2 + |Y|^2 - 2 |X^T Y|_* for Gram matrices of trace 1, and its gradient."""
    polar = _polar(teacher, student)
    return (2 - 2 * (polar * student).sum((-2, -1))).clamp(min=0), -polar


def _eye(matrices: Tensor) -> Tensor:
    return torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)


# ---------------------------------------------------------------- The nuclear norm by Newton-Schulz iteration
# The orthogonal factor O of X^T Y, for which |X^T Y|_* = <O, X^T Y> and the gradient with respect to Y is X O, is the
# limit of an odd polynomial of X^T Y, so O = X^T S Y with a polynomial S of K and L. Only products of n x n matrices
# are needed: no decomposition, for which the host would wait for a GPU, and no division by small singular values. The
# singular values of every iterate are at most 1, so the norm is never overestimated and the gradient always finite.

# Singular values above this share of |X^T Y|_F count fully. Smaller ones count in part.
_SMALLEST = 1e-5
# |X^T Y|_F counts as at least this. Smaller starts would grow the rounding error of the Gram matrices.
_LEAST_NORM = 1e-2
# Added to the Gram matrices, so that rounding makes no eigenvalue negative.
_RIDGE = 1e-14


def _scales(smallest: float) -> Iterator[float]:
    """Yield the factors of the iteration for singular values from `smallest` to 1.

    Chen and Chow, "A stable scaling of Newton-Schulz for improving the sign function computation of a Hermitian
    matrix", 2014: with the factor a, x -> a x (3 - a^2 x^2) / 2 maps the interval [l, 1] to [l', 1] with the greatest
    l'.
    """
    while smallest < 1 - 1e-9:
        scale = math.sqrt(3 / (1 + smallest + smallest**2))
        yield scale
        smallest = scale * smallest * (3 - scale**2 * smallest**2) / 2
    yield 1.0


_SCALES = tuple(_scales(_SMALLEST))


def _polar(teacher: Tensor, student: Tensor) -> Tensor:
    """Return the matrix P [..., n, n] with X O = P Y, where O is the orthogonal factor of X^T Y.

    Then |X^T Y|_* = <P, L>. It is too small by at most the sum of the singular values below `_SMALLEST`; the tests find
    at most 2e-6, for spectra from flat to falling by twelve decades.

    Args:
        teacher: K = X X^T, float64 [..., n, n], of trace 1 or zero.
        student: L = Y Y^T, likewise.
    """
    eye = _eye(teacher)
    squares = (teacher * student).sum((-2, -1)).clamp(min=_LEAST_NORM**2)[..., None, None]
    # Every factor is a polynomial of L K, so they commute. The eigenvalues of `products` are the squares of the
    # iterate's singular values.
    products = (student + _RIDGE * eye) @ (teacher + _RIDGE * eye) / squares
    polynomial = eye / squares.sqrt()
    for scale in _SCALES:
        factor = 1.5 * scale * eye - scale**3 / 2 * products
        polynomial = polynomial @ factor
        products = products @ factor @ factor
    return teacher @ polynomial
