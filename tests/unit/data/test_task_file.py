"""A user's own task: what its YAML may hold, and reading its files; all problems at once, each with its place."""

import csv
import pickle

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from fsd_tune.data.splits import get_task, load_split, load_splits
from fsd_tune.errors import InputError
from tests import ROOT

YAML = "name: mood\ntext: sentence\nlabel: mood\nlabels: [sad, glad]\nfiles: {train: train.csv, dev: dev.csv}\n"
ROWS = [("rain, again", "sad"), ('she says "hm"', "glad"), (" café\u2028here ", "glad")]


def write(folder, text=YAML, **files):
    """`task.yaml` with this text, and files by name (`train_csv`) with text or bytes."""
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "task.yaml").write_text(text)
    return folder / "task.yaml"


def problems(path, data=None, names=("train",)):
    with pytest.raises(InputError) as caught:
        load_splits(get_task(path), names, data)
    return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]


# ---------------------------------------------------------------- the YAML


def test_what_a_yaml_says_is_the_task(tmp_path):
    text = YAML.replace("[sad, glad]", "{0: sad, 1: glad}") + "metric: f1\nquoting: no\n"
    task = get_task(write(tmp_path, text))
    assert (task.id, task.columns, task.label_column) == ("mood", ("sentence",), "mood")
    assert (task.labels, task.cells, task.num_labels, task.regression) == (("sad", "glad"), ("0", "1"), 2, False)
    assert task.metrics == ("f1", "accuracy", "matthews_correlation") and task.metric == "f1"
    assert task.splits == ("train", "dev") and task.default_centroids == 100
    assert task.words == ["--task-file", str(tmp_path / "task.yaml")]
    assert get_task(task) is task and pickle.loads(pickle.dumps(task)) == task
    assert hash(task) == hash(get_task(tmp_path / "task.yaml"))


def test_regression_and_more_labels_have_their_metrics(tmp_path):
    scored = get_task(write(tmp_path, YAML.replace("labels: [sad, glad]", "scores: [-4, 4]")))
    assert (scored.regression, scored.scores, scored.num_labels) == (True, (-4, 4), 1)
    assert scored.metrics == ("pearson", "spearman")
    more = get_task(write(tmp_path, YAML.replace("[sad, glad]", "[sad, glad, true, 4]")))
    assert more.labels == ("sad", "glad", "true", "4") and more.metrics[0] == "accuracy" and "macro_f1" in more.metrics


def test_a_definition_tells_tasks_apart_but_not_places(tmp_path):
    (tmp_path / "other").mkdir()
    here, there = get_task(write(tmp_path)), get_task(write(tmp_path / "other"))
    assert here.definition == there.definition and get_task("rte").definition == "rte"
    for old, new in (("[sad, glad]", "[glad, sad]"), ("label: mood", "label: m"), ("files", "metric: f1\nfiles")):
        assert get_task(write(tmp_path, YAML.replace(old, new))).definition != here.definition


