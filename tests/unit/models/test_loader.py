"""Folders of others as models: what is taken of them, what is refused in one line, and what is never done."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, BertForSequenceClassification

from fsd_tune.data.splits import get_task
from fsd_tune.errors import InputError
from fsd_tune.models.loading import describe_model, load_finished, load_with_new_head, read_model_info
from fsd_tune.models.probe import probe, usable_precision
from fsd_tune.models.student_init import build_student
from fsd_tune.settings.schema import Student
from tests.helpers import families, tiny

SST2 = get_task("sst2")


@pytest.fixture
def folder(tmp_path):
    return tiny.write_teacher(tmp_path / "model", None, layers=2)


def configure(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def rename(folder, change):
    path = folder / "model.safetensors"
    save_file({change(name): value for name, value in load_file(path).items()}, path, {"format": "pt"})


def quantise(folder):
    path = folder / "model.safetensors"
    held = load_file(path)
    held["classifier.weight"] = held["classifier.weight"].to(torch.int8)
    save_file(held, path, {"format": "pt"})


def shard(folder, lose=False, outside=False):
    load_finished(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    first = min(path.name for path in folder.glob("model-*"))
    if lose:
        (folder / first).unlink()
    if outside:
        path = folder / "model.safetensors.index.json"
        path.write_text(path.read_text().replace(first, f"../{first}"))


def pickle_beside(folder):
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"never read")


REFUSED = {
    "code of its own": (lambda f: configure(f, model_type="mine", auto_map={"AutoConfig": "c.C"}), "is never run"),
    "quantised": (lambda f: configure(f, quantization_config={"quant_method": "gptq", "bits": 4}), "quantised (gptq)"),
    "quantised without a word": (quantise, "quantised (classifier.weight is I8)"),
    "DDP": (lambda f: rename(f, "module.{}".format), "contain 'module'; in Python: "),
    "compiled": (lambda f: rename(f, "_orig_mod.{}".format), "contain '_orig_mod'"),
    "a compiled part": (lambda f: rename(f, lambda n: n.replace("bert.", "bert._orig_mod.")), "contain '_orig_mod'"),
    "DDP of compiled": (lambda f: rename(f, "module._orig_mod.{}".format), ".replace('module.', '')"),
    "PEFT weights": (lambda f: rename(f, "base_model.model.{}".format), "of a PEFT model"),
    "PEFT beside a model": (lambda f: (f / "adapter_config.json").write_text("{}"), "holds a PEFT adapter"),
    "another prefix": (lambda f: rename(f, "net.{}".format), "it stores net.bert."),
    "a lost shard": (lambda f: shard(f, lose=True), "lacks 1 of the files"),
    "a shard elsewhere": (lambda f: shard(f, outside=True), "must name files in"),
    "a pickle is not read": (pickle_beside, "no weights under the name model.safetensors, but other.safetensors"),
    "hidden states apart": (lambda f: configure(f, model_type="funnel", block_sizes=[1, 1]), "cannot be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_model_is_refused_in_one_line(case, folder, monkeypatch):
    change, expected = REFUSED[case]
    change(folder)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("standard input is read"))
    with pytest.raises(InputError) as error:
        read_model_info(str(folder))
    (line,) = error.value.problems
    assert line.startswith("--teacher: ") and expected in line and "\n" not in line


@pytest.mark.parametrize(
    "entries",
    [
        {"return_dict": False},
        {"use_return_dict": False, "torchscript": True},
        {"attn_implementation": "flash_attention_2"},
        {"_attn_implementation": "eager", "output_attentions": True, "output_hidden_states": True},
        {"chunk_size_feed_forward": 3},
        {"problem_type": "regression"},
        {"dtype": "float16"},
        {"auto_map": {"AutoModelForSequenceClassification": "mine.Model"}},
        {"transformers_weights": "../other.safetensors"},
        {"quantization_config": None},
    ],
)
def test_how_a_model_is_used_is_not_its_configurations_to_say(entries, folder):
    inputs = {"input_ids": torch.tensor([[2, 9, 12, 3]]), "attention_mask": torch.ones(1, 4)}
    before = load_finished(folder)(**inputs).logits
    configure(folder, **entries)
    read_model_info(str(folder))
    model = load_finished(folder)
    out = model(**inputs)
    torch.testing.assert_close(out.logits, before)
    assert out.hidden_states is None and model.dtype == torch.float32
    assert not hasattr(model.config, "auto_map") and model.config.problem_type is None


@pytest.mark.parametrize("shards", [False, True])
def test_whatever_head_a_base_has_its_encoder_is_taken(shards, teacher, tmp_path):
    """Heads of three labels, of two with another meaning, and for words leave the same student and teacher."""
    made = []
    for name, kind, labels in (
        ("three", BertForSequenceClassification, 3), ("two", BertForSequenceClassification, 2),
        ("words", BertForMaskedLM, 2),
    ):  # fmt: skip
        base = tmp_path / name
        model = kind(tiny.config(num_labels=labels))
        with torch.no_grad():
            for part, value in model.named_parameters():
                value.copy_(torch.full_like(value, 0.1 + len(part) / 100))
        model.save_pretrained(base, max_shard_size="20KB" if shards else "1GB")
        tiny.write_tokenizer(base)
        assert describe_model(str(base), "--model") == 64
        student = build_student(Student(layers=2, model=str(base)), read_model_info(str(teacher)), SST2, 3)
        made.append((load_with_new_head(str(base), SST2, 5), student))
    for others in zip(*made, strict=True):
        first = others[0].state_dict()
        assert first["classifier.weight"].shape[0] == 2
        two, words = (
            {name for name, value in first.items() if not torch.equal(value, other.state_dict()[name])}
            for other in others[1:]
        )
        # A model for words has no pooler, so that the pooler is new, too.
        assert not two and {name for name in words if "pooler" not in name} <= {"classifier.weight"}


def test_a_family_that_cannot_train_in_bf16_goes_on_in_float32(folder, tmp_path):
    first = families.write_classifier(tmp_path / "deberta", "deberta", ["negative", "positive"])
    precision, (note,) = usable_precision("bf16", [str(folder), str(first), str(first)])
    assert precision == "float32" and note.startswith(f"{first} cannot be trained in bf16 (deberta: ")
    assert usable_precision("float32", [str(first)]) == ("float32", ())
    assert usable_precision("bf16", [str(folder)]) == ("bf16", ())


def test_a_probe_leaves_the_configuration_and_the_random_numbers(folder):
    config = load_finished(folder).config
    before, state = config.to_dict(), torch.get_rng_state()
    assert probe(config) == ""
    assert config.to_dict() == before and torch.equal(torch.get_rng_state(), state)
