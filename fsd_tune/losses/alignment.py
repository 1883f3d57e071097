"""CKA losses of all terms of a batch in one differentiable function, with a gradient in closed form.

On a GPU a training step is limited by the number of operations that the host launches. Autograd would launch about 100
for each term. Here all terms share the operations on their CKA values, and teacher and student share those on features.

Shapes: g groups (layer pairs) of m comparisons of n rows; N comparisons of all terms, G groups of all terms, T terms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fsd_tune.cka import CENTRING_ERROR


@dataclass(frozen=True)
class Comparison:
    """Centred Gram matrices of a teacher and a student.

    Attributes:
        student: the tensor that receives the gradient.
        grams: of teacher and student, [2, g, m, n, n], float32 or float64.
        sizes: Frobenius norms of the rows before centring, [2, g, m]. A Gram matrix that is not larger than the
            rounding error of centring such rows has no CKA.
        rows: the student's centred rows [g * m, n, p], in the order of `student`'s numbers; None if `student` is a
            Gram matrix itself.
        padding: bool, positions of `student` without gradient although `rows` are not zero there; None for none.
    """

    student: Tensor
    grams: Tensor
    sizes: Tensor
    rows: Tensor | None = None
    padding: Tensor | None = None

    def flat(self) -> Tensor:
        """Return the Gram matrices of teacher and student as two rows of each comparison, [g * m, 2, n * n]."""
        n = self.grams.shape[-1]
        return self.grams.reshape(2, -1, n * n).transpose(0, 1)

    def to_student(self, gradient: Tensor) -> Tensor:
        """Return the gradient of `student` from that of its Gram matrices, [g * m, n, n], symmetric and centred."""
        if self.rows is not None:
            # d(Y Y^T) = dY Y^T + Y dY^T. Centring changes nothing, because the rows of `gradient` add up to zero.
            gradient = torch.baddbmm(self.rows, gradient, self.rows, beta=0, alpha=2)
        gradient = gradient.reshape(self.student.shape)
        if self.padding is not None:
            gradient = gradient.masked_fill_(self.padding, 0.0)
        return gradient.to(self.student.dtype)


class _AlignmentLosses(torch.autograd.Function):
    """An autograd function for the losses [T] of comparisons; `groups` holds the term and the size of each group."""

    @staticmethod
    def forward(
        ctx: Any, comparisons: Sequence[Comparison], groups: tuple[tuple[int, int], ...], *students: Tensor
    ) -> Tensor:
        with torch.autocast(students[0].device.type, enabled=False):
            flat = [comparison.flat() for comparison in comparisons]
            # |K|^2, |L|^2 and twice <K, L> of each comparison.
            products = torch.cat([torch.bmm(grams, grams.transpose(-2, -1)) for grams in flat])
            sizes = torch.cat([comparison.sizes.reshape(2, -1) for comparison in comparisons], -1).T
            norms = products.diagonal(dim1=-2, dim2=-1).sqrt()
            bound = CENTRING_ERROR * torch.finfo(norms.dtype).eps
            defined = (torch.addcmul(norms, sizes, sizes, value=-(bound**2)) > 0).all(-1)
            # The value and the gradient of an undefined CKA are then a number divided by infinity.
            norms = norms.masked_fill_(~defined.unsqueeze(-1), torch.inf)
            scale = norms.prod(-1)
            # <K, L> is not negative, except for rounding.
            values = products[:, 0, 1].abs() / scale
            members, terms, tiny = _averages(groups, norms.dtype, norms.device)
            sums, counts = (members @ torch.stack((values, defined), -1)).unbind(-1)
            divisors = counts.clamp(min=1)
            means = torch.addcdiv(tiny, sums, divisors)
            # The logarithm, or zero for a group without a defined value.
            logs = torch.xlogy(counts, means) / divisors
            ctx.comparisons = comparisons
            ctx.save_for_backward(values, norms, scale, means * divisors, members, terms, *flat)
            return terms @ logs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, norms, scale, divisors, members, terms, *flat = ctx.saved_tensors
        comparisons: Sequence[Comparison] = ctx.comparisons
        with torch.autocast(values.device.type, enabled=False):
            # d value / dL = K / (|K| |L|) - value L / |L|^2
            of_values = members.T @ ((terms.T @ gradient) / divisors)
            of_teacher = of_values / scale
            of_student = of_values * values / norms[:, 1] / -norms[:, 1]
            factors = torch.stack((of_teacher, of_student), -1).unsqueeze(-2)
            parts = zip(comparisons, torch.split(factors, [len(grams) for grams in flat]), flat, strict=True)
            gradients = [
                comparison.to_student(torch.bmm(factor, grams).view(-1, *comparison.grams.shape[-2:]))
                for comparison, factor, grams in parts
            ]
        return None, None, *gradients


@lru_cache(maxsize=32)
def _averages(
    groups: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices that add up the comparisons of each group [G, N], and average minus the groups [T, G].

    The third tensor is what is added to each mean before the logarithm, a scalar.
    """
    # Filled on the device: a copy from the host would make the host wait.
    members = torch.zeros(len(groups), sum(size for _, size in groups), dtype=dtype, device=device)
    averages = torch.zeros(1 + max(term for term, _ in groups), len(groups), dtype=dtype, device=device)
    first = 0
    for index, (term, size) in enumerate(groups):
        members[index, first : first + size].fill_(1)
        averages[term, index].fill_(-1 / sum(other == term for other, _ in groups))
        first += size
    return members, averages, torch.full((), 1e-8, dtype=dtype, device=device)


def alignment_losses(comparisons: Mapping[str, Sequence[Comparison]]) -> dict[str, Tensor]:
    """Return for each term the mean over groups of -log(mean(|CKA|) + 1e-8), the inner mean over a group's comparisons.

    This is `fsd_tune.cka.cka_loss` of each group, with fewer operations. Comparisons without a defined CKA are left
    out; a group without any has loss 0 and zero gradient.

    Args:
        comparisons: by term, at least one each.

    Returns:
        Scalars by term, differentiable once with respect to `student` of the comparisons.
    """
    flat = [(term, comparison) for term, values in enumerate(comparisons.values()) for comparison in values]
    if not flat:
        return {}
    groups: list[tuple[int, int]] = []
    for term, comparison in flat:
        g, m = comparison.sizes.shape[1:]
        groups += [(term, m)] * g
    everything = [comparison for _, comparison in flat]
    losses = _AlignmentLosses.apply(  # type: ignore[no-untyped-call]
        everything, tuple(groups), *(comparison.student for comparison in everything)
    )
    return dict(zip(comparisons, losses.unbind(), strict=True))