BAD_YAML = {
    "empty": ("", ["task.yaml: is empty, but must hold at least `name:`."]),
    "no YAML": ("name: [", ["task.yaml:1: is not YAML: "]),
    "unknown key": (YAML + "heder: false\n", ["task.yaml:6: heder: unknown key, must be one of name, text, "]),
    "unknown split": (
        YAML.replace("dev:", "dve:"),
        [
            "task.yaml:5: files.dev: is missing: the dev split's file or files.",
            "task.yaml:5: files.dve: unknown key, must be one of train, dev, test. Did you mean `dev`?",
        ],
    ),
    "nothing but a name": (
        "name: a b\n",
        [
            "task.yaml:1: name: found text 'a b', but must be a name of letters",
            "task.yaml:1: text: is missing: the text's column",
            "task.yaml:1: label: is missing: the label's column.",
            "task.yaml:1: files: is missing: a mapping from train, dev and test",
        ],
    ),
    "GLUE's name": (YAML.replace("name: mood", "name: SST-2"), ["task.yaml:1: name: found text 'SST-2', but must not"]),
    "three texts": (YAML.replace("text: sentence", "text: [a, b, c]"), ["task.yaml:2: text: found a list, but must"]),
    "label is text": (YAML.replace("text: sentence", "text: mood"), ["task.yaml:3: label: found text 'mood', but"]),
    "one label": (YAML.replace("[sad, glad]", "[sad]"), ["task.yaml:4: labels: found a list, but must be a list of"]),
    "label twice": (YAML.replace("[sad, glad]", "[sad, Sad]"), ["task.yaml:4: labels: found a list, but must be diff"]),
    "neither": (YAML.replace("labels: [sad, glad]\n", ""), ["task.yaml:1: labels: is missing: give labels, or scores"]),
    "both": (YAML + "scores: [0, 5]\n", ["task.yaml:4: labels: must not be together with scores."]),
    "scores": (YAML.replace("labels: [sad, glad]", "scores: [5, 0]"), ["task.yaml:4: scores: found a list, but must"]),
    "metric": (YAML + "metric: f2\n", ["task.yaml:6: metric: found text 'f2', but must be one of accuracy, f1, "]),
    "metric of others": (YAML + "metric: pearson\n", ["task.yaml:6: metric: found text 'pearson', but must be one of"]),
    "ending": (YAML.replace("dev.csv", "dev.cvs"), ["task.yaml:5: files.dev: found dev.cvs, but must end in one"]),
    "format": (YAML + "format: xml\n", ["task.yaml:6: format: found text 'xml', but must be one of tsv, csv, jsonl"]),
    "delimiter": (YAML + "delimiter: tab\n", ["task.yaml:6: delimiter: found text 'tab', but must be one character"]),
    "skipped": (YAML + "skip_labels: '-'\n", ["task.yaml:6: skip_labels: found text '-', but must be a list of"]),
    "skipped label": (YAML + "skip_labels: [Sad]\n", ["task.yaml:6: skip_labels: must not hold Sad, which `labels:`"]),
    "two formats": (
        YAML.replace("train.csv", "[a.csv, b.tsv]"),
        ["task.yaml:5: files.train: found csv, tsv, but must be files of one format."],
    ),
    "label of lines": (YAML.replace("[sad,", '["sad\\n",'), ["task.yaml:4: labels: found a list, but must be labels"]),
    "header": (YAML + "header: 1\n", ["task.yaml:6: header: found 1, but must be true or false."]),
    "no numbers": (
        YAML + "header: false\n",
        ["task.yaml:2: text: found text 'sentence', but must be a column's", "task.yaml:3: label: found text"],
    ),
    "says nothing": (YAML + "format: jsonl\nquoting: true\n", ["task.yaml:7: quoting: does not apply to jsonl and"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_YAML)
def test_a_wrong_yaml_is_refused_with_key_and_line(tmp_path, case):
    text, expected = BAD_YAML[case]
    found = problems(write(tmp_path, text))
    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start), line


# ---------------------------------------------------------------- the files

CSV = 'mood,sentence\nsad,"rain, again"\nglad,"she says ""hm"""\nglad, café\u2028here \n'
TSV = 'mood\tsentence\nsad\train, again\nglad\tshe says "hm"\nglad\t café\u2028here \n'
JSONL = (
    '{"mood": "sad", "sentence": "rain, again", "id": 3}\n{"sentence": "she says \\"hm\\"", "mood": "glad"}\n'
    '{"mood": "glad", "sentence": " café\\u2028here "}\n'
)
KINDS = {
    "csv": (CSV, ""),
    "csv, Windows": ("\ufeff" + CSV.replace("\n", "\r\n"), ""),
    "tsv": (TSV, "format: tsv\n"),
    "tsv, quoted": (CSV.replace("d,", "d\t"), "format: tsv\nquoting: true\n"),
    "no header": (CSV.partition("\n")[2], "header: false\ntext: 2\nlabel: 1\n"),
    "jsonl": (JSONL, "format: jsonl\n"),
}


@pytest.mark.parametrize("case", KINDS)
def test_the_same_rows_from_every_kind_of_text_file(tmp_path, case):
    content, more = KINDS[case]
    if case == "tsv, quoted":
        content = content.replace("mood,", "mood\t")
    text = YAML if "header" not in more else YAML.replace("text: sentence\nlabel: mood\n", "")
    split = load_split(get_task(write(tmp_path, text + more, train_csv=content)), "train", None)
    assert split.labels is not None and split.labels.dtype == np.int64
    assert list(zip(split.first, [("sad", "glad")[label] for label in split.labels], strict=True)) == ROWS
    assert (split.second, split.skipped, split.source) == (None, 0, str(tmp_path / "train.csv"))


@pytest.mark.parametrize("labels", [["sad", "glad"], [0, 1], [0.0, 1.0], [False, True]])
def test_parquet_and_labels_of_every_type(tmp_path, labels):
    columns = {"n": [1, 2], "mood": labels, "a": ["x", " y"], "b": ["", "z"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "train.parquet")
    cells = {str: ("sad", "glad"), bool: ("false", "true")}.get(type(labels[0]), ("0", "1"))
    text = YAML.replace("[sad, glad]", f"{{{cells[0]}: sad, {cells[1]}: glad}}").replace("train.csv", "train.parquet")
    split = load_split(get_task(write(tmp_path, text.replace("sentence", "[a, b]"))), "train", None)
    assert (split.first, split.second) == (["x", " y"], ["", "z"])
    assert split.labels is not None and split.labels.tolist() == [0, 1]


def test_quoted_cells_hold_line_ends_and_lines_still_count(tmp_path):
    path = write(tmp_path, train_csv='mood,sentence\nsad,"a\nb"\nglad,c\nangry,d\nsad\n')
    assert problems(path) == [
        "train.csv:5: mood: `angry`, must be one of sad, glad.",
        "train.csv:6: 1 column, but must be 2",
    ]
    path = write(tmp_path, train_csv='mood,sentence\nsad,"a\nb"\nglad,c\n')
    assert load_split(get_task(path), "train", None).first == ["a\nb", "c"]


@pytest.mark.parametrize("labels", [[0.0, 1.0], [True, False], [0, 1]])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_as_pandas_writes_them(tmp_path, kind, labels):
    """A column that once held a NaN is one of floats, and CSV has no types."""
    frame = pd.DataFrame({"sentence": ["a", "b"], "mood": labels})
    file = tmp_path / f"train.{kind}"
    {
        "csv": lambda: frame.to_csv(file, index=False),
        "jsonl": lambda: frame.to_json(file, orient="records", lines=True),
        "parquet": lambda: frame.to_parquet(file),
    }[kind]()
    cells = {bool: "[true, false]"}.get(type(labels[0]), "[0, 1]")
    text = YAML.replace("[sad, glad]", cells).replace("train.csv", file.name)
    split = load_split(get_task(write(tmp_path, text)), "train", None)
    assert split.labels is not None and split.labels.tolist() == [0, 1]


def test_files_in_parts_their_delimiter_and_skipped_labels(tmp_path):
    text = YAML.replace("train.csv", "[first.csv, part-*.csv]") + 'delimiter: ";"\nskip_labels: ["-"]\n'
    path = write(
        tmp_path, text,
        first_csv="mood;sentence\nsad;a\n\n-;not agreed\n",
        **{"part-2_csv": "sentence;mood\n\"c;d\";glad\n", "part-1_csv": "mood;sentence\nglad;b, b\n"},
    )  # fmt: skip
    split = load_split(get_task(path), "train", None)
    assert (split.first, split.skipped) == (["a", "b, b", "c;d"], 1)
    assert split.source == f"{tmp_path}/first.csv and 2 more files"
    (tmp_path / "part-1.csv").write_text("mood;sentence\nbad;a\n")
    assert problems(path) == ["part-1.csv:2: mood: `bad`, must be one of sad, glad. Did you mean `sad`?"]
    path = write(tmp_path, text.replace("part-*", "none-*"))
    assert problems(path) == ["task.yaml: files.train: found none-*.csv, but no file matches it."]


def test_a_text_longer_than_the_limit_of_csv(tmp_path):
    limit = csv.field_size_limit()
    path = write(tmp_path, train_csv=f'mood,sentence\nsad,"{"a, " * 50_000}"\n')
    assert load_split(get_task(path), "train", None).first == ["a, " * 50_000]
    assert csv.field_size_limit() == limit, "the process keeps its own"


def test_scores_are_in_their_range(tmp_path):
    text = YAML.replace("labels: [sad, glad]", "scores: [-4, 4]")
    path = write(tmp_path, text, train_csv="mood,sentence\n-4,a\n3.5,b\n4.1,c\nhigh,d\nnan,e\n,f\n")
    assert problems(path) == [
        "train.csv:4: mood: 4.1, must be from -4 to 4",
        "train.csv:5: mood: `high` is not a number, must be from -4 to 4",
        "train.csv:6: mood: nan, must be from -4 to 4",
        "train.csv:7: mood: an empty cell is not a number, must be from -4 to 4",
    ]
    path = write(tmp_path, text, train_csv="mood,sentence\n-4,a\n3.5,b\n")
    labels = load_split(get_task(path), "train", None).labels
    assert labels is not None and labels.dtype == np.float32 and labels.tolist() == [-4, 3.5]


BAD_FILES = {
    "no file": (None, ["train.csv: no such file; its folder holds task.yaml."]),
    "empty": ("", ["train.csv: is empty"]),
    "no rows": ("mood,sentence\n", ["train.csv: has no examples"]),
    "columns": (
        "moood,sentence\n",
        ["train.csv:1: the header has `moood`, `sentence`, but needs `sentence`, `mood`. Is `moood` meant to be"],
    ),
    "column twice": ("mood,mood,sentence\n", ["train.csv:1: the header has `mood` twice, but must have each once"]),
    "label": ("mood,sentence\nglat,a\n", ["train.csv:2: mood: `glat`, must be one of sad, glad. Did you mean `glad`?"]),
    "too many": ("mood,sentence\nsad,a,b\n", ["train.csv:2: 3 columns, but must be 2"]),
    "open quote": (
        'mood,sentence\nsad\nsad,"a\nglad,b\n',
        ["train.csv:2: 1 column, but must be 2", "train.csv:3: a quoted cell begins here and does not end; double the"],
    ),
    "text after a quote": ('mood,sentence\nsad,"a" b\n', ["train.csv:2: text follows a closing quote; double the"]),
    "carriage return": ("mood,sentence\nsad,a\rglad,b\n", ["train.csv:2: a carriage return stands inside a cell"]),
    "semicolons": (
        "mood;sentence\nsad;a\n",
        ['train.csv:1: the columns are separated by semicolons, but read with commas; write `delimiter: ";"` into'],
    ),
    "tabs, quoted": ('"mood"\t"sentence"\n', ["train.csv:1: the columns are separated by tabs, but read with commas"]),
    "nothing but blank lines": ("mood,sentence\n\n\n", ["train.csv: has no examples"]),
    "encoding": (b"mood,sentence\nsad,caf\xe9\n", ["train.csv:2: byte 8 of the line (0xe9) is not UTF-8"]),
    "UTF-16": ("mood,sentence\n".encode("utf-16"), ["train.csv:1: is UTF-16, must be UTF-8"]),
}  # fmt: skip
BAD_JSONL = {
    "no JSON": ('{"mood": "sad"', ["train.csv:1: is not JSON at character 15: Expecting ',' delimiter; must be"]),
    "a list": ("[1]", ["train.csv:1: found a list, but must be a JSON object"]),
    "a long number": ('{"mood": %s}' % ("1" * 5000), ["train.csv:1: is not JSON: Exceeds the limit"]),
    "after a blank line": ('{"mood": "sad", "sentence": "a"}\n \n{}', ["train.csv:3: has none"]),
    "half an emoji": (
        '{"mood": "sad", "sentence": "a"}\n{"mood": "sad", "sentence": "b \\udc4d"}',
        ["train.csv:2: sentence: found \\udc4d without its other half at character 3, but must be valid Unicode"],
    ),
    "column": ('{"mod": "sad", "sentence": "a"}', ["train.csv:1: has `mod`, `sentence`, but needs `sentence`, "]),
    "text is a number": ('{"mood": "sad", "sentence": 7}', ["train.csv:1: sentence: found 7, but must be text"]),
    "no text": ('{"mood": "sad", "sentence": null}', ["train.csv:1: sentence: found nothing, but must be text"]),
    "no label": ('{"mood": null, "sentence": "a"}', ["train.csv:1: mood: an empty cell, must be one of sad, glad."]),
    "label is NaN": ('{"mood": NaN, "sentence": "a"}', ["train.csv:1: mood: an empty cell, must be one of sad, glad."]),
    "label is a list": ('{"mood": ["sad"], "sentence": "a"}', ["train.csv:1: mood: found a list, but must be text, a"]),
    "label is a mapping": ('{"mood": {"a": 1}, "sentence": "a"}', ["train.csv:1: mood: found a mapping, but must be"]),
}  # fmt: skip


@pytest.mark.parametrize("case", [*BAD_FILES, *(f"jsonl: {case}" for case in BAD_JSONL)])
def test_a_wrong_file_is_refused_with_its_line(tmp_path, case):
    jsonl = case.startswith("jsonl: ")
    content, expected = BAD_JSONL[case.removeprefix("jsonl: ")] if jsonl else BAD_FILES[case]
    files = {} if content is None else {"train_csv": content}
    found = problems(write(tmp_path, YAML + ("format: jsonl\n" if jsonl else ""), **files))
    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start), line


def test_wrong_parquet_is_refused(tmp_path):
    path = write(tmp_path, YAML.replace("train.csv", "train.parquet"), train_parquet="no parquet")
    assert problems(path)[0].startswith("train.parquet: cannot be read as parquet: ")
    pyarrow.parquet.write_table(pyarrow.table({"mood": ["sad"], "sentense": ["a"]}), tmp_path / "train.parquet")
    assert problems(path) == [
        "train.parquet: has the columns `mood`, `sentense`, but needs `sentence`, `mood`. "
        "Is `sentense` meant to be `sentence`?"
    ]
    rows = pyarrow.table({"mood": ["sad", "mad"], "sentence": [None, "a"]})
    pyarrow.parquet.write_table(rows, tmp_path / "train.parquet")
    assert problems(path) == [
        "train.parquet: row 1: sentence: found nothing, but must be text",
        "train.parquet: row 2: mood: `mad`, must be one of sad, glad. Did you mean `sad`?",
    ]
    (tmp_path / "train.parquet").unlink()
    assert problems(path) == ["train.parquet: no such file; its folder holds task.yaml."]


def test_all_files_problems_at_once_and_where_paths_start(tmp_path):
    path = write(tmp_path, train_csv="mood,sentence\nbad,a\n")
    assert len(problems(path, names=("train", "dev"))) == 2
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("mood,sentence\nsad,elsewhere\n")
    assert load_split(get_task(path), "train", tmp_path / "data").first == ["elsewhere"]
    assert problems(path, tmp_path / "none")[0].startswith("none: no such folder, must be the folder that the paths in")
    absolute = write(tmp_path / "data", YAML.replace("train.csv", str(tmp_path / "data" / "train.csv")))
    assert load_split(get_task(absolute), "train", tmp_path).first == ["elsewhere"]
    assert problems(path, names=("test",)) == ["mood: `test` is not a split, must be one of train, dev."]


def test_test_splits_need_no_labels(tmp_path):
    text = YAML.replace("dev.csv}", "dev.csv, test: test.csv}")
    for content in ("sentence\na\nb\n", "sentence,mood\na,\nb,\n", "sentence,mood\na,-1\nb,-1\n"):
        split = load_split(get_task(write(tmp_path, text, test_csv=content)), "test", None)
        assert split.labels is None and split.first == ["a", "b"]
    path = write(tmp_path, text, test_csv="sentence,mood\na,glad\nb,sad\n")
    assert np.asarray(load_split(get_task(path), "test", None).labels).tolist() == [1, 0]
    path = write(tmp_path, text, test_csv="sentence,mood\na,glad\nb,\n")
    assert problems(path, names=("test",)) == [
        "test.csv:3: mood: has no label, but either all rows or none must have one"
    ]


def test_the_shipped_examples_are_read():
    folder = ROOT / "examples" / "own_task"
    task = get_task(folder / "my_task.yaml")
    splits = load_splits(task, task.splits, None)
    assert {name: len(split) for name, split in splits.items()} == {"train": 15, "dev": 6, "test": 3}
    assert set(np.asarray(splits["train"].labels)) == {0, 1, 2} and splits["test"].labels is None
    rated = get_task(folder / "review_ratings.yaml")
    assert rated.regression and list(rated.scores) == [-4, 4] and rated.metric == "pearson"
