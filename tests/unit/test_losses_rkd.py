"""RKD and PKD against float64 loops, and the identities that define them."""

import numpy as np
import pytest
import torch

from fsd_tune import losses
from tests.helpers import reference
from tests.unit.test_losses import case, close

RELATIONAL = {"distance": losses.rkd_distance_loss, "angle": losses.rkd_angle_loss}
REFERENCES = {"distance": reference.rkd_distance, "angle": reference.rkd_angle}


def flat(x, mask):
    return (x * mask[..., None]).reshape(len(x), -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_relations_equal_the_reference(seed, masked, dtype):
    teacher, student, mask, _ = case(seed)
    t, s = torch.tensor(teacher, dtype=dtype), torch.tensor(student, dtype=dtype)
    full = mask if masked else np.ones_like(mask)
    for name, loss in RELATIONAL.items():
        expected = REFERENCES[name](flat(teacher, full), flat(student, full))
        assert expected > 0 or len(teacher) == 2, "a pair has one scaled distance and no angle"
        close(loss(t, s, torch.tensor(mask) if masked else None), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_patient_distillation_equals_the_reference(dtype):
    rng = np.random.default_rng(0)
    t, s = (torch.tensor(rng.normal(size=(5, 4, 7))).to(dtype) for _ in range(2))
    close(losses.cls_loss(t, s), reference.pkd(t.double().numpy(), s.double().numpy()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs(dtype):
    teacher, student, mask, _ = case(2)
    t, s = torch.tensor(teacher).to(dtype), torch.tensor(student).to(dtype)
    for name, loss in RELATIONAL.items():
        expected = REFERENCES[name](flat(t.double().numpy(), mask), flat(s.double().numpy(), mask))
        close(loss(t, s, torch.tensor(mask)), expected)


def test_gradients_in_float64():
    teacher, student, mask, _ = case(4)
    t, m, s = torch.tensor(teacher), torch.tensor(mask), torch.tensor(student, requires_grad=True)
    assert len(t) > 2
    for loss in RELATIONAL.values():
        assert torch.autograd.gradcheck(lambda x, f=loss: f(t, x, m), (s,))
    narrow = t[..., : s.shape[-1]] if s.shape[-1] < t.shape[-1] else t
    own = torch.randn(narrow.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: losses.cls_loss(narrow, x), (own,))


@pytest.mark.parametrize("loss", RELATIONAL.values(), ids=RELATIONAL)
def test_scale_rotation_and_shift_of_either_side_change_nothing(loss):
    """Distances are divided by their mean and angles know no length; both are those of differences."""
    torch.manual_seed(0)
    t, s = torch.randn(6, 4, 5).double(), torch.randn(6, 4, 3).double()
    expected = loss(t, s)
    turn = torch.linalg.qr(torch.randn(12, 12).double()).Q
    moved = (7 * s.flatten(1) @ turn + torch.randn(12).double()).reshape(s.shape)
    torch.testing.assert_close(loss(0.1 * t + 3, moved), expected)
    assert float(loss(t, 4 * t)) == pytest.approx(0, abs=1e-12)


def test_scale_of_a_cls_vector_and_other_tokens_change_nothing():
    torch.manual_seed(0)
    t, s = torch.randn(6, 4, 5).double(), torch.randn(6, 4, 5).double()
    changed = torch.cat([3 * s[:, :1], torch.randn(6, 3, 5).double()], 1)
    torch.testing.assert_close(losses.cls_loss(t, changed), losses.cls_loss(t, s))
    assert float(losses.cls_loss(t, 2 * t)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", RELATIONAL.values(), ids=RELATIONAL)
def test_padding_to_the_batch_or_to_the_maximum_is_the_same(loss):
    teacher, student, mask, _ = case(5)
    wide_t, wide_s = (np.pad(x, ((0, 0), (0, 4), (0, 0)), constant_values=9.0) for x in (teacher, student))
    wide_mask = np.pad(mask, ((0, 0), (0, 4)))
    short = loss(*(torch.tensor(x) for x in (teacher, student, mask)))
    torch.testing.assert_close(loss(*(torch.tensor(x) for x in (wide_t, wide_s, wide_mask))), short)
    assert float(loss(torch.tensor(wide_t), torch.tensor(wide_s))) != pytest.approx(float(short))


def equal_rows(b, n, h):
    return torch.randn(1, n, h).repeat(b, 1, 1)


@pytest.mark.parametrize("loss", RELATIONAL.values(), ids=RELATIONAL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_undefined_relations_cost_nothing_and_have_a_zero_gradient(loss, dtype):
    torch.manual_seed(0)
    distinct, equal = torch.randn(7, 40, 30).to(dtype), equal_rows(7, 40, 30).to(dtype)
    for t, s in ((distinct[:1], distinct[1:2]), (distinct, equal), (equal, distinct), (equal, equal)):
        s = s.clone().requires_grad_()
        value = loss(t, s)
        value.backward()
        assert float(value.detach()) == 0 and s.grad is not None and bool((s.grad == 0).all())


@pytest.mark.parametrize("equal", [(0, 3), (1, 2, 4)])
def test_a_few_equal_examples_leave_the_other_relations(equal):
    rng = np.random.default_rng(1)
    teacher, student = rng.normal(size=(6, 3, 40)), rng.normal(size=(6, 3, 30))
    student[list(equal)] = student[equal[0]]
    for name, loss in RELATIONAL.items():
        s = torch.tensor(student, dtype=torch.float32, requires_grad=True)
        value = loss(torch.tensor(teacher), s)
        close(value.detach(), REFERENCES[name](flat(teacher, np.ones((6, 3))), flat(student, np.ones((6, 3)))))
        value.backward()
        assert s.grad is not None and bool(torch.isfinite(s.grad).all()) and bool((s.grad != 0).any())


def test_distances_survive_what_the_examples_have_in_common():
    """Sentences' features are alike: an offset of a thousand deviations must not drown their differences."""
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(8, 4, 16)), rng.normal(size=(8, 4, 16)) + 1000
    s = torch.tensor(student, dtype=torch.float32)
    back = s.double().numpy()
    for name, loss in RELATIONAL.items():
        expected = REFERENCES[name](flat(teacher, np.ones((8, 4))), flat(back, np.ones((8, 4))))
        np.testing.assert_allclose(float(loss(torch.tensor(teacher).float(), s)), expected, rtol=2e-3)


def test_a_zero_cls_vector_has_a_finite_gradient():
    s = torch.zeros(2, 1, 4, requires_grad=True)
    value = losses.cls_loss(torch.randn(2, 1, 4), s)
    value.backward()
    close(value.detach(), 1 / 4)
    assert s.grad is not None and bool(torch.isfinite(s.grad).all())
