"""The exported files in what people serve them with: transformers, ONNX Runtime, and text-embeddings-inference's rules.

text-embeddings-inference itself is a container image. What it reads of a folder and answers to `/predict` is written
out here from its sources (router/src/lib.rs, backends/ort/src/lib.rs).
"""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tokenizers import Tokenizer
from transformers import pipeline

from fsd_tune.deployment import served_files
from fsd_tune.deployment.export import export_student
from fsd_tune.deployment.quantisation import parts_of
from fsd_tune.models.loader import new_model
from fsd_tune.models.loading import load_config
from fsd_tune.models.onnx import input_names, open_session, random_batch, run_session
from fsd_tune.profiling.latency import Latency, Setting, Target, measure_latency
from fsd_tune.profiling.process import Runner
from fsd_tune.progress import Display
from tests.helpers import families
from tests.unit.deployment.test_export import write_student

pytestmark = pytest.mark.slow
TEXTS = ["the film finds the river", "a small dog", "some bread and a letter , says the old engine"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, glue):
    """A student with all files, and the document of its export."""
    home = tmp_path_factory.mktemp("served")

    def second_is_faster(targets, **_):
        return [[Latency(target.settings[0], 2.0 - index, None, None, 5, 0)] for index, target in enumerate(targets)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served_files, "measure_latency", second_is_faster)
        document = export_student(
            str(write_student(home / "student")), home / "E", task=None, onnx=True, int8=True, max_drop=100, data=glue,
            speed=False, overwrite=False, display=Display(quiet=True),
        )  # fmt: skip
    return home / "E", document, home / "student"


def served_by_onnxruntime(folder, name, texts):
    """Labels and scores of each text as the ONNX backend of a server gets them: tokenizer.json, padding, softmax."""
    config = json.loads((folder / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=config["pad_token_id"])
    encoded = tokenizer.encode_batch(texts)
    inputs = {
        "input_ids": np.array([one.ids for one in encoded], np.int64),
        "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
        "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
    }
    session = open_session(folder / name)
    assert {node.name for node in session.get_inputs()} == set(inputs) and session.get_outputs()[0].name == "logits"
    scores = torch.softmax(torch.from_numpy(session.run(["logits"], inputs)[0]), -1).tolist()
    return [
        sorted(({"label": config["id2label"][str(i)], "score": score} for i, score in enumerate(row)),
               key=lambda one: -one["score"])
        for row in scores
    ]  # fmt: skip


def test_transformers_and_onnxruntime_agree(exported):
    folder, document, _ = exported
    assert document["onnx_difference"] < 1e-5
    expected = pipeline("text-classification", model=str(folder), device="cpu")(TEXTS, top_k=None)
    for found, wanted in zip(served_by_onnxruntime(folder, "model.onnx", TEXTS), expected, strict=True):
        assert [one["label"] for one in found] == [one["label"] for one in wanted]
        assert [one["score"] for one in found] == pytest.approx([one["score"] for one in wanted], abs=1e-5)


def test_int8_is_close_and_a_quarter_of_the_weights(exported):
    folder, document, _ = exported
    exact = served_by_onnxruntime(folder, "model.onnx", TEXTS)
    rounded = served_by_onnxruntime(folder, "model_quantized.onnx", TEXTS)
    for one, other in zip(exact, rounded, strict=True):
        by_label = {entry["label"]: entry["score"] for entry in other}
        assert all(abs(entry["score"] - by_label[entry["label"]]) < 0.02 for entry in one)
    assert exact != rounded

    def stored(name):
        weights = onnx.load(folder / name).graph.initializer
        return sum(numpy_helper.to_array(weight).nbytes for weight in weights if len(weight.dims) == 2)

    assert stored("model_quantized.onnx") < 0.3 * stored("model.onnx")
    nodes = onnx.load(folder / "model_quantized.onnx").graph.node
    made_by = {output: node.op_type for node in nodes for output in node.output}
    normalised = [made_by[node.input[0]] for node in nodes if node.op_type == "LayerNormalization"]
    assert normalised == ["Sum"] * 5, "two for each layer and one for the embeddings, which ONNX Runtime must not fuse"
    int8 = document["size_and_speed"]["int8"]
    assert int8["float_parts"] == [] and int8["dev_examples"] == 24
    assert [one["kind"] for one in int8["attempts"]] == ["dynamic", "static"]
    assert int8["kind"] == "static", "the faster of the two"
    assert list(parts_of(folder / "model.onnx")) == ["embeddings", "layer 0", "layer 1", "head"]


def test_the_card_has_float_beside_int8(exported):
    folder, document, _ = exported
    text = (folder / "README.md").read_text()
    files = {one["file"]: one for one in document["size_and_speed"]["files"]}
    assert list(files) == ["model.safetensors", "model.onnx", "model_quantized.onnx"]
    for name, one in files.items():
        assert f"| `{name}` | {one['runtime']} | {one['score']:.4f} | {one['size_mb']:.1f} |" in text
    assert "random training examples, because the student has no teacher memory" in text


def test_the_folder_is_what_text_embeddings_inference_reads(exported):
    folder, _, _ = exported
    config = json.loads((folder / "config.json").read_text())
    assert any(name.endswith("Classification") for name in config["architectures"])
    assert isinstance(config["max_position_embeddings"], int) and isinstance(config["pad_token_id"], int)
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert config["label2id"] == {"negative": 0, "positive": 1}
    assert (folder / "model.onnx").is_file() and (folder / "tokenizer.json").is_file()
    # `/predict` on {"inputs": TEXTS[0]} answers a list of labels with their scores, the best first.
    (answer,) = served_by_onnxruntime(folder, "model.onnx", TEXTS[:1])
    assert [set(one) for one in answer] == [{"label", "score"}] * 2 and answer[0]["score"] >= answer[1]["score"]


def test_a_process_measures_the_files(exported, monkeypatch, tmp_path):
    folder, _, _ = exported
    monkeypatch.setenv("FSD_TUNE_CACHE", str(tmp_path))
    settings = tuple(Setting(runtime, length=8) for runtime in ("torch", "onnxruntime", "tokenizer"))
    target = Target(load_config(folder), settings, onnx=folder / "model.onnx", tokenizer=str(folder))
    ((*found,),) = measure_latency([target], runs=20, seconds=0.5)
    assert [one.setting for one in found] == list(settings)
    assert all(0 < one.p50_ms <= (one.p90_ms or 1e9) and one.p99_ms is None and 5 <= one.runs <= 20 for one in found)


def test_a_shape_of_another_family_is_exported_to_be_measured(tmp_path):
    """RoBERTa counts positions from its padding token on, and has one type of tokens only."""
    config = families.config("roberta", 2)
    setting = Setting("onnxruntime", length=9)
    Runner(Target(config, (setting,)).as_json((setting,)), tmp_path).batch_of(setting)()
    torch.manual_seed(0)
    model = new_model(config).eval()
    batch = random_batch(config, input_names(model), (3, 9))
    with torch.no_grad():
        expected = model(**batch).logits.numpy()
    found = run_session(open_session(tmp_path / "model.onnx", threads=1), batch)
    assert np.abs(found - expected).max() < 1e-5
