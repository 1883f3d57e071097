import hashlib
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest

from fsd_tune.data.splits import TASKS, Split, content_hash, from_dataset, get_task, load_split, load_splits
from fsd_tune.errors import InputError
from tests.helpers import glue_folders


def _problems(task: str, names: list[str], data: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_splits(get_task(task), names, data)
    return [problem.replace(f"{data}/", "") for problem in caught.value.problems]


def _sst2(folder: Path, train: bytes | str, dev: str = "sentence\tlabel\nfine\t1\n") -> Path:
    (folder / "SST-2").mkdir(parents=True)
    (folder / "SST-2" / "train.tsv").write_bytes(train.encode() if isinstance(train, str) else train)
    (folder / "SST-2" / "dev.tsv").write_bytes(dev.encode())
    return folder


def test_importing_glue_is_quick_and_loads_no_heavy_library():
    heavy = "{'torch', 'ray', 'transformers', 'numpy', 'scipy', 'sklearn', 'datasets', 'pandas'}"
    code = f"import sys, fsd_tune.data.splits; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_table_of_tasks():
    metric = {task.id: task.metric for task in TASKS.values()}
    assert metric == {
        "cola": "matthews_correlation",
        "sst2": "accuracy",
        "mrpc": "f1",
        "qqp": "f1",
        "stsb": "pearson",
        "mnli": "accuracy",
        "qnli": "accuracy",
        "rte": "accuracy",
        "wnli": "accuracy",
    }
    assert [task.id for task in TASKS.values() if task.default_centroids == 300] == ["qqp", "mnli"]
    assert {task.num_labels for task in TASKS.values()} == {1, 2, 3}
    assert [task.id for task in TASKS.values() if task.regression] == ["stsb"]
    assert TASKS["mnli"].labels == ("entailment", "neutral", "contradiction")
    assert TASKS["rte"].labels == ("entailment", "not_entailment")
    assert TASKS["wnli"].labels == ("not_entailment", "entailment")


@pytest.mark.parametrize("name", ["sst2", "SST2", "SST-2", "sst-2", "sst_2"])
def test_task_names_in_any_spelling(name):
    assert get_task(name).id == "sst2"


def test_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"`rtee` is not a GLUE task, must be one of cola, .*Did you mean `rte`"):
        get_task("rtee")


def test_every_task_and_split_loads_as_written(tmp_path):
    expected = glue_folders.write_glue(tmp_path)
    assert len(expected) == 9 * 3 + 3
    for (task_id, name), split_expected in expected.items():
        split = load_split(get_task(task_id), name, tmp_path)
        assert split.first == split_expected.first, (task_id, name)
        if task_id in ("cola", "sst2"):
            assert split.second is None
        else:
            assert split.second == split_expected.second, (task_id, name)
        if split_expected.labels is None:
            assert name in ("test", "test_mismatched", "ax") and split.labels is None
        else:
            assert split.labels is not None
            assert split.labels.dtype == (np.float32 if task_id == "stsb" else np.int64)
            np.testing.assert_allclose(split.labels, split_expected.labels)
        assert split.skipped == split_expected.skipped, (task_id, name)
        assert Path(split.source).is_file()


def test_quirk_rows_are_kept_to_the_character(tmp_path):
    glue_folders.write_glue(tmp_path)

    def row(task: str, number: int) -> tuple[object, ...]:
        split = load_split(get_task(task), "train", tmp_path)
        assert split.labels is not None
        return (split.first[number], split.second and split.second[number], split.labels[number].item())

    assert row("cola", 0) == ('"Bill said "" nothing', None, 1)
    assert row("sst2", 0) == ("hide new secretions from the parental units ", None, 0)
    assert row("mrpc", 0) == ('" The pie does not fit our strategy .', 'The "" pie \'s fit', 1)
    assert row("qqp", 0) == ("Is it 5 o'clock?", "", 0)
    assert row("qqp", 1) == ("café\u00a0or tea?", "C'est \"quoi?", 1)
    assert row("mnli", 1) == ("It rained\u2028all day", "It\x85was dry\x0b", 2)
    assert row("wnli", 0) == ("The drain is clogged.", "It's clogged.", 1)
    assert load_split(get_task("qqp"), "train", tmp_path).empty_texts == 1
    assert load_split(get_task("mnli"), "dev", tmp_path).skipped == 1


