"""Selecting on a part of the training split: which rows, who must not have seen them, and what is said."""

import json
import shutil

import numpy as np
import pytest

from fsd_tune.data import holdout, splits
from fsd_tune.errors import InputError
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.progress import Display
from fsd_tune.training.api import build_memory, distill
from fsd_tune.training.inputs import load_inputs
from fsd_tune.training.teacher import TeacherConfig, fine_tune
from tests.helpers import tiny

SHARE = {"search.select_on": "{holdout: 0.25}"}


@pytest.fixture
def honest(tmp_path, base, glue):
    """A teacher whose record leaves out a quarter of SST-2."""
    return honest_teacher(tmp_path / "honest", base, glue, 0.25)


def honest_teacher(folder, base, data, share):
    tiny.write_teacher(folder, base)
    split = splits.load_split(splits.get_task("sst2"), "train", data)
    made = {"base": str(base)} | holdout.holdout_record(holdout.split_holdout(split, share)[1], share)
    (folder / "fsd_tune.json").write_text(json.dumps(made))
    return folder


@pytest.mark.parametrize("name", ["sst2", "mnli", "qqp", "stsb"])
def test_rows_are_divided_once_and_classes_keep_their_shares(glue, name):
    split = split_of(name, glue)
    rest, held = holdout.split_holdout(split, 0.25)
    assert split.labels is not None and rest.labels is not None and held.labels is not None
    assert len(held) == pytest.approx(len(split) / 4, abs=1) and len(rest) + len(held) == len(split)
    rows = sorted(zip(split.first, split.second or split.first, split.labels, strict=True))
    parts = [
        row
        for part in (rest, held)
        for row in zip(part.first, part.second or part.first, np.asarray(part.labels), strict=True)
    ]
    assert sorted(parts) == rows
    if not split.task.regression:
        for label in range(split.task.num_labels):
            shares = [np.mean(np.asarray(part.labels) == label) for part in (split, held)]
            assert shares[1] == pytest.approx(shares[0], abs=1 / len(held))
    again = holdout.split_holdout(split_of(name, glue), 0.25)[1]
    assert splits.content_hash(again) == splits.content_hash(held)


def split_of(name, data):
    return splits.load_split(splits.get_task(name), "train", data)


def test_a_holdout_that_cannot_be_is_refused(glue):
    with pytest.raises(InputError, match=r"search\.select_on: a holdout of 0.01 cannot be taken from the 40 rows of"):
        holdout.split_holdout(split_of("mnli", glue), 0.01)


def test_inputs_are_divided_whatever_the_seed(load_settings, glue, honest):
    first = load_inputs(load_settings(**SHARE), "sst2", str(honest), glue)
    other = load_inputs(load_settings(**SHARE, **{"search.seed": 7}), "sst2", str(honest), glue)
    whole = load_inputs(load_settings(), "sst2", str(honest), glue)
    assert whole.final is None and first.final is not None
    assert (len(whole.train), len(whole.dev)) == (40, 24)
    assert (len(first.train), len(first.dev), len(first.final)) == (30, 10, 24)
    assert np.array_equal(first.dev.ids, other.dev.ids) and np.array_equal(first.train.ids, other.train.ids)
    assert np.array_equal(first.final.ids, whole.dev.ids)
    limited = load_inputs(load_settings(**SHARE, **{"data.train_limit": 12}), "sst2", str(honest), glue)
    assert len(limited.train) == 12 and np.array_equal(limited.dev.ids, first.dev.ids)


def test_the_memory_knows_nothing_of_what_is_held_out(load_settings, glue, honest, tmp_path):
    settings = load_settings(**SHARE)
    memory = tmp_path / "memory"
    spec = MemorySpec.from_inputs(settings, load_inputs(settings, "sst2", str(honest), glue), memory, "cpu")
    assert len(spec.train) == len(spec.stored) == 30 and len(spec.dev) == 10
    built = build_memory(settings, task="sst2", teacher=honest, memory=memory, data=glue, device="cpu")
    assert built.facts.examples == 30 and built.facts.sizes is not None and sum(built.facts.sizes) == 30


def test_a_teacher_that_may_know_the_rows_is_refused(load_settings, glue, teacher, base, honest, tmp_path):
    command = "fsd-tune teacher --model .* --task sst2 --data .* --holdout 0.25 --output FOLDER"
    with pytest.raises(InputError, match=f"records no holdout, so it may have seen .*: {command}"):
        load_inputs(load_settings(**SHARE), "sst2", str(teacher), glue)
    other = honest_teacher(tmp_path / "other", base, glue, 0.5)
    with pytest.raises(InputError, match=r"leaves out another holdout \(0\.5\)"):
        load_inputs(load_settings(**SHARE), "sst2", str(other), glue)
    foreign = shutil.copytree(honest, tmp_path / "foreign")
    (foreign / "fsd_tune.json").unlink()
    with pytest.raises(InputError) as error:
        load_inputs(load_settings(**SHARE, **{"student.start": "teacher"}), "sst2", str(foreign), glue)
    assert len(error.value.problems) == 1 and "--model MODEL" in error.value.problems[0]
    assert load_inputs(load_settings(), "sst2", str(honest), glue).final is None, "its own rows are no concern on dev"


def test_a_teacher_is_made_without_the_rows_and_a_student_from_it(load_settings, glue, base, tmp_path):
    config = {"learning_rate": 1e-3, "epochs": 1, "batch_size": 8, "warmup_ratio": 0.0, "weight_decay": 0.0}
    run = TeacherConfig(
        str(base), "sst2", glue, tmp_path / "teacher", config | {"gradient_accumulation": 1}, 32, False, 0, 1, "cpu",
        "float32", 0.25,
    )  # fmt: skip
    made = fine_tune(run, False, Display(quiet=True))
    assert made["holdout"] == 0.25 and made["reports"][-1]["steps_total"] == 4, "30 examples in batches of 8"
    student = distill(
        load_settings(**SHARE, alpha=0.5), task="sst2", teacher=str(tmp_path / "teacher"), data=glue,
        output=tmp_path / "student", memory=None, device="cpu", overwrite=False, display=Display(quiet=True),
    )  # fmt: skip
    assert student["select_on"] == {"holdout": 0.25} and student["dev"]["examples"] == 24
    assert json.loads((tmp_path / "student" / "fsd_tune.json").read_text())["dev"] == student["dev"]
