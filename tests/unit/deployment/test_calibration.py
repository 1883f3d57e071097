"""Which training examples calibrate int8: the memory's most central ones, or random ones if there is no memory."""

import json

import numpy as np
import pytest

from fsd_tune.data.batching import split_digest, tokenize
from fsd_tune.data.splits import get_task, load_split
from fsd_tune.deployment import calibration
from fsd_tune.deployment.calibration import central_rows, choose_calibration
from fsd_tune.models.loading import load_tokenizer
from fsd_tune.storage import artifacts
from tests.helpers import tiny


def test_every_clusters_nearest_example_comes_first():
    clusters = np.array([0, 2, 0, 2, 2, 1], np.int32)
    distances = np.full((6, 3), 9.0, np.float32)
    distances[np.arange(6), clusters] = [5, 3, 4, 1, 2, 8]
    # The nearest of each cluster: 3 (of 2), 2 (of 0), 5 (of 1), by distance; then 4 and 0; then 1.
    assert central_rows(clusters, distances, 6).tolist() == [3, 2, 5, 4, 0, 1]
    assert central_rows(clusters, distances, 4).tolist() == [3, 2, 5, 4]


@pytest.fixture
def searched(tmp_path, glue, monkeypatch):
    """A search's folder with a memory, its training split, and the student's tokenizer."""
    monkeypatch.setattr(calibration, "EXAMPLES", 4)
    search = tmp_path / "R"
    (search / "best").mkdir(parents=True)
    tiny.write_tokenizer(search / "best")
    tokenizer = load_tokenizer(search / "best")
    train = load_split(get_task("sst2"), "train", glue)
    tokens = tokenize(train, tokenizer, 16, limit=12)
    rng = np.random.default_rng(0)
    clusters, distances = rng.integers(0, 3, 12).astype(np.int32), rng.random((12, 3)).astype(np.float32)
    with artifacts.writing(search / "memory" / "memory-1") as (folder, facts):
        for name in ("centroids", "sizes", "cosines"):
            np.save(folder / f"{name}.npy", np.zeros(1))
        np.save(folder / "clusters.npy", clusters)
        np.save(folder / "distances.npy", distances)
        facts["centroids"] = 3
    summary = {"identity": {"training split": split_digest(tokens)}, "memory": {"path": "/elsewhere/memory-1"}}
    (search / "summary.json").write_text(json.dumps(summary))
    (search / "settings.yaml").write_text("data: {max_length: 16, train_limit: 12}\n")
    return search, train, tokenizer, tokens.take(central_rows(clusters, distances, 4))


def test_the_memory_of_the_students_search_gives_its_central_examples(searched):
    search, train, tokenizer, central = searched
    found = choose_calibration(str(search / "best"), train, tokenizer, 16)
    assert found.source == "the 4 most central examples of the teacher memory"
    assert found.examples.ids.tolist() == central.ids.tolist()


@pytest.mark.parametrize("change", ["other training split", "no memory", "no settings", "no search"])
def test_without_a_memory_of_this_split_examples_are_random(searched, change):
    search, train, tokenizer, central = searched
    student = search / "best"
    if change == "other training split":
        (search / "settings.yaml").write_text("data: {max_length: 16, train_limit: 11}\n")
    elif change == "no memory":
        (search / "memory" / "memory-1").rename(search / "memory" / "gone")
    elif change == "no settings":
        (search / "settings.yaml").unlink()
    else:
        student = search.parent
    found = choose_calibration(str(student), train, tokenizer, 16)
    assert found.source == "4 random training examples, because the student has no teacher memory"
    assert len(found.examples) == 4 and found.examples.ids.tolist() != central.ids.tolist()
    again = choose_calibration(str(student), train, tokenizer, 16)
    assert again.examples.ids.tolist() == found.examples.ids.tolist()
