import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from fsd_tune.data.splits import get_task
from fsd_tune.errors import InputError
from fsd_tune.models.loading import (
    check_fit,
    check_label_order,
    label_order,
    load_classifier,
    load_with_new_head,
    read_model_info,
)
from fsd_tune.models.student_init import build_student
from fsd_tune.settings.schema import Student
from fsd_tune.training.inputs import load_inputs
from tests.helpers import tiny

SST2, MNLI = get_task("sst2"), get_task("mnli")


def layer(model, index):
    return model.bert.encoder.layer[index].output.dense.weight


@pytest.mark.parametrize(
    ("start", "expected"), [("copy", (0, 1)), ("last", (2, 3)), ("every_other", (0, 2)), ("teacher", (1, 3))]
)
def test_a_student_starts_from_the_layers_that_its_start_names(start, expected, base, teacher):
    student = build_student(Student(layers=2, start=start), read_model_info(str(teacher)), SST2, seed=3)
    source = load_classifier(str(teacher), SST2) if start == "teacher" else load_with_new_head(str(base), SST2, 0)
    assert len(student.bert.encoder.layer) == 2
    for index, old in enumerate(expected):
        assert torch.equal(layer(student, index), layer(source, old))
    embeddings = [model.get_input_embeddings().weight for model in (student, source)]
    assert torch.equal(*embeddings)
    assert torch.equal(student.bert.pooler.dense.weight, source.bert.pooler.dense.weight)
    assert torch.equal(student.classifier.weight, source.classifier.weight) == (start == "teacher")


def test_the_head_depends_on_the_seed_alone(base, teacher):
    info, settings = read_model_info(str(teacher)), Student(layers=2)
    torch.manual_seed(5)
    first = build_student(settings, info, SST2, seed=3).classifier.weight
    torch.manual_seed(6)
    assert torch.equal(first, build_student(settings, info, SST2, seed=3).classifier.weight)
    assert not torch.equal(first, build_student(settings, info, SST2, seed=4).classifier.weight)


def test_a_random_student_may_be_narrower(teacher):
    student = build_student(Student(layers=2, start="random", hidden_size=8), read_model_info(str(teacher)), SST2, 0)
    assert student.config.hidden_size == 8
    with pytest.raises(InputError, match="multiple of 8"):
        build_student(Student(layers=2, start="random", hidden_size=12), read_model_info(str(teacher)), SST2, 0)


def test_frozen_embeddings_and_label_words(teacher, tmp_path):
    student = build_student(Student(layers=2, freeze_embeddings=True), read_model_info(str(teacher)), MNLI, 0)
    assert not student.get_input_embeddings().weight.requires_grad
    student.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}


def test_a_model_with_too_few_layers(teacher, tmp_path):
    shallow = tiny.write_base(tmp_path / "shallow", layers=1)
    with pytest.raises(InputError, match="has 1 layers, but the student 2"):
        build_student(Student(layers=2, model=str(shallow)), read_model_info(str(teacher)), SST2, 0)


def test_the_teachers_own_words_decide_the_order_of_its_logits(tmp_path, base):
    words = {0: "Contradiction", 1: "Entailment", 2: "Neutral"}
    folder = tiny.write_teacher(tmp_path / "t", base, num_labels=3, id2label=words)
    assert label_order(read_model_info(str(folder)), MNLI) == (1, 2, 0)
    other = tiny.write_teacher(tmp_path / "o", base, num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
    with pytest.raises(InputError, match="has the labels a, b, c, but mnli has entailment, neutral, contradiction"):
        label_order(read_model_info(str(other)), MNLI)
    with pytest.raises(InputError, match="has 3 labels"):
        label_order(read_model_info(str(folder)), SST2)


@pytest.mark.parametrize(
    ("words", "order"),
    [
        (("5", "1"), (1, 0)),
        (("1", "5"), (0, 1)),
        (("0", "1"), (0, 1)),
        (("LABEL_0", "LABEL_1"), (0, 1)),
        (("1", "0"), None),
        (("2", "5"), None),
    ],
)
def test_digits_are_words_if_they_are_the_tasks(teacher, words, order):
    info = replace(read_model_info(str(teacher)), labels=words)
    stars = replace(SST2, labels=("1", "5"))
    if order is None:
        with pytest.raises(InputError, match="has the labels"):
            label_order(info, stars)
    else:
        assert label_order(info, stars) == order


def test_a_permuted_teacher_without_words_is_refused_with_the_permutation(tmp_path, base):
    info = read_model_info(str(tiny.write_teacher(tmp_path / "t", base, num_labels=3)))
    labels = np.random.default_rng(0).integers(0, 3, 200)
    # Its index 0 is contradiction (2), 1 entailment (0), 2 neutral (1): the published code's order.
    own = np.array([1, 2, 0])[labels]
    logits = np.eye(3)[own]
    with pytest.raises(InputError, match=r"scores 1\.000 on dev") as error:
        check_label_order(info, MNLI, logits, labels)
    assert "{0: 'contradiction', 1: 'entailment', 2: 'neutral'}" in str(error.value)
    check_label_order(info, MNLI, np.eye(3)[labels], labels)
    check_label_order(info, MNLI, np.random.default_rng(1).normal(size=(200, 3)), labels)
    many = replace(MNLI, labels=tuple(map(str, range(20))))  # 20! orders, of which one fits
    labels = np.arange(200) % 20
    with pytest.raises(InputError, match=r"scores 1\.000 on dev with .* but 0\.000 with"):
        check_label_order(
            replace(info, labels=tuple(f"LABEL_{i}" for i in range(20))), many, np.eye(20)[(labels + 1) % 20], labels
        )


def test_problems_of_a_folder_are_named_together(tmp_path):
    with pytest.raises(InputError) as error:
        read_model_info(str(tmp_path))
    assert len(error.value.problems) == 3


def test_what_does_not_fit_shows_before_any_weight_is_read(load_settings, tmp_path):
    lonely = tiny.write_teacher(tmp_path / "t", None)
    settings = load_settings(**{"student.layers": 5, "data.max_length": 65})
    problems = check_fit(read_model_info(str(lonely)), MNLI, settings)
    assert [problem.split(":")[0] for problem in problems] == [
        "--teacher",
        "student.layers",
        "data.max_length",
        "student.model",
    ]


def test_what_does_not_fit_is_said_once_for_all_shapes(load_settings, teacher, base, glue):
    shapes = {
        "student.layers": "{choice: [2, 7, 3, 6]}",
        "student.start": "{choice: [copy, random]}",
        "student.hidden_size": "{choice: [null, 12, 40]}",
    }
    with pytest.raises(InputError) as error:
        load_inputs(load_settings("pkd", **shapes, **{"data.max_length": 65}), "sst2", str(teacher), glue)
    assert error.value.problems == (
        "student.layers: found 7, but must be at most the teacher's 4.",
        "student.layers: found 6, but must be at most the teacher's 4.",
        "data.max_length: found 65, but the teacher takes at most 64; give --data-max-length 64.",
        "student.hidden_size: found 40, but must be at most the teacher's 16.",
        "student.hidden_size: found 12, but must be a multiple of 8, a head's width.",
        "student.hidden_size: found 12, but method pkd compares [CLS] vectors number by number: must be the teacher's "
        "16.",
    )


def test_the_recorded_base_is_a_models_folder(teacher, base):
    info = read_model_info(str(teacher))
    assert info.base == str(base) and info.layers == 4 and info.positions == 64
    assert AutoModel.from_pretrained(info.base).config.num_hidden_layers == 4
    assert json.loads((teacher / "fsd_tune.json").read_text())["base"] == str(base)
