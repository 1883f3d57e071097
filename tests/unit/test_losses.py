import numpy as np
import pytest
import torch

from fsd_tune import losses
from fsd_tune.cka import centred_gram
from tests.helpers import reference


def case(seed):
    rng = np.random.default_rng(seed)
    b, n, h, g, k = (int(value) for value in rng.integers([2, 2, 2, 2, 2], [7, 9, 8, 8, 6]))
    teacher, student = rng.normal(1, 1, (b, n, h)), rng.normal(-1, 2, (b, n, g))
    mask = np.arange(n) < rng.integers(1, n + 1, (b, 1))
    memories = rng.normal(size=(k, n * h)), rng.normal(size=(k, n * g))
    return teacher, student, mask, memories


def close(got, expected):
    np.testing.assert_allclose(float(got), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_structure_terms_equal_the_reference(seed, masked, dtype):
    teacher, student, mask, (m_t, m_s) = case(seed)
    t, s, m = torch.tensor(teacher, dtype=dtype), torch.tensor(student, dtype=dtype), torch.tensor(mask)
    given = m if masked else None
    full = mask if masked else np.ones_like(mask)
    close(losses.intra_loss(t, s, given), reference.intra(teacher, student, full))
    close(losses.local_loss(t, s, given), reference.local(teacher, student, full))
    flat_t, flat_s = losses.flatten(t, given), losses.flatten(s, given)
    for distance in ("raw", "relative"):
        got = losses.global_loss(
            flat_t, flat_s, torch.tensor(m_t, dtype=dtype), torch.tensor(m_s, dtype=dtype), 0.3, distance
        )
        expected = reference.global_(flat_t.double().numpy(), flat_s.double().numpy(), m_t, m_s, 0.3, distance)
        close(got, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_in_float64(masked):
    teacher, student, mask, (m_t, m_s) = case(3)
    t, m = torch.tensor(teacher), torch.tensor(mask) if masked else None
    s, memory = torch.tensor(student, requires_grad=True), torch.tensor(m_s, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: losses.intra_loss(t, x, m), (s,))
    assert torch.autograd.gradcheck(lambda x: losses.local_loss(t, x, m), (s,))
    flat = losses.flatten(t, m)
    for distance in ("raw", "relative"):
        assert torch.autograd.gradcheck(
            lambda x, y, d=distance: losses.global_loss(flat, losses.flatten(x, m), torch.tensor(m_t), y, 0.3, d),
            (s, memory),
        )
    logits, labels = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: losses.kd_loss(logits, x, 2.5), (z,))
    assert torch.autograd.gradcheck(lambda x: losses.task_loss(x, labels), (z,))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 7.0])
def test_soft_targets_and_task_loss(temperature):
    rng = np.random.default_rng(1)
    teacher, student, labels = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), np.array([0, 1, 2, 2, 0])
    close(
        losses.kd_loss(torch.tensor(teacher), torch.tensor(student), temperature),
        reference.kd(teacher, student, temperature),
    )
    close(
        losses.task_loss(torch.tensor(student), torch.tensor(labels)),
        reference.cross_entropy(student, labels),
    )


def test_regression_has_no_temperature():
    teacher, student = torch.randn(6, 1), torch.randn(6, 1)
    expected = float(((teacher - student) ** 2).mean())
    close(losses.kd_loss(teacher, student, 1.0), expected)
    close(losses.kd_loss(teacher, student, 9.0), expected)
    labels = torch.rand(6) * 5
    close(losses.task_loss(student, labels), float(((student[:, 0] - labels) ** 2).mean()))


def test_padding_to_the_batch_or_to_the_maximum_is_the_same():
    teacher, student, mask, _ = case(5)
    b, n, h = teacher.shape
    g = student.shape[-1]
    pad = 4
    wide_t = np.concatenate([teacher, np.full((b, pad, h), 7.0)], 1)
    wide_s = np.concatenate([student, np.full((b, pad, g), -7.0)], 1)
    wide_mask = np.concatenate([mask, np.zeros((b, pad), bool)], 1)
    m_t, m_s = torch.randn(4, (n + pad) * h).double(), torch.randn(4, (n + pad) * g).double()

    def all_terms(t, s, m):
        t, s, m = torch.tensor(t), torch.tensor(s), torch.tensor(m)
        flat_t, flat_s = losses.flatten(t, m), losses.flatten(s, m)
        return [
            losses.intra_loss(t, s, m),
            losses.local_loss(t, s, m),
            losses.global_loss(flat_t, flat_s, m_t, m_s, 0.5, "relative"),
        ]

    for short, full in zip(all_terms(teacher, student, mask), all_terms(wide_t, wide_s, wide_mask), strict=True):
        torch.testing.assert_close(short, full)


