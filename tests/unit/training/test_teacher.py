import json

from transformers import AutoModelForSequenceClassification, AutoTokenizer

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
