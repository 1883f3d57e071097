"""The terms of `gram` and `procrustes` against float64 references, and the identities that define them."""

import numpy as np
import pytest
import torch

from fsd_tune import losses
from tests.helpers import reference
from tests.unit.test_losses import case, close

INTRA = {"gram": losses.gram_intra_loss, "procrustes": losses.procrustes_intra_loss}
LOCAL = {"gram": losses.gram_local_loss, "procrustes": losses.procrustes_local_loss}
DISTANCES = {"gram": reference.gram_distance, "procrustes": reference.procrustes_distance}
LOSSES = {
    f"{name} {kind}": loss for kind, table in (("intra", INTRA), ("local", LOCAL)) for name, loss in table.items()
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def gradient(loss, t, s, mask=None):
    """The loss of the student's features `s`, and its gradient."""
    s = s.detach().clone().requires_grad_()
    value = loss(t, s, mask)
    value.backward()
    assert s.grad is not None
    return value.detach(), s.grad


def expected_values(name, teacher, student, mask):
    """The reference of the intra and of the local term."""
    tokens = [(t[m], s[m]) for t, s, m in zip(teacher, student, mask, strict=True)]
    flat = [(x * mask[..., None]).reshape(len(x), -1) for x in (teacher, student)]
    return tuple(reference.mean_distance(DISTANCES[name], pairs) for pairs in (tokens, [flat]))


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_distances_equal_the_reference(name, seed, masked, dtype):
    teacher, student, mask, _ = case(seed)
    t, s, m = torch.tensor(teacher, dtype=dtype), torch.tensor(student, dtype=dtype), torch.tensor(mask)
    intra, local = expected_values(name, teacher, student, mask if masked else np.ones_like(mask))
    given = m if masked else None
    close(INTRA[name](t, s, given), intra)
    close(LOCAL[name](t, s, given), local)
    assert local > 0


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs(name, dtype):
    teacher, student, mask, _ = case(2)
    t, s = torch.tensor(teacher).to(dtype), torch.tensor(student).to(dtype)
    expected = expected_values(name, t.double().numpy(), s.double().numpy(), mask)
    for loss, value in zip((INTRA[name], LOCAL[name]), expected, strict=True):
        found, slope = gradient(loss, t, s, torch.tensor(mask))
        close(found, value)
        assert found.dtype == torch.float32 and slope.dtype == dtype and slope.any()


@every_loss
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_in_float64(loss, masked):
    teacher, student, mask, _ = case(3)
    t, m, s = torch.tensor(teacher), torch.tensor(mask) if masked else None, torch.tensor(student, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(t, x, m), (s,), eps=1e-5)


@every_loss
def test_rotation_scale_and_shift_of_the_student_change_nothing(loss):
    torch.manual_seed(0)
    t, s = torch.randn(6, 4, 5).double(), torch.randn(6, 4, 3).double()
    turn = torch.linalg.qr(torch.randn(3, 3).double()).Q
    moved = 7 * s @ turn + torch.randn(3).double()
    torch.testing.assert_close(loss(0.1 * t + 3, moved), loss(t, s))
    turn = torch.linalg.qr(torch.randn(5, 5).double()).Q
    for equal in (t, 3 * t - 1, t @ turn, torch.nn.functional.pad(t @ turn, (0, 4))):
        assert abs(float(loss(t, equal))) < 1e-6
    assert float(loss(t, s)) > 0.1


@every_loss
def test_the_order_of_tokens_and_examples_changes_nothing_if_it_is_that_of_both(loss):
    torch.manual_seed(0)
    t, s = torch.randn(6, 4, 5).double(), torch.randn(6, 4, 3).double()
    tokens, examples = torch.randperm(4), torch.randperm(6)
    expected = loss(t, s)
    torch.testing.assert_close(loss(t[:, tokens], s[:, tokens]), expected)
    torch.testing.assert_close(loss(t[examples], s[examples]), expected)
    other = s[examples.roll(1)][:, tokens.roll(1)]
    assert float(loss(t, other)) != pytest.approx(float(expected), rel=1e-3)


@every_loss
@pytest.mark.parametrize("value", [9.0, float("nan")])
def test_padding_counts_nowhere(loss, value):
    teacher, student, mask, _ = case(5)
    wide = [np.pad(x, ((0, 0), (0, 4), (0, 0)), constant_values=value) for x in (teacher, student)]
    t, s = (torch.tensor(x) for x in wide)
    m = torch.tensor(np.pad(mask, ((0, 0), (0, 4))))
    found, slope = gradient(loss, t, s, m)
    torch.testing.assert_close(found, loss(*(torch.tensor(x) for x in (teacher, student, mask))))
    assert slope[m].any() and not slope[~m].any()


@every_loss
@pytest.mark.parametrize("masked", [False, True])
def test_layer_pairs_in_one_call_equal_the_mean_of_single_calls(loss, masked):
    teacher, student, mask, _ = case(4)
    noise = np.random.default_rng(0).normal(size=(3, *student.shape)) * np.array([0.1, 1, 5]).reshape(3, 1, 1, 1)
    t, m = torch.tensor(np.stack([teacher] * 3)), torch.tensor(mask) if masked else None
    together, single = (torch.tensor(student + noise, requires_grad=True) for _ in range(2))
    value = loss(t, together, m)
    expected = torch.stack([loss(t[i], single[i], m) for i in range(3)]).mean()
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(together.grad, single.grad)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_undefined_distance_has_no_loss_and_no_gradient(loss, dtype):
    torch.manual_seed(0)
    distinct = torch.randn(4, 5, 30).to(dtype)
    equal = torch.randn(30).to(dtype).expand(4, 5, 30)
    zero = torch.zeros(4, 5, 30, dtype=dtype)
    for t, s in ((distinct, equal), (equal, distinct), (equal, equal), (zero, zero)):
        value, slope = gradient(loss, t, s)
        assert value == 0 and not slope.any(), (value, slope.abs().max())
    value, slope = gradient(loss, distinct[:1], distinct[1:2], torch.tensor([[1, 0, 0, 0, 0]]))
    assert value == 0 and not slope.any(), "one example of one token"


@every_loss
@pytest.mark.parametrize("equal", [(0, 3), (0, 1, 2, 4, 5)])
def test_equal_rows_have_a_finite_gradient(loss, equal):
    rng = np.random.default_rng(1)
    student, teacher = rng.normal(size=(6, 6, 20)), rng.normal(size=(6, 6, 9))
    student[list(equal)] = student[equal[0]]
    student[:, list(equal)] = student[:, equal[0] : equal[0] + 1]
    _, slope = gradient(loss, torch.tensor(teacher), torch.tensor(student, dtype=torch.float32))
    assert slope.isfinite().all() and slope.any()


@every_loss
def test_equal_features_have_no_large_gradient(loss):
    """A student that starts with the teacher's layers: its features are equal, or equal but for rounding."""
    torch.manual_seed(0)
    t = torch.randn(6, 5, 40)
    for near in (t, t.half().float(), t + 1e-7):
        value, slope = gradient(loss, t, near)
        assert value < 1e-3 and slope.norm() < 2 / t[0].norm(), (value, slope.norm())
    assert gradient(loss, t, t)[1].norm() < 1e-5


SPECTRA = {"flat": 0, "falling": 6, "steep": 12}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("tokens", [3, 64])
@pytest.mark.parametrize("widths", [(1, 1), (8, 5), (40, 40), (100, 30)])
def test_the_nuclear_norm_is_that_of_a_singular_value_decomposition(spectrum, tokens, widths):
    """It is at most 2e-6 too small, so the distance is at most 4e-6 too large. The gradient is not too long."""
    torch.manual_seed(0)
    x, y = (
        torch.randn(2, tokens, width).double() * torch.logspace(0, -SPECTRA[spectrum], width).double()
        for width in widths
    )
    turned = x @ torch.linalg.qr(torch.randn(widths[0], widths[0]).double()).Q
    for student in (y, turned, turned + 1e-3 * torch.randn_like(x)):
        sides = [side - side.mean(1, keepdim=True) for side in (x, student)]
        a, b = (side / torch.linalg.vector_norm(side, dim=(1, 2), keepdim=True) for side in sides)
        norms = np.linalg.svd((a.mT @ b).numpy(), compute_uv=False).sum(-1)
        expected = (2 - 2 * norms).mean()
        value, slope = gradient(losses.procrustes_intra_loss, x, student)
        assert -1e-9 < value.item() - expected < 4e-6
        # |X O| <= |X| = 1, so the gradient of one distance with respect to features of norm 1 is at most 2 long.
        lengths = torch.linalg.vector_norm(slope, dim=(1, 2)) * torch.linalg.vector_norm(sides[1], dim=(1, 2))
        assert 2 * lengths.max() < 2.00001


def test_unrelated_rows_of_few_dimensions_have_a_finite_gradient():
    """X^T Y is zero or nearly so although both sides are defined."""
    first, second = torch.zeros(1, 32, 30), torch.zeros(1, 32, 30)
    first[0, :2, 0] = torch.tensor([1.0, -1.0])
    second[0, 2:4, 0] = torch.tensor([1.0, -1.0])
    for noise in (0, 1e-12, 1e-6, 1e-3):
        torch.manual_seed(0)
        s = second + noise * torch.randn(1, 32, 30)
        value, slope = gradient(losses.procrustes_intra_loss, first, s)
        assert 1.9 < value <= 2 and slope.norm() < 2.001 / s.norm()


def test_what_cka_does_not_see():
    """Many small independent parts: CKA stays near 1, and both distances are large."""
    torch.manual_seed(0)
    line = torch.cat([torch.ones(64), -torch.ones(64)]).double()
    teacher = torch.cat([line[:, None], 0.5 * torch.eye(128).double()], 1)[None]
    student = line[None, :, None]
    assert losses.intra_loss(teacher, student).item() < 1e-3
    assert losses.gram_intra_loss(teacher, student).item() > 0.1
    assert losses.procrustes_intra_loss(teacher, student).item() > 0.1


@every_loss
def test_autocast_does_not_reach_the_losses(loss):
    torch.manual_seed(0)
    t, s = torch.randn(4, 6, 8), torch.randn(4, 6, 5)
    found = []
    for on in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
            found.append(gradient(loss, t, s))
    torch.testing.assert_close(found[0], found[1])