def test_label_words_decide_the_index_not_their_order_in_the_file(tmp_path):
    (tmp_path / "RTE").mkdir()
    rows = ["1\ta\tb\tnot_entailment", "2\tc\td\tentailment"]
    (tmp_path / "RTE" / "train.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *rows]))
    split = load_split(get_task("rte"), "train", tmp_path)
    assert split.labels is not None and split.labels.tolist() == [1, 0]


def test_columns_are_found_by_name_in_any_order(tmp_path):
    data = _sst2(tmp_path, "extra\tlabel\tsentence\nx\t1\tgood\ny\t0\tbad\n")
    split = load_split(get_task("sst2"), "train", data)
    assert (split.first, split.labels.tolist() if split.labels is not None else None) == (["good", "bad"], [1, 0])


def test_original_files_of_mrpc(tmp_path):
    expected = glue_folders.write_original_mrpc(tmp_path)
    task = get_task("mrpc")
    splits = load_splits(task, task.splits, tmp_path)
    for name, split in splits.items():
        assert split.first == expected[name].first
        assert split.second == expected[name].second
        assert split.labels is not None and split.labels.tolist() == expected[name].labels
    assert (len(splits["train"]), len(splits["dev"]), len(splits["test"])) == (6, 4, 10)

    (tmp_path / "MRPC" / "dev_ids.tsv").unlink()
    assert _problems("mrpc", ["train", "dev"], tmp_path) == [
        "MRPC/dev_ids.tsv: no such file; its folder holds msr_paraphrase_test.txt, msr_paraphrase_train.txt."
    ]
    (tmp_path / "MRPC" / "dev_ids.tsv").write_text("1000\t2000\n1003\n")
    assert _problems("mrpc", ["dev"], tmp_path) == ["MRPC/dev_ids.tsv:2: 1 column, but must be 2 (the pair's ids)"]


AX_FILES = {
    "AX/AX.tsv": 'index\tsentence1\tsentence2\r\n0\tThe cat "sat\tThe cat did not\r\n1\ta\tb\r\n',
    "diagnostic/diagnostic.tsv": 'index\tsentence1\tsentence2\n0\tThe cat "sat\tThe cat did not\n1\ta\tb\n',
    "MNLI/diagnostic-full.tsv": "Logic\tDomain\tPremise\tHypothesis\tLabel\n"
    'Negation\tNews\tThe cat "sat\tThe cat did not\tcontradiction\n\tNews\ta\tb\tentailment\n',
}


@pytest.mark.parametrize("file", AX_FILES)
def test_diagnostic_set(tmp_path, file):
    (tmp_path / "MNLI").mkdir()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(AX_FILES[file].encode())
    for data in (tmp_path, tmp_path / "MNLI"):
        split = load_split(get_task("mnli"), "ax", data)
        assert (split.first, split.second) == (['The cat "sat', "a"], ["The cat did not", "b"])
        assert (None if split.labels is None else split.labels.tolist()) == ([2, 0] if "full" in file else None)


def test_diagnostic_set_that_is_not_there(tmp_path):
    (tmp_path / "MNLI").mkdir()
    needed = "but the diagnostic set (ax) needs one of AX.tsv, diagnostic.tsv, diagnostic-full.tsv."
    assert _problems("mnli", ["ax"], tmp_path) == [f"{tmp_path}: holds neither AX/ nor diagnostic/, {needed}"]
    (tmp_path / "AX").mkdir()
    (tmp_path / "AX" / "ax.csv").write_text("")
    assert _problems("mnli", ["ax"], tmp_path) == [f"AX: holds ax.csv, {needed}"]
    assert _problems("rte", ["ax"], tmp_path)[0].startswith("rte: `ax` is not a split")


@pytest.mark.parametrize("folder", ["SST-2", "sst2", "SST2", "sst-2"])
def test_folder_names_in_any_spelling_or_the_task_folder_itself(tmp_path, folder, monkeypatch):
    task = get_task("sst2")
    _sst2(tmp_path, "sentence\tlabel\ngood\t1\n")
    (tmp_path / "SST-2").rename(tmp_path / folder)
    assert load_split(task, "train", tmp_path).first == ["good"]
    assert load_split(task, "train", tmp_path / folder).first == ["good"]
    monkeypatch.chdir(tmp_path / folder)
    assert load_split(task, "train", Path()).first == ["good"]


def test_two_folders_for_one_task(tmp_path):
    _sst2(tmp_path, "sentence\tlabel\ngood\t1\n")
    (tmp_path / "sst2").mkdir()
    assert load_split(get_task("sst2"), "train", tmp_path).first == ["good"]
    (tmp_path / "SST-2").rename(tmp_path / "SST2")
    assert "`SST2`, `sst2` all name sst2" in _problems("sst2", ["train"], tmp_path)[0]


BAD_TRAIN_FILES: dict[str, tuple[bytes | str, list[str]]] = {
    "short row": (
        "sentence\tlabel\na\t1\nb\n",
        ["SST-2/train.tsv:3: 1 column, but must be 2"],
    ),
    "long row": (
        "sentence\tlabel\na\tb\t1\n",
        ["SST-2/train.tsv:2: 3 columns, but must be 2"],
    ),
    "blank line inside": (
        "sentence\tlabel\na\t1\n\nb\t0\n",
        ["SST-2/train.tsv:3: 1 column, but must be 2"],
    ),
    "labels": (
        "sentence\tlabel\na\t2\nb\tnan\nc\t\nd\t1\ne\t1.0\n",
        [
            "SST-2/train.tsv:2: label: `2`, must be one of 0, 1.",
            "SST-2/train.tsv:3: label: `nan`, must be one of 0, 1.",
            "SST-2/train.tsv:4: label: an empty cell, must be one of 0, 1.",
            "SST-2/train.tsv:6: label: `1.0`, must be one of 0, 1.",
        ],
    ),
    "header": (
        "sentense\tlabel\na\t1\n",
        [
            "SST-2/train.tsv:1: the header has `sentense`, `label`, but needs `sentence`, `label`. "
            "Is `sentense` meant to be `sentence`?"
        ],
    ),
    "header only": ("sentence\tlabel\n\n", ["SST-2/train.tsv: has no examples"]),
    "empty file": ("", ["SST-2/train.tsv: is empty"]),
    "latin-1": (
        b"sentence\tlabel\nfine\t1\ncaf\xe9\t1\nplain\t0\n\xfcber\t1\n",
        [
            "SST-2/train.tsv:3: byte 4 of the line (0xe9) is not UTF-8; save it as UTF-8",
            "SST-2/train.tsv:5: byte 1 of the line (0xfc) is not UTF-8; save it as UTF-8",
        ],
    ),
    "utf-16": ("sentence\tlabel\na\t1\n".encode("utf-16"), ["SST-2/train.tsv:1: is UTF-16, must be UTF-8"]),
}


@pytest.mark.parametrize("case", BAD_TRAIN_FILES)
def test_malformed_file_is_refused_with_file_and_line(tmp_path, case):
    content, problems = BAD_TRAIN_FILES[case]
    assert _problems("sst2", ["train", "dev"], _sst2(tmp_path, content)) == problems


def test_scores_of_stsb(tmp_path):
    glue_folders.write_glue(tmp_path, tasks=("stsb",))
    path = tmp_path / "STS-B" / "train.tsv"
    lines = path.read_text().split("\n")
    for number, score in {2: "nan", 4: "5.1", 5: "-0.5", 7: "high", 9: "inf"}.items():
        lines[number - 1] = "\t".join([*lines[number - 1].split("\t")[:-1], score])
    path.write_text("\n".join(lines))
    assert _problems("stsb", ["train"], tmp_path) == [
        "STS-B/train.tsv:2: score: nan, must be from 0 to 5",
        "STS-B/train.tsv:4: score: 5.1, must be from 0 to 5",
        "STS-B/train.tsv:5: score: -0.5, must be from 0 to 5",
        "STS-B/train.tsv:7: score: `high` is not a number, must be from 0 to 5",
        "STS-B/train.tsv:9: score: inf, must be from 0 to 5",
    ]


def test_wrong_label_word_names_the_nearest(tmp_path):
    glue_folders.write_glue(tmp_path, tasks=("mnli",))
    path = tmp_path / "MNLI" / "train.tsv"
    path.write_text(path.read_text().replace("\tneutral\n", "\tnetral\n", 1))
    (problem,) = _problems("mnli", ["train"], tmp_path)
    assert problem.endswith("`netral`, must be one of entailment, neutral, contradiction. Did you mean `neutral`?")


def test_qqp_of_incomplete_rows_only_is_empty_and_a_long_row_is_an_error(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    (tmp_path / "QQP").mkdir()
    (tmp_path / "QQP" / "train.tsv").write_text(f"{header}\n1\t2\t3\twhy\n4\t5\t6\ta\tb\t\n")
    (tmp_path / "QQP" / "dev.tsv").write_text(f"{header}\n1\t2\t3\ta\tb\tc\t1\n")
    assert _problems("qqp", ["train", "dev"], tmp_path) == [
        "QQP/train.tsv: has no examples (2 rows skipped)",
        "QQP/dev.tsv:2: 7 columns, but must be 6",
    ]


def test_many_problems_are_cut_per_file_and_all_files_are_reported(tmp_path):
    bad = "sentence\tlabel\n" + "x\t7\n" * 25
    problems = _problems("sst2", ["train", "dev"], _sst2(tmp_path, bad, dev=bad.replace("7", "8")))
    assert len(problems) == 22
    assert problems[10] == "SST-2/train.tsv: and 15 more"
    assert problems[11] == "SST-2/dev.tsv:2: label: `8`, must be one of 0, 1."


def test_missing_folders_and_files_name_what_is_there(tmp_path):
    data = _sst2(tmp_path / "glue", "sentence\tlabel\ngood\t1\n")
    (data / "SST-2" / "dev.tsv").rename(data / "SST-2" / "devel.tsv")
    assert _problems("sst2", ["dev"], data) == [
        "SST-2/dev.tsv: no such file; its folder holds devel.tsv, train.tsv. Is `devel.tsv` meant to be `dev.tsv`?"
    ]
    assert _problems("rte", ["train", "dev"], data) == [f"{data}: holds SST-2/, but needs RTE/."]
    assert _problems("sst2", ["train"], tmp_path / "gleu") == [
        f"{tmp_path}/gleu: no such folder, must be the folder that holds SST-2/. Did you mean `glue`?"
    ]
    file = data / "SST-2" / "train.tsv"
    assert _problems("sst2", ["train"], file) == [f"{file}: is a file, must be the folder that holds SST-2/."]


def test_path_that_cannot_be_read(tmp_path):
    data = _sst2(tmp_path, "sentence\tlabel\ngood\t1\n")
    (data / "SST-2" / "train.tsv").unlink()
    (data / "SST-2" / "train.tsv").mkdir()
    (data / "SST-2" / "dev.tsv").unlink()
    (data / "SST-2" / "dev.tsv").symlink_to("dev.tsv")
    assert _problems("sst2", ["train", "dev"], data) == [
        "SST-2/train.tsv: is a folder, must be a file",
        "SST-2/dev.tsv: cannot be read: Too many levels of symbolic links",
    ]


def test_unknown_split(tmp_path):
    problems = _problems("sst2", ["dev_mismatched"], tmp_path)
    assert problems[0].startswith("sst2: `dev_mismatched` is not a split, must be one of train, dev, test.")
    assert get_task("mnli").splits == ("train", "dev", "test", "dev_mismatched", "test_mismatched", "ax")


def test_hub_that_cannot_be_reached_is_said_quickly(tmp_path):
    code = """
import time
time.sleep = lambda seconds: print("waits", seconds)
from fsd_tune.data import splits as glue
from fsd_tune.errors import InputError
try:
    glue.load_splits(glue.get_task("mnli"), ["train", "dev"], None)
except InputError as error:
    print(error, error.hint, sep="\\n")
import datasets, huggingface_hub
assert not datasets.config.HF_HUB_OFFLINE and not huggingface_hub.constants.HF_HUB_OFFLINE
"""
    # An address where nothing listens, and an empty cache: the test holds on machines with access too.
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    problem, hint = done.stdout.splitlines()
    assert problem.startswith("nyu-mll/glue mnli train: cannot be loaded from the hub (")
    assert problem.endswith("), and the local cache does not hold it")
    assert "`--data FOLDER`" in hint
    assert done.stderr == ""


def _dataset(labels: list[int], names: tuple[str, ...], **texts: list[str]) -> datasets.Dataset:
    features = {name: datasets.Value("string") for name in texts}
    features |= {"label": datasets.ClassLabel(names=list(names)), "idx": datasets.Value("int32")}
    columns = {**texts, "label": labels, "idx": list(range(len(labels)))}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def test_split_from_a_hub_dataset():
    mnli = get_task("mnli")
    dataset = _dataset([2, 0], mnli.labels, premise=["a", "b "], hypothesis=["c", '"d'])
    split = from_dataset(mnli, "train", dataset, "memory")
    assert (split.first, split.second, split.source) == (["a", "b "], ["c", '"d'], "memory")
    assert split.labels is not None and split.labels.dtype == np.int64 and split.labels.tolist() == [2, 0]

    unlabelled = _dataset([-1, -1], mnli.labels, premise=["a", "b"], hypothesis=["c", "d"])
    assert from_dataset(mnli, "test", unlabelled, "memory").labels is None

    scores = datasets.Dataset.from_dict({"sentence1": ["a"], "sentence2": ["b"], "label": [3.2]})
    split = from_dataset(get_task("stsb"), "train", scores, "memory")
    assert split.labels is not None and split.labels.dtype == np.float32
    assert split.labels.tolist() == [np.float32(3.2)]


# Written out by hand from the hub's dataset card, as `glue_folders` writes the download.
HUB_TEXTS = {
    "cola": ("sentence",), "sst2": ("sentence",), "mrpc": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"), "stsb": ("sentence1", "sentence2"), "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"), "rte": ("sentence1", "sentence2"), "wnli": ("sentence1", "sentence2"),
}  # fmt: skip
HUB_LABELS = {
    "cola": ["unacceptable", "acceptable"], "sst2": ["negative", "positive"],
    "mrpc": ["not_equivalent", "equivalent"], "qqp": ["not_duplicate", "duplicate"],
    "mnli": ["entailment", "neutral", "contradiction"], "qnli": ["entailment", "not_entailment"],
    "rte": ["entailment", "not_entailment"], "wnli": ["not_entailment", "entailment"],
}  # fmt: skip
HUB_SPLITS = {
    "dev": "validation", "mnli dev": "validation_matched", "mnli dev_mismatched": "validation_mismatched",
    "mnli test": "test_matched", "mnli test_mismatched": "test_mismatched", "mnli ax": "test",
}  # fmt: skip


def _write_copy(folder: Path, expected: dict[tuple[str, str], glue_folders.Expected]) -> None:
    """A copy of the hub's repository: `mnli/test_matched-00000-of-00001.parquet` and so on; train in two parts."""
    for (task, name), rows in expected.items():
        texts: list[list[object]] = [[*rows.first], [*rows.second]]
        columns = dict(zip(HUB_TEXTS[task], texts, strict=False))
        labels = [-1] * len(rows.first) if rows.labels is None else rows.labels
        kind = datasets.ClassLabel(names=HUB_LABELS[task]) if task in HUB_LABELS else datasets.Value("float32")
        features = {text: datasets.Value("string") for text in columns} | {
            "label": kind,
            "idx": datasets.Value("int32"),
        }
        columns |= {"label": list(labels), "idx": list(range(len(labels)))}
        split = HUB_SPLITS.get(f"{task} {name}") or HUB_SPLITS.get(name) or name
        (folder / ("ax" if name == "ax" else task)).mkdir(exist_ok=True)
        parts = 2 if name == "train" else 1
        whole = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        for part in range(parts):
            shard = whole.shard(parts, part, contiguous=True)
            shard.to_parquet(folder / ("ax" if name == "ax" else task) / f"{split}-{part:05d}-of-{parts:05d}.parquet")


def test_a_copy_of_the_hub_gives_the_same_splits_as_the_download(tmp_path):
    expected = glue_folders.write_glue(tmp_path / "glue", train=8, dev=6, test=3)
    (tmp_path / "hub").mkdir()
    _write_copy(tmp_path / "hub", expected)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "hub").rglob("*")}
    for task_id, name in expected:
        task = get_task(task_id)
        one, other = (load_split(task, name, tmp_path / kind) for kind in ("glue", "hub"))
        assert content_hash(one) == content_hash(other), (task_id, name)
        assert (other.first, other.second, other.skipped) == (one.first, one.second, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "hub").rglob("*")} == before, (
        "nothing is written there"
    )


