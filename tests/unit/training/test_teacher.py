import json

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import fsd_tune as fsd
from fsd_tune.errors import InputError
from fsd_tune.models.loading import read_model_info
from fsd_tune.progress import Display
from fsd_tune.training.teacher import TeacherConfig, fine_tune


def test_a_teacher_is_a_plain_model_that_records_its_base(base, glue, tmp_path):
    config = {
        "learning_rate": 3e-3,
        "epochs": 12,
        "batch_size": 8,
        "warmup_ratio": 0.1,
        "weight_decay": 0.01,
        "gradient_accumulation": 1,
    }
    output = tmp_path / "teachers" / "rte"
    run = TeacherConfig(str(base), "rte", glue, output, config, 32, False, 0, 12, "cpu", "float32")
    made = fine_tune(run, False, Display(quiet=True))
    assert made["score"] > 0.9, "the generated sentences give their label away"
    assert len(made["reports"]) == 12
    model = AutoModelForSequenceClassification.from_pretrained(output)
    assert model.config.id2label == {0: "entailment", 1: "not_entailment"}
    assert AutoTokenizer.from_pretrained(output)("a")["input_ids"]
    info = read_model_info(str(output))
    assert info.base == str(base.resolve()) and info.labels == ("entailment", "not_entailment")
    assert json.loads((output / "fsd_tune.json").read_text()) == made


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": -1}, "--batch-size: found -1, but must be in 1..65536."),
        ({"batch_size": 0, "epochs": 1.5}, "--epochs: found 1.5, but must be a whole number"),
        ({"learning_rate": "5e-5"}, "--learning-rate: found '5e-5', but must be a number"),
        ({"max_length": 2}, "--max-length: found 2"),
        ({"seed": 2**40}, "--seed: found 1099511627776"),
        ({"holdout": 2}, "--holdout: found 2, but must be above 0"),
    ],
)
def test_numbers_are_checked_before_anything_is_read(tmp_path, given, said):
    with pytest.raises(InputError) as error:
        fsd.fine_tune_teacher("rte", model=tmp_path / "none", output=tmp_path / "T", **given)
    assert len(error.value.problems) == len(given) and any(line.startswith(said) for line in error.value.problems)
