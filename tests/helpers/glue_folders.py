"""Writes the nine GLUE tasks in the layout of the official download, with generated sentences and the layout's quirks.

The layout is written out here by hand, so that a mistake in `fsd_tune.glue_tasks` is not repeated. Sentences carry a
word that gives their label away, so that a small model can learn them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

BOM = "\ufeff"
LABELS = {
    "cola": ("0", "1"),
    "sst2": ("0", "1"),
    "mrpc": ("0", "1"),
    "qqp": ("0", "1"),
    "stsb": ("0.000", "1.250", "2.500", "3.800", "5.000"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
    "wnli": ("0", "1"),
}
FOLDERS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "qqp": "QQP",
    "stsb": "STS-B",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}
_CUES = ("dull", "bright", "strange", "warm", "broken")
_SUBJECTS = ("the film", "a small dog", "my neighbour", "the old engine", "that story", "her brother")
_VERBS = ("finds", "follows", "remembers", "leaves", "describes")
_OBJECTS = ("the river", "a letter", "the last train", "some bread", "an empty house")

# Rows that a careless reader loses or changes: (text, second text, label's index) by task, first in train and dev.
QUIRKS: dict[str, list[tuple[str, str, int]]] = {
    "cola": [('"Bill said "" nothing', "", 1), ("What did Bill wonder?", "", 0)],
    "sst2": [("hide new secretions from the parental units ", "", 0), ('an unclosed " quote', "", 1)],
    "mrpc": [('" The pie does not fit our strategy .', 'The "" pie \'s fit', 1)],
    "qqp": [("Is it 5 o'clock?", "", 0), ("café\u00a0or tea?", "C'est \"quoi?", 1)],
    "stsb": [("A plane is taking off.", "An air plane is taking off.", 4)],
    "mnli": [('"He left," she said.', "He left", 0), ("It rained\u2028all day", "It\x85was dry\x0b", 2)],
    "qnli": [('What is "x?', "It is\u2029here.", 0)],
    "rte": [("No Weapons of Mass Destruction Found.", 'Weapons "found".', 1)],
    "wnli": [("The drain is clogged.", "It's clogged.", 1)],
}


@dataclass
class Expected:
    """What loading a split must give; labels are indices, scores for STS-B, None where there are none."""

    first: list[str] = field(default_factory=list)
    second: list[str] = field(default_factory=list)
    labels: list[float] | None = field(default_factory=list)
    skipped: int = 0


def write_glue(
    folder: Path, train: int = 24, dev: int = 12, test: int = 6, seed: int = 0, tasks: tuple[str, ...] = tuple(LABELS)
) -> dict[tuple[str, str], Expected]:
    """Writes `folder/SST-2/train.tsv` and so on; returns what each (task, split) holds, the quirk rows first.

    With MNLI it writes the diagnostic set, `AX/AX.tsv`, too.
    """
    expected: dict[tuple[str, str], Expected] = {}
    for task in tasks:
        sizes = {"train": train, "dev": dev, "test": test}
        if task == "mnli":
            sizes |= {"dev_mismatched": dev, "test_mismatched": test, "ax": test}
        (folder / FOLDERS[task]).mkdir(parents=True)
        for split, size in sizes.items():
            rows = _rows(task, split, size, random.Random(f"{seed} {task} {split}"))
            lines, kept = _LAYOUTS[task](rows, split)
            ending = "\r\n" if task == "wnli" else "\n"
            name = f"{split}_matched" if task == "mnli" and split in ("dev", "test") else split
            text = ending.join(lines) + ("" if task == "rte" else ending)  # RTE's file lacks the last line end
            path = folder / "AX" / "AX.tsv" if split == "ax" else folder / FOLDERS[task] / f"{name}.tsv"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text.encode())
            expected[task, split] = kept
    return expected


def write_original_mrpc(folder: Path, rows: int = 10) -> dict[str, Expected]:
    """`folder/MRPC/` as the corpus' authors publish it, with `dev_ids.tsv`; every third training row is dev."""
    (folder / "MRPC").mkdir(parents=True)
    expected = {split: Expected() for split in ("train", "dev", "test")}
    dev_ids: list[str] = []
    for file in ("train", "test"):
        lines = [f"{BOM}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        for number, (first, second, label) in enumerate(_rows("mrpc", "train", rows, random.Random(file))):
            ids = f"{1000 + number}\t{2000 + number}"
            lines.append(f"{label}\t{ids}\t{first}\t{second}")
            split = "dev" if file == "train" and number % 3 == 0 else file
            if split == "dev":
                dev_ids.append(ids)
            _keep(expected[split], first, second, label)
        text = "\r\n".join(lines) + "\r\n"
        (folder / "MRPC" / f"msr_paraphrase_{file}.txt").write_bytes(text.encode())
    (folder / "MRPC" / "dev_ids.tsv").write_text("\n".join(dev_ids) + "\n")
    return expected


Rows = list[tuple[str, str, int]]


def _rows(task: str, split: str, size: int, generator: random.Random) -> Rows:
    rows = [] if split.startswith("test") or split == "ax" else list(QUIRKS[task])
    for number in range(len(rows), size):
        label = number % len(LABELS[task])
        words = [generator.choice(group) for group in (_SUBJECTS, _VERBS, _OBJECTS)]
        other = [generator.choice(group) for group in (_SUBJECTS, _VERBS, _OBJECTS)]
        rows.append((" ".join([*words, _CUES[label]]), " ".join([*other, _CUES[label]]), label))
    return rows


def _keep(expected: Expected, first: str, second: str, label: float | None) -> None:
    expected.first.append(first)
    expected.second.append(second)
    if label is None:
        expected.labels = None
    elif expected.labels is not None:
        expected.labels.append(label)


Layout = tuple[list[str], Expected]


def _cola(rows: Rows, split: str) -> Layout:
    expected = Expected()
    lines = ["index\tsentence"] if split == "test" else []
    for number, (first, second, label) in enumerate(rows):
        mark = "*" if label == 0 else ""
        lines.append(f"{number}\t{first}" if split == "test" else f"gj04\t{label}\t{mark}\t{first}")
        _keep(expected, first, second, None if split == "test" else label)
    return lines, expected


def _sst2(rows: Rows, split: str) -> Layout:
    expected = Expected()
    lines = ["index\tsentence" if split == "test" else "sentence\tlabel"]
    for number, (first, second, label) in enumerate(rows):
        lines.append(f"{number}\t{first}" if split == "test" else f"{first}\t{label}")
        _keep(expected, first, second, None if split == "test" else label)
    return lines, expected


def _mrpc(rows: Rows, split: str) -> Layout:
    expected = Expected()
    columns = "#1 ID\t#2 ID\t#1 String\t#2 String"
    lines = [f"index\t{columns}" if split == "test" else f"{BOM}Quality\t{columns}"]
    for number, (first, second, label) in enumerate(rows):
        lead = number if split == "test" else label
        lines.append(f"{lead}\t{702876 + number}\t{802976 + number}\t{first}\t{second}")
        _keep(expected, first, second, None if split == "test" else label)
    return lines, expected


def _qqp(rows: Rows, split: str) -> Layout:
    expected = Expected()
    if split == "test":
        lines = ["id\tquestion1\tquestion2"]
    else:  # a question with a line break inside leaves rows with missing columns
        lines = ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "7\t8\t9\tWhy is", "this so?\tWhy?\t1"]
        expected.skipped = 2
    for number, (first, second, label) in enumerate(rows):
        ids = "" if split == "test" else f"\t{2 * number}\t{2 * number + 1}"
        lines.append(f"{number}{ids}\t{first}\t{second}" + ("" if split == "test" else f"\t{label}"))
        _keep(expected, first, second, None if split == "test" else label)
    return lines, expected


