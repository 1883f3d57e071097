"""Every family of encoders as teacher and as student, and students of another family than their teacher's."""

import copy

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from fsd_tune.data.batching import collate
from fsd_tune.data.splits import get_task
from fsd_tune.errors import InputError
from fsd_tune.memory.arrays import open_arrays
from fsd_tune.memory.build import build_artifacts
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.models.folder import write_model
from fsd_tune.models.layer_cka import layer_cka
from fsd_tune.models.loading import load_finished, read_model_info
from fsd_tune.models.model_config import positions_of
from fsd_tune.models.student_init import build_student
from fsd_tune.progress import Display
from fsd_tune.settings.configuration import resolve
from fsd_tune.settings.schema import Student
from fsd_tune.training import loss_terms, setup
from fsd_tune.training.factory import DistillerFactory
from fsd_tune.training.inputs import load_inputs
from fsd_tune.training.optimizer import build_optimizer
from fsd_tune.training.teacher import TeacherConfig, fine_tune
from tests.helpers import families

CPU = torch.device("cpu")
RTE = get_task("rte")
CONFIG = {
    "learning_rate": 1e-3, "epochs": 1, "batch_size": 8, "warmup_ratio": 0.0, "weight_decay": 0.01,
    "gradient_accumulation": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def base_of(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("bases"), {}

    def make(family):
        if family not in made:
            made[family] = families.write_base(root / family, family)
        return made[family]

    return make


@pytest.fixture(scope="module")
def teacher_of(tmp_path_factory, base_of, glue):
    """A teacher of each family, fine-tuned for a moment on pairs of sentences."""
    root, made = tmp_path_factory.mktemp("teachers"), {}

    def make(family):
        if family not in made:
            run = TeacherConfig(
                str(base_of(family)), "rte", glue, root / family, CONFIG, 60, False, 0, 1, "cpu", "float32"
            )
            fine_tune(run, False, Display(quiet=True))
            made[family] = root / family
        return made[family]

    return make


def workbench(settings, teacher, glue, folder):
    inputs = load_inputs(settings, "rte", str(teacher), glue)
    spec = MemorySpec.from_inputs(settings, inputs, folder, "cpu")
    return DistillerFactory(settings, spec, open_arrays(build_artifacts(spec, lambda *_: None), mapped=True))


def values(distiller, rows):
    terms = loss_terms.loss_terms(distiller.setup, distiller.model, distiller.memory, distiller.weights.keys(), rows)
    return {name: value.item() for name, value in terms.items()}


def blocks(model):
    """The layers of a model by the family's own name for them; ALBERT runs through one again and again."""
    kind, encoder = model.config.model_type, getattr(model, model.base_model_prefix)
    if kind == "albert":
        return [encoder.encoder.albert_layer_groups[0]] * model.config.num_hidden_layers
    return list(encoder.transformer.layer if kind == "distilbert" else encoder.encoder.layer)


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("family", families.FAMILIES)
def test_teacher_memory_step_and_student_of_a_family(family, base_of, teacher_of, glue, load_settings, tmp_path):
    settings = load_settings(**{"data.max_length": 60})
    bench = workbench(settings, teacher_of(family), glue, tmp_path / "memory")
    assert bench.spec.teacher.base == str(base_of(family).resolve())
    assert (bench.spec.teacher.layers, bench.spec.teacher.hidden_size) == (families.LAYERS, families.HIDDEN)
    distiller = bench.distiller(resolve(settings), 2)

    # A batch padded to its own longest example has the losses of one padded to the split's.
    rows, width = np.argsort(bench.spec.train.lengths)[:8], int(bench.spec.train.lengths.max())
    assert bench.spec.train.lengths[rows].max() < width
    distiller.model.eval()
    short = values(distiller, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "collate", lambda data, rows, device, pad_to=None: collate(data, rows, device, width))
        assert values(distiller, rows) == pytest.approx(short, rel=1e-3, abs=1e-5)

    # It learns, and what continues from a checkpoint goes on as if nothing had been.
    before = copy.deepcopy(distiller.model.state_dict())
    record = distiller.train_to_next_evaluation()
    assert np.isfinite(record["loss"])
    frozen = {name for name, value in distiller.model.state_dict().items() if torch.equal(value, before[name])}
    assert not frozen, "every weight of the student has a part in some loss"
    distiller.save(tmp_path / "checkpoint")
    whole = distiller.train_to_next_evaluation()
    again = bench.distiller(resolve(settings), 2)
    again.load(tmp_path / "checkpoint")
    continued = again.train_to_next_evaluation()
    assert whole["loss"] == continued["loss"] and whole["accuracy"] == continued["accuracy"]

    # The student's folder is a plain model that gives the same logits from the texts.
    tokenizer = AutoTokenizer.from_pretrained(bench.spec.teacher.path)
    folder = write_model(tmp_path / "student", distiller.model, tokenizer, {})
    inputs = AutoTokenizer.from_pretrained(folder)("a small dog", "her brother says", return_tensors="pt")
    assert (
        inputs["input_ids"].tolist()
        == tokenizer("a small dog", "her brother says", return_tensors="pt")["input_ids"].tolist()
    )
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    assert loaded.config.id2label == {0: "entailment", 1: "not_entailment"}
    with torch.no_grad():
        ours = distiller.model.eval()(**{name: inputs[name] for name in ("input_ids", "attention_mask")})
        theirs = loaded.eval()(**{name: inputs[name] for name in ("input_ids", "attention_mask")})
    torch.testing.assert_close(ours.logits, theirs.logits)
    table = layer_cka(AutoModelForSequenceClassification.from_pretrained(bench.spec.teacher.path), loaded,
                      bench.spec.dev, CPU)  # fmt: skip
    assert np.shape(table) == (3, 5)


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize(
    ("start", "expected"), [("copy", (0, 1)), ("every_other", (0, 2)), ("last", (2, 3)), ("teacher", (1, 3))]
)
def test_where_a_familys_weights_start(family, start, expected, base_of, teacher_of):
    folder = teacher_of(family)
    student = build_student(Student(layers=2, start=start), read_model_info(str(folder)), RTE, seed=3)
    source = AutoModelForSequenceClassification.from_pretrained(folder if start == "teacher" else base_of(family))
    assert len(blocks(student)) == 2
    for block, number in zip(blocks(student), expected, strict=True):
        assert same(block, blocks(source)[number])
    inside = [set(map(id, (p for block in blocks(model) for p in block.parameters()))) for model in (student, source)]
    rest = [
        {name: value for name, value in model.named_parameters() if id(value) not in own}
        for model, own in zip((student, source), inside, strict=True)
    ]
    assert rest[0].keys() == rest[1].keys()
    prefix = f"{student.base_model_prefix}."
    for name, value in rest[0].items():
        # A pretrained model has no head: the student's is random, biases alone may begin at the same zero.
        if name.startswith(prefix) or start == "teacher":
            assert torch.equal(value, rest[1][name]), name
        elif name.endswith("weight"):
            assert not torch.equal(value, rest[1][name]), name


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_narrower_random_student_of_a_family(family, teacher_of):
    settings = Student(layers=2, start="random", hidden_size=8, freeze_embeddings=True)
    student = build_student(settings, read_model_info(str(teacher_of(family))), RTE, seed=3)
    reader = AutoTokenizer.from_pretrained(teacher_of(family))
    inputs = reader("a small dog", "her brother", return_tensors="pt")
    hidden = student.eval()(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True
    ).hidden_states
    assert [layer.shape[-1] for layer in hidden] == [8, 8, 8]
    assert not student.get_input_embeddings().weight.requires_grad
    shapes = {tuple(value.shape) for block in blocks(student) for value in block.parameters()}
    assert shapes == {(8, 8), (16, 8), (8, 16), (8,), (16,)}, "the inner layers are twice as wide, as the teacher's"


def test_a_familys_positions_and_what_is_no_such_encoder(base_of, tmp_path):
    found = {family: positions_of(AutoConfig.from_pretrained(base_of(family))) for family in families.FAMILIES}
    assert found == dict.fromkeys(families.FAMILIES, 64) | {"deberta-v2": None}
    nested = families.write_base(tmp_path / "nested", "albert", inner_group_num=2)
    with pytest.raises(InputError, match="has 2 layers in each group"):
        read_model_info(str(nested))


def test_a_heads_rows_follow_the_teachers_own_order_of_labels(teacher_of, tmp_path):
    """A student that starts from its teacher's head gives the teacher's logit for each label, not for each row."""
    swapped = tmp_path / "swapped"
    model = AutoModelForSequenceClassification.from_pretrained(teacher_of("roberta"))
    model.config.id2label = {0: "not_entailment", 1: "entailment"}
    model.save_pretrained(swapped)
    AutoTokenizer.from_pretrained(teacher_of("roberta")).save_pretrained(swapped)
    student = build_student(Student(layers=4, start="teacher"), read_model_info(str(swapped)), RTE, seed=0).eval()
    inputs = {"input_ids": torch.tensor([[0, 40, 41, 2]]), "attention_mask": torch.ones(1, 4)}
    with torch.no_grad():
        torch.testing.assert_close(student(**inputs).logits, model.eval()(**inputs).logits.flip(-1))
    assert student.config.id2label == {0: "entailment", 1: "not_entailment"}


@pytest.mark.parametrize("family", families.MORE)
def test_the_layers_and_the_head_of_more_families(family, tmp_path):
    """Wherever the family's head stands, whatever its names on disk and with its entry for each layer."""
    folder = families.write_classifier(tmp_path / "teacher", family, ["not_entailment", "entailment"])
    info = read_model_info(str(folder))
    assert info.positions in (64, None)
    inputs = {"input_ids": torch.tensor([[2, 9, 12, 3], [2, 7, 3, 0]])}
    inputs["attention_mask"] = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    source = load_finished(folder)
    with torch.no_grad():
        whole = build_student(Student(layers=4, start="teacher"), info, RTE, seed=0).eval()
        torch.testing.assert_close(whole(**inputs).logits, source(**inputs).logits.flip(-1))

        student = build_student(Student(layers=2, start="every_other", model=str(folder)), info, RTE, seed=0).eval()
        lists = [name for name, part in student.named_modules() if isinstance(part, torch.nn.ModuleList)]
        (layers,) = (name for name in lists if len(source.get_submodule(name)) == 4)
        for own, number in zip(student.get_submodule(layers), (0, 2), strict=True):
            assert same(own, source.get_submodule(layers)[number])
        for name in ("layer_types", "attention_window"):
            if isinstance(entries := getattr(source.config, name, None), list):
                assert getattr(student.config, name) == [entries[0], entries[2]]
        student.save_pretrained(tmp_path / "student")
        torch.testing.assert_close(load_finished(tmp_path / "student")(**inputs).logits, student(**inputs).logits)


@pytest.mark.parametrize("family", ["distilbert", "electra"])
def test_a_student_of_another_family_that_reads_the_same_tokens(
    family, base_of, teacher_of, glue, load_settings, tmp_path
):
    settings = load_settings(**{"data.max_length": 60, "student.model": base_of(family)})
    bench = workbench(settings, teacher_of("bert"), glue, tmp_path / "memory")
    distiller = bench.distiller(resolve(settings), 2)
    assert distiller.model.config.model_type == family
    assert same(
        blocks(distiller.model)[1], blocks(AutoModelForSequenceClassification.from_pretrained(base_of(family)))[1]
    )
    records = [distiller.train_to_next_evaluation(), distiller.train_to_next_evaluation()]
    assert all(np.isfinite(record["loss"]) for record in records)
    assert records[1]["loss/intra"] < records[0]["loss/intra"]
    folder = write_model(
        tmp_path / "student", distiller.model, AutoTokenizer.from_pretrained(bench.spec.teacher.path), {}
    )
    reader = AutoTokenizer.from_pretrained(folder)
    assert ("token_type_ids" in reader("a dog")) == (family == "electra"), "DistilBERT has no token types"
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.model_type == family


def test_a_random_student_of_a_family_with_other_tokens_reads_its_teachers(
    base_of, teacher_of, glue, load_settings, tmp_path
):
    overrides = {"student.model": base_of("roberta"), "student.start": "random", "student.memory_start": "published"}
    settings = load_settings(**overrides | {"data.max_length": 60})
    bench = workbench(settings, teacher_of("bert"), glue, tmp_path / "memory")
    distiller = bench.distiller(resolve(settings), 1)
    config = distiller.model.config
    words = len(AutoTokenizer.from_pretrained(teacher_of("bert")))
    assert (config.model_type, config.vocab_size, config.pad_token_id) == ("roberta", words, 0)
    assert np.isfinite(distiller.train_to_next_evaluation()["loss"])


def test_what_a_student_of_another_family_must_share_is_said_before_work_starts(
    base_of, teacher_of, glue, load_settings, tmp_path
):
    teacher = teacher_of("bert")

    def problems(**overrides):
        with pytest.raises(InputError) as error:
            load_inputs(load_settings(**overrides), "rte", str(teacher), glue)
        return list(error.value.problems)

    roberta = base_of("roberta")
    (line,) = problems(**{"student.model": roberta})
    assert line.startswith(f"student.model: {roberta} does not have the tokens of the teacher's tokenizer: ")
    assert (
        "'[PAD]', which has id 0 in the teacher's tokenizer and is missing in the model's; give a --student-model"
        in line
    )

    # The same words with other numbers, and the same numbers with another way of cutting.
    shuffled, otherwise, bare = (families.write_base(tmp_path / name, "distilbert") for name in ("s", "o", "b"))
    reader = AutoTokenizer.from_pretrained(teacher)
    vocabulary = reader.get_vocab()
    vocabulary["the"], vocabulary["dog"] = vocabulary["dog"], vocabulary["the"]
    type(reader)(vocab=vocabulary).save_pretrained(shuffled)
    (line,) = problems(**{"student.model": shuffled})
    assert "2 of its 44 tokens have another id, such as 'dog'" in line
    blunt = Tokenizer.from_str(reader.backend_tokenizer.to_str())
    blunt.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {f"{name}_token": getattr(reader, f"{name}_token") for name in ("pad", "unk", "cls", "sep")}
    PreTrainedTokenizerFast(tokenizer_object=blunt, **special).save_pretrained(otherwise)
    (line,) = problems(**{"student.model": otherwise})
    assert "is tokenised differently" in line and "train.tsv" in line
    for path in (bare / "tokenizer.json", bare / "tokenizer_config.json"):
        path.unlink()
    (line,) = problems(**{"student.model": bare})
    assert line.startswith(f"student.model: {bare} holds no tokenizer")

    both = problems(**{"student.model": roberta, "student.layers": 4, "data.max_length": 100})
    assert [line.split(":")[0] for line in both] == ["data.max_length", "student.model"]
    (line,) = problems(**{"student.model": roberta, "student.start": "teacher"})
    assert line.endswith("leave it out.")


def test_norms_are_not_decayed_whatever_their_class(teacher_of):
    for family in families.FAMILIES:
        model = AutoModelForSequenceClassification.from_pretrained(teacher_of(family))
        decayed, plain = build_optimizer(model, None, 0.1).param_groups
        names = {id(value): name for name, value in model.named_parameters()}
        assert not {names[id(value)] for value in decayed["params"] if "norm" in names[id(value)].lower()}
        expected = {name for name in names.values() if "norm" in name.lower() or name.endswith("bias")}
        assert {names[id(value)] for value in plain["params"]} == expected