def test_a_copy_of_the_hub_that_is_not_whole(tmp_path):
    expected = glue_folders.write_glue(tmp_path / "glue", tasks=("rte", "mnli"))
    _write_copy(tmp_path, {key: value for key, value in expected.items() if key[1] != "dev"})
    rte = get_task("rte")
    assert len(load_split(rte, "train", tmp_path / "rte")) == len(expected["rte", "train"].first)
    assert _problems("rte", ["dev"], tmp_path)[0].startswith(
        "rte/dev.tsv: no such file; its folder holds test-00000-of"
    )
    (tmp_path / "rte" / "train-00001-of-00002.parquet").unlink()
    assert _problems("rte", ["train"], tmp_path) == ["rte: lacks train-00001-of-00002.parquet"]
    (tmp_path / "rte" / "test.tsv").write_text("index\tsentence1\tsentence2\n0\ta\tb\n")
    assert _problems("rte", ["test"], tmp_path) == [
        "rte: holds test.tsv as well as test-00000-of-00001.parquet, but must hold one of them."
    ]
    (tmp_path / "mnli" / "test_matched-00000-of-00001.parquet").write_text("no parquet")
    (problem,) = _problems("mnli", ["test"], tmp_path)
    assert problem.startswith("mnli/test_matched-00000-of-00001.parquet: cannot be read as parquet: ")
    (tmp_path / "glue" / "RTE").rename(tmp_path / "RTE")
    assert load_split(rte, "train", tmp_path).source == f"{tmp_path}/RTE/train.tsv", "the download's folder wins"


