"""The published memory against its procedure in loops, and what must hold of its empty clusters."""

import numpy as np
import pytest
import torch

from fsd_tune import losses
from fsd_tune.cka import centred_gram
from fsd_tune.memory import published_kmeans, teacher_memory, teacher_outputs
from tests.helpers import reference
from tests.unit.memory.test_teacher_memory import dense, outputs_of, quiet

CPU = torch.device("cpu")


def draws(k, width, seed=0):
    return torch.randn(k, width, generator=torch.Generator().manual_seed(seed)).double().numpy()


@pytest.mark.parametrize("lengths", [[4] * 30, np.random.default_rng(0).integers(2, 9, 40).tolist()])
@pytest.mark.parametrize("block_bytes", [1 << 24, 400])
def test_equals_the_procedure_in_loops(lengths, block_bytes, monkeypatch):
    monkeypatch.setattr(teacher_outputs, "BLOCK_BYTES", block_bytes)
    outputs = outputs_of(lengths)
    points = dense(outputs)
    centroids, clusters = published_kmeans.cluster(outputs, 3, 12, quiet, CPU)
    expected, assigned = reference.published_memory(points, draws(12, points.shape[1]))
    assert clusters.tolist() == assigned
    np.testing.assert_allclose(centroids, expected, rtol=1e-5, atol=1e-6)


def test_centroids_start_near_zero_with_the_last_examples_numbers():
    outputs = outputs_of([4] * 400)
    points = dense(outputs)
    start = published_kmeans.start(outputs, 3, 3000, seed=1).double().numpy()
    assert start.std() == pytest.approx(points[-1].std(ddof=1) / 20, rel=0.02)
    assert start.mean() == pytest.approx(points[-1].mean() / 400, abs=4 * start.std() / np.sqrt(start.size))


def test_the_last_examples_of_a_long_cluster_decide():
    """As (c + f) / 2 over and over: exact also where the first examples have long vanished."""
    weights = published_kmeans._weights(np.zeros(1000, np.int32))
    assert weights[-3:].tolist() == [0.125, 0.25, 0.5] and weights.sum() == 1.0 and weights[0] == 0


def test_empty_clusters_are_zero_and_everything_made_of_them_is_defined(tmp_path):
    outputs = outputs_of(np.random.default_rng(0).integers(2, 9, 40))
    teacher_memory.write_memory(tmp_path / "m", outputs, 3, 12, "published", quiet)
    held = teacher_memory.read_memory(tmp_path / "m", mapped=False)
    empty = held.sizes == 0
    assert len(held.sizes) == 12 and held.sizes.sum() == 40 and empty.any() and not empty.all()
    assert not held.centroids[empty].any() and held.centroids[~empty].any(1).all()
    np.testing.assert_allclose(
        held.distances[:, empty], np.linalg.norm(dense(outputs), axis=1)[:, None].repeat(empty.sum(), 1), rtol=1e-5
    )
    assert not held.cosines[:, empty].any() and np.isfinite(held.cosines).all()
    # A student memory that starts as the matched one does: zero where the cluster is empty.
    student = torch.tensor(held.centroids * 2).requires_grad_()
    feature = torch.randn(6, student.shape[1], requires_grad=True)
    targets = losses.GlobalTargets(
        torch.tensor(held.distances[:6]), torch.tensor(held.cosines[:6]), centred_gram(torch.tensor(held.centroids))
    )
    for distance in ("raw", "relative"):
        total = losses.global_sum(losses.global_terms(targets, feature, student, distance), 0.5)
        total.backward()
        assert torch.isfinite(total)
        for made in (student.grad, feature.grad):
            assert made is not None and bool(torch.isfinite(made).all())


def test_it_has_a_name_of_its_own():
    assert teacher_memory.memory_key("o", 3, 5, "published") != teacher_memory.memory_key("o", 3, 5, "kmeans")