def _stsb(rows: Rows, split: str) -> Layout:
    expected = Expected()
    columns = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
    lines = [columns if split == "test" else f"{columns}\tscore"]
    for number, (first, second, label) in enumerate(rows):
        score = LABELS["stsb"][label]
        line = f"{number}\tmain-captions\tMSRvid\t2012test\t{number:04d}\tnone\tnone\t{first}\t{second}"
        lines.append(line if split == "test" else f"{line}\t{score}")
        _keep(expected, first, second, None if split == "test" else float(score))
    return lines, expected


def _mnli(rows: Rows, split: str) -> Layout:
    if split == "ax":
        return _indexed("ax", "sentence1\tsentence2", rows, "test")
    expected = Expected()
    lead = "index\tpromptID\tpairID\tgenre"
    parses = "sentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
    annotators = {"train": 1, "dev": 5, "dev_mismatched": 5}.get(split, 0)
    header = [lead, parses, "sentence1", "sentence2", *(f"label{n + 1}" for n in range(annotators))]
    lines = ["\t".join([*header, "gold_label"] if annotators else header)]
    for number, (first, second, label) in enumerate(rows):
        start = [f"{number}\t{31193 + number}\t{31193 + number}n\tgovernment", "( a )\t( b )\t(ROOT a)\t(ROOT b)"]
        words = [LABELS["mnli"][label]] * (annotators + 1) if annotators else []
        lines.append("\t".join([*start, first, second, *words]))
        _keep(expected, first, second, label if annotators else None)
    if annotators == 5:
        words = ["neutral", "neutral", "entailment", "entailment", "contradiction", "-"]
        lines.append("\t".join(["9\t9\t9n\tslate\ta\tb\tc\td", "no gold label", "here", *words]))
        expected.skipped = 1
    return lines, expected


def _indexed(task: str, columns: str, rows: Rows, split: str) -> Layout:
    """QNLI, RTE, WNLI and AX: an index, two texts, a label."""
    expected = Expected()
    lines = [f"index\t{columns}" if split == "test" else f"index\t{columns}\tlabel"]
    for number, (first, second, label) in enumerate(rows):
        line = f"{number}\t{first}\t{second}"
        lines.append(line if split == "test" else f"{line}\t{LABELS[task][label]}")
        _keep(expected, first, second, None if split == "test" else label)
    return lines, expected


_LAYOUTS: dict[str, Callable[[Rows, str], Layout]] = {
    "cola": _cola,
    "sst2": _sst2,
    "mrpc": _mrpc,
    "qqp": _qqp,
    "stsb": _stsb,
    "mnli": _mnli,
    "qnli": partial(_indexed, "qnli", "question\tsentence"),
    "rte": partial(_indexed, "rte", "sentence1\tsentence2"),
    "wnli": partial(_indexed, "wnli", "sentence1\tsentence2"),
}