def test_hub_dataset_that_does_not_fit_the_task_is_refused():
    rte = get_task("rte")
    swapped = _dataset([0], ("not_entailment", "entailment"), sentence1=["a"], sentence2=["b"])
    with pytest.raises(InputError, match="must be `entailment`, `not_entailment` in this order"):
        from_dataset(rte, "train", swapped, "memory")
    with pytest.raises(InputError, match="but needs `sentence1`, `sentence2`, `label`"):
        from_dataset(rte, "train", _dataset([0], rte.labels, premise=["a"], hypothesis=["b"]), "memory")
    some = _dataset([1, -1], rte.labels, sentence1=["a", "b"], sentence2=["c", "d"])
    with pytest.raises(InputError, match="row 1: label -1, must be from 0 to 1"):
        from_dataset(rte, "train", some, "memory")
    with pytest.raises(InputError, match="no examples"):
        from_dataset(rte, "train", _dataset([], rte.labels, sentence1=[], sentence2=[]), "memory")


def _split(first: list[str], second: list[str] | None = None, labels: object = None) -> Split:
    array = None if labels is None else np.asarray(labels)
    return Split(get_task("rte"), "train", first, second, array, 0, "memory")


def test_content_hash_tells_contents_apart():
    splits = [
        _split(["ab", "c"]),
        _split(["a", "bc"]),
        _split(["c", "ab"]),
        _split(["ab"], ["c"]),
        _split(["abc", ""]),
        _split(["ab", "c"], labels=[0, 1]),
        _split(["ab", "c"], labels=[1, 0]),
        _split(["ab", "c"], labels=np.array([0, 1], dtype=np.float32)),
    ]
    assert len({content_hash(split) for split in splits}) == len(splits)


def test_content_hash_is_of_contents_only(tmp_path):
    one = Split(get_task("sst2"), "train", ["é"], None, np.array([1]), 0, "here")
    other = Split(get_task("sst2"), "dev", ["é"], None, np.array([1]), 3, "there")
    assert content_hash(one) == content_hash(other)
    content = b"1 1 <i8\n" + (2).to_bytes(8, "little") + "é".encode() + (1).to_bytes(8, "little")
    assert content_hash(one) == hashlib.sha256(content).hexdigest()