def test_a_feature_that_equals_its_centroid_has_a_finite_gradient():
    feature = torch.randn(3, 8, requires_grad=True)
    memory = feature.detach().clone().requires_grad_()
    targets = losses.GlobalTargets(torch.rand(3, 3), torch.rand(3, 3), centred_gram(torch.randn(3, 5)))
    losses.global_sum(losses.global_terms(targets, feature, memory, "raw"), 0.5).backward()
    assert feature.grad is not None and torch.isfinite(feature.grad).all()
    assert memory.grad is not None and torch.isfinite(memory.grad).all()


def test_identical_structures_cost_nothing():
    x = torch.randn(4, 6, 5)
    for term in (losses.intra_loss(x, 2 * x), losses.local_loss(x, 2 * x)):
        assert abs(float(term)) < 1e-5
    flat, memory = x.flatten(1), torch.randn(3, 30)
    assert abs(float(losses.global_loss(flat, flat, memory, memory, 0.5))) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs(dtype):
    teacher, student, mask, (m_t, m_s) = case(2)
    t, s, m = torch.tensor(teacher).to(dtype), torch.tensor(student).to(dtype), torch.tensor(mask)
    memory_t, memory_s = torch.tensor(m_t).to(dtype), torch.tensor(m_s).to(dtype)
    back_t, back_s = t.double().numpy(), s.double().numpy()
    close(losses.intra_loss(t, s, m), reference.intra(back_t, back_s, mask))
    close(losses.local_loss(t, s, m), reference.local(back_t, back_s, mask))
    flat_t, flat_s = losses.flatten(t, m), losses.flatten(s, m)
    close(
        losses.global_loss(flat_t, flat_s, memory_t, memory_s, 0.5, "relative"),
        reference.global_(
            flat_t.double().numpy(),
            flat_s.double().numpy(),
            memory_t.double().numpy(),
            memory_s.double().numpy(),
            0.5,
            "relative",
        ),
    )


@pytest.mark.parametrize("masked", [False, True])
def test_layer_pairs_in_one_call_equal_the_mean_of_single_calls(masked):
    teacher, student, mask, _ = case(4)
    noise = np.random.default_rng(0).normal(size=(3, *student.shape)) * np.array([0.1, 1, 5]).reshape(3, 1, 1, 1)
    t, m = torch.tensor(np.stack([teacher] * 3)), torch.tensor(mask) if masked else None
    for loss in (losses.intra_loss, losses.local_loss):
        together, single = (torch.tensor(student + noise, requires_grad=True) for _ in range(2))
        value = loss(t, together, m)
        expected = torch.stack([loss(t[i], single[i], m) for i in range(3)]).mean()
        torch.testing.assert_close(value, expected)
        value.backward()
        expected.backward()
        torch.testing.assert_close(together.grad, single.grad)


def undefined(name, dtype):
    """A loss without any defined CKA, and the tensor that its gradient goes to."""
    x = torch.randn(4, 5, 3, dtype=dtype)
    if name == "one token":
        student, mask = torch.randn(4, 5, 3, dtype=dtype, requires_grad=True), torch.tensor([[1, 0, 0, 0, 0]] * 4)
        return losses.intra_loss(x, student, mask), student
    if name == "equal examples of the student":
        student = torch.randn(1, 5, 3, dtype=dtype).repeat(4, 1, 1).requires_grad_()
        return losses.local_loss(x, student), student
    if name == "equal examples of the teacher":
        student = torch.randn(4, 5, 3, dtype=dtype, requires_grad=True)
        return losses.local_loss(x[:1].repeat(4, 1, 1), student), student
    centroids = torch.randn(6, 10, dtype=dtype)
    equal = centroids[:1].repeat(6, 1)
    of_teacher, of_student = (equal, centroids) if name == "equal centroids of the teacher" else (centroids, equal)
    memory = of_student.clone().requires_grad_()
    feature, targets = x.flatten(1)[:, :10], torch.rand(4, 6, dtype=dtype)
    parts = losses.global_terms(losses.GlobalTargets(targets, targets, centred_gram(of_teacher)), feature, memory)
    return parts["memory"], memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name",
    [
        "one token",
        "equal examples of the student",
        "equal examples of the teacher",
        "equal centroids of the teacher",
        "equal centroids of the student",
    ],
)
def test_an_undefined_cka_has_no_loss_and_no_gradient(name, dtype):
    loss, student = undefined(name, dtype)
    loss.backward()
    assert loss.item() == 0
    assert (student.grad == 0).all()


def test_autocast_does_not_reach_the_losses():
    t, s = torch.randn(4, 6, 8), torch.randn(4, 6, 8)
    memories = torch.randn(3, 48), torch.randn(3, 48)

    def gradients():
        student, memory = s.clone().requires_grad_(), memories[1].clone().requires_grad_()
        total = losses.intra_loss(t, student) + losses.local_loss(t, student)
        total = total + losses.global_loss(t.flatten(1), student.flatten(1), memories[0], memory, 0.5)
        total.backward()
        return total, student.grad, memory.grad

    expected = gradients()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = gradients()
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)
