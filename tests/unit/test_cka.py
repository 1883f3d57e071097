import numpy as np
import pytest
import torch

from fsd_tune.cka import centred_gram, cka_loss, cka_of, linear_cka
from tests.helpers import reference


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_definition_on_random_shapes(seed):
    rng = np.random.default_rng(seed)
    n, p, q = rng.integers(2, 12), rng.integers(1, 20), rng.integers(1, 20)
    # A large mean, as BERT's features have, is what centring late would lose to cancellation.
    x, y = rng.normal(5, 1, (3, n, p)), rng.normal(-3, 2, (3, n, q))
    expected = [reference.cka(a, b) for a, b in zip(x, y, strict=True)]
    for dtype in (torch.float32, torch.float64):
        got = linear_cka(torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype))
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_masked_equals_the_rows_alone_whatever_the_padding_holds():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 9, 6)), rng.normal(size=(2, 9, 4))
    mask = np.array([[1] * 5 + [0] * 4, [1] * 9])
    x[0, 5:] = np.nan
    y[0, 5:] = 1e30
    expected = [reference.cka(a[m > 0], b[m > 0]) for a, b, m in zip(x, y, mask, strict=True)]
    got = linear_cka(torch.tensor(x), torch.tensor(y), torch.tensor(mask))
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_invariant_to_rotation_scale_and_shift():
    x, y = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    torch.testing.assert_close(linear_cka(3 * x @ rotation + 2, y), linear_cka(x, y))
    torch.testing.assert_close(linear_cka(x, x), torch.tensor(1.0, dtype=torch.float64))


def test_gradients_in_float64():
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    assert torch.autograd.gradcheck(lambda a, b: linear_cka(a, b), (x, y))
    assert torch.autograd.gradcheck(lambda a, b: linear_cka(a, b, mask), (x, y))


@pytest.mark.parametrize("value", [0.1, 1e4, 0.0])
def test_constant_features_are_undefined_although_their_mean_rounds(value):
    x = torch.full((3, 7, 5), value, requires_grad=True)
    y = torch.randn(3, 7, 5)
    assert linear_cka(x, y).isnan().all()
    loss = cka_loss(*cka_of(centred_gram(x), centred_gram(y)))
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None and (x.grad == 0).all()


def test_one_row_is_undefined_and_left_out_of_the_mean():
    x, y = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]])
    value = linear_cka(x, y, mask)
    assert value[0].isnan() and not value[1].isnan()
    loss = cka_loss(*cka_of(centred_gram(x, mask), centred_gram(y, mask)))
    torch.testing.assert_close(loss, -torch.log(value[1] + 1e-8))


def test_half_precision_inputs_are_summed_in_float32():
    x = torch.randn(20, 3000).bfloat16()
    assert linear_cka(x, x).dtype == torch.float32
    torch.testing.assert_close(linear_cka(x, x), torch.tensor(1.0))
    big = torch.full((4, 3000), 200.0).half() + torch.randn(4, 3000).half()
    assert torch.isfinite(linear_cka(big, big))


def test_autocast_does_not_reach_the_products():
    x, y = torch.randn(16, 64), torch.randn(16, 64)
    expected = linear_cka(x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(linear_cka(x, y), expected)
