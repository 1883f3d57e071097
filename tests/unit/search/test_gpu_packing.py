import pytest

from fsd_tune.errors import FsdTuneError
from fsd_tune.search import gpu_packing
from fsd_tune.settings import loader
from fsd_tune.settings.shapes import student_of

SPACE = """
method: {choice: [ce, fsd_ilg, kd]}
space:
  alpha: {low: 0.1, high: 0.9}
  temperature: 5
  beta: 1
  gamma_i: {low: 0.1, high: 10, log: true}
  gamma_l: 1
  gamma_g: 1
  gamma_m: 0.5
  batch_size: {choice: [16, 64, 32]}
resources: {gpus_per_trial: auto}
"""
GB = 10**9


def probe(peak, free, host=1.0):
    return gpu_packing.Probe(peak * GB, free * GB, host, 1.0)


@pytest.mark.parametrize(("peak", "free", "expected"), [(1, 80, 1 / 8), (20, 80, 1 / 3), (30, 80, 1 / 2), (60, 80, 1)])
def test_as_many_trials_as_fit_share_a_gpu(peak, free, expected):
    assert gpu_packing.gpu_share(probe(peak, free)) == pytest.approx(expected)


@pytest.mark.parametrize(("host", "expected"), [(0.1, 1), (0.49, 1), (0.51, 1 / 8), (1.0, 1 / 8)])
def test_trials_share_a_gpu_only_if_the_host_is_the_slower_one(host, expected):
    assert gpu_packing.gpu_share(probe(1, 80, host)) == expected


def test_a_trial_that_fits_no_gpu_is_refused():
    with pytest.raises(FsdTuneError, match=r"takes 79\.0 GB of GPU memory, but the GPU has only 80\.0 GB free"):
        gpu_packing.gpu_share(probe(79, 80))


def test_the_dearest_configuration_has_most_terms_and_the_largest_batch(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE, encoding="utf-8")
    config = gpu_packing.largest_configuration(loader.load(path))
    assert (config["method"], config["batch_size"], config["alpha"]) == ("fsd_ilg", 64, 0.1)


@pytest.mark.parametrize("angles", ["rkd_angle", "rkd"])
@pytest.mark.parametrize("batch", [64, 512])
def test_angles_are_dearest_in_large_batches(tmp_path, batch, angles):
    path = tmp_path / "space.yaml"
    text = SPACE.replace("[ce, fsd_ilg, kd]", f"[{angles}, fsd_ilg, kd]").replace("64", str(batch))
    if angles == "rkd":
        text = text.replace("  beta: 1\n", "  beta: 1\n  beta_distance: 1\n  beta_angle: 1\n")
    path.write_text(text, encoding="utf-8")
    config = gpu_packing.largest_configuration(loader.load(path))
    assert (config["method"], config["batch_size"]) == ("fsd_ilg" if batch == 64 else angles, batch)


@pytest.mark.parametrize(
    ("student", "largest"),
    [
        ("{layers: {choice: [2, 6, 4]}, start: {choice: [random, last]}, hidden_size: 64}", (6, "last", None)),
        ("{start: {choice: [random]}, hidden_size: {choice: [64, 192, 96]}}", (6, "random", 192)),
        ("{layers: 3, start: random, hidden_size: {choice: [64, null]}}", (3, "random", None)),
    ],
)
def test_the_largest_student_is_the_deepest_and_widest(tmp_path, student, largest):
    path = tmp_path / "space.yaml"
    path.write_text(f"{SPACE}student: {student}\n", encoding="utf-8")
    settings = loader.load(path)
    found = student_of(settings, gpu_packing.largest_configuration(settings))
    assert (found.layers, found.start, found.hidden_size) == largest
