"""What people get wrong: each case gives clear lines that name the file or flag, exit code 2, and changes nothing.

A row of a table is a name, a command, what is damaged before, and how each line begins. In commands, paths and lines
`{t}` is a teacher's folder, `{s}` a student's, `{g}` the data, `{y}` a space, `{r}` a finished search, `{w}` the
folder of all of these, `{o}` a new output.
"""

import hashlib
import json
import shlex
import shutil
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

from tests.helpers import glue_folders, result_folders, tiny
from tests.helpers.searching import SPACE

EVALUATE = "evaluate --student {s} --task rte --data {g}"
PREDICT = "predict --student {s} --task rte --data {g} --output {o}"
TEACHER = "teacher --model {w}/base --task rte --data {g} --output {o} --max-length 32"
MEMORY = "memory {y} --teacher {t} --task rte --data {g} --memory {o}"
DISTILL = "distill --method kd --student-layers 2 --data-max-length 32 --teacher {t} --task rte --data {g} --output {o}"
SEARCH = "search {y} --teacher {t} --task rte --data {g} --output {o}"
SWEEP = "sweep-config {y} --teacher {t} --task rte --data {g}"
VALIDATE = "validate {y}"
HEADER = "index\tsentence1\tsentence2\tlabel\n"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound")
    glue_folders.write_glue(root / "glue", train=9, dev=9, test=4)
    tiny.write_base(root / "base", layers=3)
    tiny.write_teacher(root / "teacher", None, layers=3)
    shutil.copytree(root / "teacher", root / "student")
    (root / "student/fsd_tune.json").write_text(json.dumps({"task": "rte", "max_length": 32, "precision": "float32"}))
    (root / "space.yaml").write_text(SPACE)
    result_folders.write_search(root / "search", trials=3, study=False)
    (root / "search/settings.yaml").write_text(SPACE)
    return root


class World:
    """A copy of everything, to be damaged."""

    def __init__(self, root, template):
        self.root = root
        shutil.copytree(template, root, dirs_exist_ok=True)
        (root / "teacher/fsd_tune.json").write_text(json.dumps({"base": str(root / "base")}))
        summary = json.loads((root / "search/summary.json").read_text())
        given = {"teacher": str(root / "teacher"), "data": str(root / "glue")}
        summary["inputs"] = {"task": "rte", "memory": None, "device": "cpu"} | given
        summary["identity"] = {"settings": {}, "teacher": "", "training split": "", "dev split": ""}
        (root / "search/summary.json").write_text(json.dumps(summary))
        names = {"t": "teacher", "s": "student", "g": "glue", "y": "space.yaml", "r": "search", "o": "out"}
        self.names = {key: str(root / name) for key, name in names.items()} | {"w": str(root)}

    def filled(self, text):
        return text.format(**self.names) if "{" in text else text

    def damage(self, how):
        """Files by path: their content, None to delete, a function of the path; or a function of this world."""
        if callable(how):
            return how(self)
        for name, content in how.items():
            path = self.root / name
            if content is None:
                (shutil.rmtree if path.is_dir() else type(path).unlink)(path)
            elif callable(content):
                content(path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return None

    def snapshot(self):
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            for path in sorted(self.root.rglob("*"))
        }


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """A search that is not refused ends here, and does not run."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")


def check(fsd_tune, tmp_path, template, case):
    command, damage, *expected = case
    world = World(tmp_path, template)
    world.damage(damage)
    before = world.snapshot()
    code, out, err = fsd_tune(*map(world.filled, shlex.split(command)))
    assert (code, out) == (2, ""), err
    errors = [line for line in err if line.startswith("error: ")]
    starts = ["error: " + world.filled(line) for line in expected]
    assert len(errors) == len(starts), err
    for line, start in zip(errors, starts, strict=True):
        assert line.startswith(start), (line, start)
        # Paths of the test's own folder are long; what is said of them is not.
        assert len(line.replace(str(tmp_path), "")) < 400
    # Besides the errors there is at most one hint; lines of progress are indented.
    hints = [line for line in err if not line.startswith(("error: ", "  "))]
    assert len(hints) <= 1 and "Traceback" not in "".join(err), err
    assert world.snapshot() == before


def config(name="teacher", remove=(), **changes):
    """Changes the entries of a model's config.json."""

    def change(world):
        path = world.root / name / "config.json"
        held = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in held.items() if key not in remove}))

    return change


def weights(change, name="teacher"):
    """Changes the tensors of a model's folder."""

    def write(world):
        path = world.root / name / "model.safetensors"
        held = load_file(path)
        change(held)
        save_file(held, path, metadata={"format": "pt"})

    return write


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def folder(path):
    if path.is_file():
        path.unlink()
    path.mkdir()


def pickled(world):
    """Weights that only Python's pickle can read, which could run anything."""
    held = load_file(world.root / "teacher/model.safetensors")
    torch.save(held, world.root / "teacher/pytorch_model.bin")
    (world.root / "teacher/model.safetensors").unlink()


def decoder(world):
    model = GPT2ForSequenceClassification(
        GPT2Config(vocab_size=60, n_positions=64, n_embd=16, n_layer=3, n_head=2, pad_token_id=0)
    )
    model.save_pretrained(world.root / "teacher")


def without_a_head(world):
    """The pretrained model itself: loading it would make up a head."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(world.root / "base" / name, world.root / "teacher" / name)


def teacher_with(**more):
    def write(world):
        shutil.rmtree(world.root / "teacher")
        tiny.write_teacher(world.root / "teacher", world.root / "base", **more)

    return write


def no_tokenizer(world):
    for path in [*(world.root / "teacher").glob("*tok*"), *(world.root / "teacher").glob("vocab*")]:
        path.unlink()


def larger_tokenizer(world):
    small = tiny.config(3, num_labels=2)
    small.vocab_size = 9
    model = BertForSequenceClassification(small)
    model.save_pretrained(world.root / "teacher")


def space(change):
    """Changes the mapping of the space."""

    def write(world):
        path = world.root / "space.yaml"
        held = yaml.safe_load(path.read_text())
        change(held)
        path.write_text(yaml.safe_dump(held))

    return write


def line(*texts):
    """A further line below the space."""
    return {"space.yaml": SPACE + "".join(text + "\n" for text in texts)}


def yaml_of(text):
    return {"space.yaml": text}


def tsv(name, text):
    return {f"glue/{name}": text}


ROW = "0\ta b\tc d\tentailment\n"
DATA = {
    "no folder": (EVALUATE, {"glue": None}, "{g}: no such folder, must be the folder that holds RTE/"),
    "a file": (EVALUATE.replace("{g}", "{y}"), {}, "{y}: is a file, must be the folder that holds RTE/"),
    "another folder": (EVALUATE.replace("{g}", "{t}"), {}, "{t}: holds no folder, but needs RTE/"),
    "no task's folder": (
        TEACHER,
        {"glue/RTE": None},
        "{g}: holds AX/, CoLA/, MNLI/, MRPC/, QNLI/, QQP/, SST-2/, STS-B/, WNLI/, but needs RTE/.",
    ),
    "two folders for one": (
        EVALUATE,
        {"glue/RTE": None, "glue/rte/dev.tsv": HEADER, "glue/R-te/dev.tsv": HEADER},
        "{g}: `R-te`, `rte` all name rte; keep one, best as `RTE`",
    ),
    "no dev": (EVALUATE, {"glue/RTE/dev.tsv": None}, "{g}/RTE/dev.tsv: no such file; its folder holds test.tsv"),
    "no train and no dev": (
        SEARCH,
        {"glue/RTE/dev.tsv": None, "glue/RTE/train.tsv": None},
        "{g}/RTE/train.tsv: no such file",
        "{g}/RTE/dev.tsv: no such file",
    ),
    "a folder for a file": (EVALUATE, {"glue/RTE/dev.tsv": folder}, "{g}/RTE/dev.tsv: is a folder, must be a file"),
    "empty": (EVALUATE, tsv("RTE/dev.tsv", ""), "{g}/RTE/dev.tsv: is empty"),
    "header alone": (TEACHER, tsv("RTE/train.tsv", HEADER), "{g}/RTE/train.tsv: has no examples"),
    "no header": (EVALUATE, tsv("RTE/dev.tsv", ROW), "{g}/RTE/dev.tsv:1: the header has"),
    "misspelt column": (
        EVALUATE,
        tsv("RTE/dev.tsv", HEADER.replace("label", "lable") + ROW),
        "{g}/RTE/dev.tsv:1: the header has",
    ),
    "missing column": (EVALUATE, tsv("RTE/dev.tsv", HEADER + "0\ta\tentailment\n"), "{g}/RTE/dev.tsv:2: 3 columns"),
    "extra column": (EVALUATE, tsv("RTE/dev.tsv", HEADER + ROW + "1\t" + ROW), "{g}/RTE/dev.tsv:3: 5 columns, but"),
    "commas": (EVALUATE, tsv("RTE/dev.tsv", (HEADER + ROW).replace("\t", ",")), "{g}/RTE/dev.tsv:1: the header has"),
    "unknown label": (MEMORY, tsv("RTE/train.tsv", HEADER + ROW.replace("ent", "Ent")), "{g}/RTE/train.tsv:2: label: "),
    "no label": (EVALUATE, tsv("RTE/dev.tsv", HEADER + "0\ta\tb\t\n"), "{g}/RTE/dev.tsv:2: label: an empty cell"),
    "words for numbers": (
        EVALUATE.replace("rte", "sst2"),
        tsv("SST-2/dev.tsv", "sentence\tlabel\na\tpositive\n"),
        "{g}/SST-2/dev.tsv:2: label: `positive`, must be one of 0, 1.",
    ),
    "score of 6": (
        EVALUATE.replace("rte", "stsb"),
        tsv("STS-B/dev.tsv", "sentence1\tsentence2\tscore\na\tb\t6\n"),
        "{g}/STS-B/dev.tsv:2: score: 6, must be from 0 to 5",
        "--student: {s} has 2 labels (LABEL_0, LABEL_1), but stsb has 1 (regression).",
    ),
    "score in words": (
        TEACHER.replace("rte", "stsb"),
        tsv("STS-B/train.tsv", "sentence1\tsentence2\tscore\na\tb\tnan\n"),
        "{g}/STS-B/train.tsv:2: score: nan, must be from 0 to 5",
    ),
    "header in CoLA": (
        TEACHER.replace("rte", "cola"),
        tsv("CoLA/train.tsv", "sentence\tlabel\na\t1\n"),
        "{g}/CoLA/train.tsv:1: 2 columns, but must be 4",
        "{g}/CoLA/train.tsv:2: 2 columns",
    ),
    "all skipped": (
        TEACHER.replace("rte", "qqp"),
        tsv("QQP/train.tsv", "question1\tquestion2\tis_duplicate\na\tb\n"),
        "{g}/QQP/train.tsv: has no examples (1 row skipped)",
    ),
    "MRPC without ids": (
        TEACHER.replace("rte", "mrpc"),
        {"glue/MRPC": None, "glue/MRPC/msr_paraphrase_train.txt": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"},
        "{g}/MRPC/dev_ids.tsv: no such file",
    ),
    "Latin 1": (
        EVALUATE,
        tsv("RTE/dev.tsv", (HEADER + ROW).encode() + b"1\tcaf\xe9\tb\tentailment\n"),
        "{g}/RTE/dev.tsv:3: byte",
    ),
    "UTF-16": (EVALUATE, tsv("RTE/dev.tsv", (HEADER + ROW).encode("utf-16")), "{g}/RTE/dev.tsv:1: is UTF-16, must be"),
    "an archive": (EVALUATE, tsv("RTE/dev.tsv", b"PK\x03\x04\xff\xfe\x00\x00"), "{g}/RTE/dev.tsv:1: byte"),
    "NUL bytes": (EVALUATE, tsv("RTE/dev.tsv", bytes(512)), "{g}/RTE/dev.tsv:1: the header has"),
    "no test split": (PREDICT, {"glue/RTE/test.tsv": None}, "{g}/RTE/test.tsv: no such file"),
    "empty test split": (PREDICT, tsv("RTE/test.tsv", "index\tsentence1\tsentence2\n"), "{g}/RTE/test.tsv: has no"),
    "holes in a test split": (
        PREDICT.replace("rte", "qqp"),
        tsv("QQP/test.tsv", "id\tquestion1\tquestion2\n0\ta\n1\ta\tb\n"),
        "{g}/QQP/test.tsv: 1 rows have missing columns",
    ),
}
MODELS = {
    "no folder": (
        EVALUATE,
        {"student": None},
        "--student: {s} is no folder, but must be a model's folder or a hub id.",
    ),
    "a file": (SEARCH.replace("{t}", "{y}"), {}, "--teacher: {y} is no folder"),
    "no name": (TEACHER.replace("{w}/base", "''"), {}, "--model: is empty, but must be a model's folder or a hub"),
    "an empty folder": (
        SEARCH,
        {"teacher": None, "teacher/x": ""},
        "--teacher: {t} holds no config.json",
        "--teacher: {t} holds no tokenizer",
        "--teacher: {t} holds no weights",
    ),
    "no config": (EVALUATE, {"student/config.json": None}, "--student: {s} holds no config.json"),
    "config cut short": (TEACHER, {"base/config.json": cut}, "--model: {w}/base/config.json cannot be used: "),
    "config is a list": (SEARCH, {"teacher/config.json": "[]"}, "--teacher: {t}/config.json cannot be used: "),
    "config is not UTF-8": (
        SEARCH,
        {"teacher/config.json": b"\xff\xfe{}"},
        "--teacher: {t}/config.json cannot be used",
    ),
    "unknown kind": (SEARCH, config(model_type="brt"), "--teacher: {t}/config.json cannot be used: "),
    "kind of number": (SEARCH, config(num_hidden_layers="3"), "--teacher: {t}"),
    "negative layers": (SEARCH, config(num_hidden_layers=-3), "--teacher: {t}"),
    "a decoder": (SEARCH, decoder, "--teacher: {t} is a gpt2"),
    "no head": (SEARCH, without_a_head, "--teacher: {t} has no classification head"),
    "no head of a student": (
        PREDICT.replace("{s}", "{w}/base"),
        {},
        "--student: {w}/base has no classification head",
    ),
    "no tokenizer": (MEMORY, no_tokenizer, "--teacher: {t} holds no tokenizer"),
    "broken tokenizer": (DISTILL, {"teacher/tokenizer.json": "{"}, "--teacher: the tokenizer in {t} cannot be loaded"),
    "broken tokenizer of a student": (
        EVALUATE,
        {"student/tokenizer.json": "{"},
        "--student: the tokenizer in {s} cannot be loaded",
    ),
    "broken tokenizer of a model": (
        TEACHER,
        {"base/tokenizer.json": "{"},
        "--model: the tokenizer in {w}/base cannot be loaded",
    ),
    "another tokenizer": (SEARCH, larger_tokenizer, "--teacher: the tokenizer in {t} has"),
    "no weights": (EVALUATE, {"student/model.safetensors": None}, "--student: {s} holds no weights"),
    "weights cut short": (SEARCH, {"teacher/model.safetensors": cut}, "--teacher: {t}/model.safetensors is damaged: "),
    "weights cut short in a model": (
        TEACHER,
        {"base/model.safetensors": cut},
        "--model: {w}/base/model.safetensors is",
    ),
    "empty weights": (PREDICT, {"student/model.safetensors": b""}, "--student: {s}/model.safetensors is damaged: "),
    "a page for weights": (
        DISTILL,
        {"teacher/model.safetensors": "<html>" * 99},
        "--teacher: {t}/model.safetensors is",
    ),
    "pickled weights": (SEARCH, pickled, "--teacher: {t} holds its weights as a pickle"),
    "weights of another width": (SEARCH, config(hidden_size=8), "--teacher: {t} has 53 weights of another shape"),
    "a layer is missing": (SEARCH, config(num_hidden_layers=4), "--teacher: {t} lacks 16 of the weights"),
    "three labels": (
        SEARCH,
        teacher_with(num_labels=3),
        "--teacher: {t} has 3 labels (LABEL_0, LABEL_1, LABEL_2), but",
    ),
    "other words": (
        DISTILL,
        teacher_with(id2label={0: "yes", 1: "no"}),
        "--teacher: {t} has the labels yes, no, but rte has",
    ),
    "words of a student": (
        PREDICT,
        config("student", id2label={0: "yes", 1: "no"}),
        "--student: {s} has the labels yes, no, but rte has",
    ),
    "the same word twice": (
        SEARCH,
        config(id2label={0: "entailment", 1: "entailment"}),
        "--teacher: {t} has the labels",
    ),
    "no base": (SEARCH, {"teacher/fsd_tune.json": "{}"}, "student.model: {t} does not record the pretrained model"),
    "record cut short": (SEARCH, {"teacher/fsd_tune.json": cut}, "student.model: {t} does not record the pretrained"),
    "base moved": (SEARCH, {"base": None}, "student.model: the base that {t} records: {w}/base is no folder"),
    "fewer layers than a published script compares": (
        DISTILL.replace("kd", "fsd_i") + " --published true --loss-layers [[11,5]]",
        {},
        "--loss-layers: [0]: found student layer 5, but must be in 0..2.",
    ),
    "fewer layers of the teacher than of a listed pair": (
        DISTILL.replace("kd", "fsd_i") + " --published true --loss-layers [[12,2]]",
        {},
        "loss.layers: found the pair [12, 2], but the teacher has layers 0..3 and the student 0..2.",
    ),
    "a space of the paper for a small teacher": (
        "search paper/fsd_g --data-max-length 32 --teacher {t} --task rte --data {g} --output {o}",
        {},
        "student.layers: found 6, but must be at most the teacher's 3.",
    ),
    "a teacher of the paper without its model": (
        "paper --teacher {t} --small --task rte --data {g} --output {o} --systems vkd,fsd",
        {"teacher/fsd_tune.json": "{}"},
        "--model: is missing, and {t} does not record the model that it was fine-tuned from.",
    ),
    "a folder with the paper's protocol of another size": (
        "paper --teacher {t} --small --task rte --data {g} --output {w}/paper --systems vkd",
        lambda world: [
            glue_folders.write_glue(world.root / "more", train=40, dev=9, tasks=("rte",)),
            shutil.copytree(world.root / "more/RTE", world.root / "glue/RTE", dirs_exist_ok=True),
            world.damage(
                {
                    "paper/rte/teacher-holdout/fsd_tune.json": json.dumps(
                        {"base": str(world.root / "base"), "max_length": 128, "config": {"epochs": 3}}
                    )
                }
            ),
        ],
        "--output: {w}/paper/rte/teacher-holdout was trained with another --model or --small; give a new folder.",
    ),
    "a system of the paper twice": (
        "paper --model {w}/base --small --task rte --data {g} --output {o} --systems vkd,vkd",
        {},
        "--systems: found vkd more than once.",
    ),
    "nothing is searched": (
        "search {y} --teacher {t} --task rte --data {g} --output {o}",
        yaml_of("method: kd\nspace: {alpha: 0.5, temperature: 5}\nstudent: {layers: 2}\ndata: {max_length: 32}\n"),
        "space: nothing is searched, so all 64 trials would be the same: give a hyperparameter a range or a choice, "
        "or train one student with `fsd-tune distill`.",
    ),
    "no layers left": (
        SEARCH + " --student-layers 4",
        {},
        "student.layers: found 4, but must be at most the teacher's 3.",
    ),
    "too long": (TEACHER + "0", {}, "--max-length: found 320, but the model takes at most 64."),
    "diverged": (
        EVALUATE,
        weights(lambda held: held["classifier.bias"].fill_(float("nan")), "student"),
        "--student: {s} gives logits that are not finite for 9 of 9 examples of {g}/RTE/dev.tsv",
    ),
}
FOLDERS: dict[str, tuple[Any, ...]] = {
    "report: no folder": ("report {w}/none", {}, "{w}/none: no such folder"),
    "report: a file": ("report {y}", {}, "{y}: is a file"),
    "report: no search": ("report {g}", {}, "{g}: holds no search"),
    "report: damaged summary": ("report {r}", {"search/summary.json": cut}, "{r}/summary.json: is not JSON"),
    "report: summary is a list": ("report {r}", {"search/summary.json": "[]"}, "{r}/summary.json: holds a list"),
    "report: damaged settings": ("report {r}", {"search/settings.yaml": "a: ["}, "{r}/settings.yaml: is not YAML"),
    "report: a folder in the way": (
        "report {r}",
        {"search/leaderboard.csv/x": ""},
        "{r}/leaderboard.csv: Is a directory; give another path.",
    ),
    "resume: no folder": ("resume {w}/none", {}, "{w}/none: holds no search that has begun"),
    "resume: a file": ("resume {y}", {}, "FOLDER: {y} is a file, but must be the `--output` folder"),
    "resume: damaged summary": ("resume {r}", {"search/summary.json": cut}, "{r}/summary.json: cannot be read"),
    "resume: no settings": ("resume {r}", {"search/settings.yaml": None}, "{r}/settings.yaml: no such file"),
    "resume: damaged settings": ("resume {r}", {"search/settings.yaml": "method: [\n"}, "{r}/settings.yaml:"),
    "resume: another setting": ("resume {r} --alpha 0.1", {}, "--alpha: cannot change in a search that has begun"),
    "resume: data gone": ("resume {r}", {"glue": None}, "{g}: no such folder"),
    "resume: teacher gone": ("resume {r}", {"teacher": None}, "--teacher: {t} is no folder"),
    "confirm: a file": ("confirm {y}", {}, "FOLDER: {y} is a file, but must be the `--output` folder"),
    "confirm: damaged summary": ("confirm {r}", {"search/summary.json": cut}, "{r}/summary.json: is not JSON"),
    "confirm: not finished": ("confirm {r}", {"search/summary.json": '{"state": "running"}'}, "{r} is running, but"),
    "confirm: no trial": ("confirm {r}", {"search/results": None}, "{r} has no finished trial."),
    "confirm: counts": (
        "confirm {r} --top 0 --seeds 0 --fresh-seeds 1",
        {"search/results": None},
        "--top: found 0",
        "--seeds: found 0",
        "--fresh-seeds: found 1",
        "{r} has no finished trial.",
    ),
    "confirm: baseline": (
        "confirm {r} --baseline {g}",
        {"search/results": None},
        "{r} has no",
        "--baseline: {g}: holds no search",
    ),
    "compare: one": ("compare {r} --output {o}", {}, "compare: needs at least two searches' folders."),
    "compare: no search": ("compare {r} {g} --output {o}", {}, "{g}: holds no search"),
    "compare: damaged": (
        "compare {r} {r} --output {o}",
        {"search/summary.json": cut},
        "{r}/summary.json: is not JSON",
    ),
    "compare: a file": ("compare {r} {r} --output {y}", {}, "--output: {y} is a file, but must be a folder or new."),
    "compare: W&B": ("compare {r} wandb:x --output {o}", {}, "wandb:x"),
    "search: another's folder": (
        SEARCH.replace("{o}", "{g}"),
        {},
        "--output: {g} holds other files; give a new folder",
    ),
    "search: damaged summary": (SEARCH.replace("{o}", "{r}"), {"search/summary.json": cut}, "--output: {r}"),
    "search: another search": (SEARCH.replace("{o}", "{r}"), {}, "--output: {r} holds another search"),
    "search: a file": (SEARCH.replace("{o}", "{y}"), {}, "--output: {y} is a file"),
    "search: below a file": (SEARCH.replace("{o}", "{y}/x"), {}, "--output: {y}/x cannot be made"),
    "search: earlier searches": (
        SEARCH + " --warm-from {g},{w}/none",
        {},
        "search.warm_from: {g}: holds no search",
        "search.warm_from: {w}/none: no such folder",
    ),
    "search: memory is a file": (SEARCH + " --memory {y}", {}, "--memory: {y} is a file"),
    "search: memory below a file": (SEARCH + " --memory {y}/x", {}, "--memory: {y}/x cannot be made"),
    "memory: below a file": (MEMORY.replace("{o}", "{y}/x"), {}, "--memory: {y}/x cannot be made"),
    "distill: another's folder": (
        DISTILL.replace("{o}", "{g}"),
        {},
        "--output: {g} is also --data {g}, which it would replace",
    ),
    "distill: a model": (
        DISTILL.replace("{o}", "{s}"),
        {},
        "--output: {s} holds a model; give a new folder, or --over",
    ),
    "distill: sweep": (DISTILL.replace("{o}", "{o}/{{run}}"), {}, "--output: found {o}/{{run}}, but"),
    "teacher: another's folder": (
        TEACHER.replace("{o}", "{g}"),
        {},
        "--output: {g} is also --data {g}, which it would replace",
    ),
    "predict: another's folder": (PREDICT.replace("{o}", "{g}"), {}, "--output: {g} holds other files (AX)"),
    "predict: a file": (PREDICT.replace("{o}", "{y}"), {}, "--output: {y} is a file, but must be a folder or new."),
    "sync: no runs": ("sync {r}", {}, "{r}: holds no offline runs"),
    "sync: no folder": ("sync {w}/none", {}, "{w}/none: no such folder"),
    "sweep-config: file is a folder": (SWEEP + " --file {g}", {}, "--file: {g} is a folder"),
    "sweep-config: below a file": (SWEEP + " --file {y}/x", {}, "--file: {y}/x cannot be"),
    "sweep-config: output": (SWEEP + " --output {y}", {}, "--output: {y} is a file"),
    "demo: a file": ("demo --folder {y}", {}, "--folder: {y} is a file"),
    "status: no file": ("status {w}/none", {}, "{w}/none: no such file"),
    "logs: no YAML": ("logs {w}/c.yaml", {"c.yaml": "a: ["}, "{w}/c.yaml:1: is not YAML"),
    "stop: no provider": ("stop {y}", {}, "{y}: provider: is missing"),
    "fetch: a list": ("fetch {w}/c.yaml x", {"c.yaml": "[]"}, "{w}/c.yaml:1: found a list, but must be a map"),
    "submit: Kubernetes": ("submit {w}/c.yaml search x", {"c.yaml": "kind: a\napiVersion: b"}, "{w}/c.yaml: is a Kub"),
}
YAMLS = {
    "no file": ("validate {w}/none.yaml", {}, "{w}/none.yaml: no such file."),
    "a folder": ("validate {g}", {}, "{g}: is a folder"),
    "empty": (VALIDATE, yaml_of(""), "{y}:"),
    "a list": (VALIDATE, yaml_of("[1]"), "{y}:"),
    "tabs": (VALIDATE, yaml_of("method: kd\nspace:\n\talpha: 1\n"), "{y}:3"),
    "not UTF-8": (VALIDATE, yaml_of(b"method: caf\xe9"), "{y}"),
    "UTF-16": (VALIDATE, yaml_of("method: kd".encode("utf-16")), "{y}"),
    "NUL bytes": (VALIDATE, yaml_of(bytes(9)), "{y}"),
    "no end": (VALIDATE, yaml_of("method: {choice: [kd\n"), "{y}:"),
    "two documents": (VALIDATE, yaml_of(SPACE + "---\n" + SPACE), "{y}:"),
    "Python": (VALIDATE, line("wandb: !!python/object/apply:os.system [x]"), "{y}:20: wandb"),
    "a bomb": (
        VALIDATE,
        yaml_of(
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{n}: &{n} [{', '.join(['*' + m] * 9)}]\n" for m, n in zip("abcdef", "bcdefg", strict=True))
        ),
        "{y}",
    ),
    "too large": (VALIDATE, yaml_of("# " + "x" * 300_000), "{y}"),
    "twice": (VALIDATE, line("method: kd"), "{y}:20: method: found twice, on lines 2 and 20"),
    "unknown key": (VALIDATE, line("saerch: {trials: 3}"), "{y}:20: saerch: unknown key"),
    "published by another script": (
        VALIDATE,
        line("published: glue_with_cka_l.py"),
        "{y}:20: published: found glue_with_cka_l.py, which trains fsd_l, but method is fsd_ilg, kd, ce.",
    ),
    "published by no script": (
        VALIDATE,
        line("published: glue_with_cka.py"),
        "{y}:20: published: found text 'glue_with_cka.py', but must be true, false or one of glue_with_cka_i.py",
    ),
    "an unknown start among several": (
        VALIDATE,
        {"space.yaml": SPACE.replace("{layers: 2}", "{start: {choice: [copy, evry_other]}}")},
        "{y}:14: student.start.choice[1]: found text 'evry_other', but must be one of copy, every_other",
    ),
    "two of several depths over the teacher's": (
        SEARCH + " --student-layers '{{choice: [5, 2, 4]}}'",
        {},
        "student.layers: found 5, but must be at most the teacher's 3.",
        "student.layers: found 4, but must be at most the teacher's 3.",
    ),
    "a narrower student of a space of the paper": (
        "validate paper/fsd --student-start random --student-hidden-size 8",
        {},
        "--student-hidden-size: found 8, but must be null with `published`",
    ),
    "unknown space of the paper": (
        "validate paper/fds",
        {},
        "paper/fds: no such file; the shipped search spaces are demo, ",
    ),
    "unknown key in a section": (VALIDATE, space(lambda s: s["student"].update(layer=2)), "{y}:"),
    "unknown method": (VALIDATE, space(lambda s: s.update(method="fsd")), "{y}"),
    "no method": (VALIDATE, space(lambda s: s.pop("method")), "{y}:1: method: is missing"),
    "unknown hyperparameter": (VALIDATE, space(lambda s: s["space"].update(aplha=1)), "{y}"),
    "gamma": (VALIDATE, space(lambda s: s["space"].update(gamma=1)), "{y}"),
    "missing hyperparameter": (VALIDATE, space(lambda s: s["space"].pop("gamma_l")), "{y}"),
    "negative": (VALIDATE, space(lambda s: s["space"].update(temperature=-1)), "{y}"),
    "in words": (VALIDATE, space(lambda s: s["space"].update(epochs="three")), "{y}"),
    "upside down": (VALIDATE, space(lambda s: s["space"].update(alpha={"low": 0.9, "high": 0.1})), "{y}"),
    "log of nothing": (VALIDATE, space(lambda s: s["space"].update(gamma_l={"low": 0, "high": 1, "log": True})), "{y}"),
    "no choice": (VALIDATE, space(lambda s: s["space"].update(batch_size={"choice": []})), "{y}"),
    "half a range": (VALIDATE, space(lambda s: s["space"].update(alpha={"low": 0.1})), "{y}"),
    "space is a list": (VALIDATE, space(lambda s: s.update(space=[1])), "{y}"),
    "section is text": (VALIDATE, space(lambda s: s.update(student="small")), "{y}"),
    "true for a number": (VALIDATE, space(lambda s: s["search"].update(trials=True)), "{y}"),
    "half a trial": (VALIDATE, space(lambda s: s["search"].update(trials=2.5)), "{y}"),
    "grace over reports": (VALIDATE, space(lambda s: s["asha"].update(grace=9)), "{y}"),
    "time budget": (VALIDATE, space(lambda s: s["search"].update(time_budget="soon")), "{y}"),
    "holdout": (VALIDATE, space(lambda s: s["search"].update(select_on={"holdout": 2})), "{y}"),
    "first": (VALIDATE, space(lambda s: s["search"].update(first=[{"alhpa": 1}])), "{y}"),
    "layers": (VALIDATE, space(lambda s: s.update(loss={"layers": [[1]]})), "{y}"),
    "configuration: no file": (DISTILL + " --configuration {w}/none", {}, "{w}/none: no such file."),
    "configuration: a list": (DISTILL + " --configuration {w}/c", {"c": "[1]"}, "{w}/c:1: found a list, but must be a"),
    "configuration: unknown": (DISTILL + " --configuration {w}/c", {"c": '{"alhpa": 1}'}, "{w}/c:1: alhpa: unknown"),
    "configuration: too large": (
        DISTILL + " --configuration {w}/c",
        {"c": '{"alpha": 3}'},
        "{w}/c: alpha: found 3, but must be in 0..1.",
    ),
    "configuration: method": (DISTILL + " --configuration {w}/c", {"c": '{"method": "kdd"}'}, "{w}/c: method: found"),
    "configuration: a folder": (DISTILL + " --configuration {g}", {}, "{g}: is a folder, but must be a YAML"),
}
FLAGS: dict[str, tuple[Any, ...]] = {
    "limits that no shape meets": (
        SEARCH + " --limits '{{parameters: 10, flops: 10}}'",
        {},
        "search.limits.parameters: found 10, but must be at least ",
        "search.limits.flops: found 10, but must be at least ",
    ),
    "a latency of longer examples than models take": (
        SEARCH + " --limits '{{latency_ms: 5}}' --latency-length 65",
        {},
        "latency.length: found 65, but the models take at most 64.",
    ),
    "unknown verb": ("serach {y}", {}, "no such command 'serach'. Did you mean `search`?"),
    "unknown flag": (PREDICT + " --al", {}, "--al: unknown flag"),
    "nothing given": ("predict", {}, "--student: is missing", "--output: is missing"),
    "unknown task and system of the paper": (
        "paper --task rtx --model {w}/base --systems fsk --output {o}",
        {},
        "--task: found rtx, but must be among cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte, wnli, or all.",
        "--systems: found fsk, but must be among vkd, pkd, rkd, fsd_i, fsd_l, fsd_g, fsd_il, fsd. Did you mean `fsd`?",
    ),
    "no model of the paper": ("paper --task rte --data {g} --output {o}", {}, "--teacher: is missing"),
    "small model of the paper": (
        "paper --task rte --data {g} --model {w}/base --output {o}",
        {},
        "search.select_on: a holdout of 0.1 cannot be taken from the 9 rows",
        "--model: the protocol needs 128, but the model takes at most 64.",
        "--model: {w}/base has 3 layers, but the students have 6.",
    ),
    "no value": (SEARCH + " --trials", {}, "--trials: requires an argument."),
    "given twice": (SEARCH + " --trials 3 --search-trials 4", {}, "--search-trials: is given twice"),
    "unknown task": (EVALUATE.replace("rte", "rtee"), {}, "task: `rtee` is not a GLUE task"),
    "two tasks, one teacher": (SEARCH.replace("rte", "rte,cola"), {}, "--teacher: found {t}, but several tasks need"),
    "a task twice": (SEARCH.replace("rte", "rte,rte"), {}, "--task: found rte more than once.", "--teacher: found"),
    "two tasks, one student": (PREDICT.replace("rte", "rte,cola"), {}, "--student: found {s}, but several tasks need"),
    "neither task nor all": (PREDICT.replace("--task rte", ""), {}, "--task: give ids of GLUE tasks, or --all"),
    "task and all": (PREDICT + " --all", {}, "--task: give ids of GLUE tasks, or --all"),
    "all of one": (PREDICT.replace("--task rte", "--all"), {}, "--student: found {s}, but several tasks need"),
    "all of none": (
        "predict --all --student {w}/{{task}} --data {g} --output {o}",
        {},
        "--student: there is no folder",
    ),
    "negative rate": (
        TEACHER + " --learning-rate -1",
        {},
        "--learning-rate: found -1, but must be a number from 1e-12 to 1.",
    ),
    "no epochs": (TEACHER + " --epochs 0", {}, "--epochs: found 0, but must be a whole number from 1 to 1000."),
    "words for a number": (TEACHER + " --seed x", {}, "--seed: found x, but must be a whole number"),
    "whole holdout": (TEACHER + " --holdout 1", {}, "--holdout: found 1, but must be a number from 1e-09 to 0.5."),
    "alpha": (SEARCH + " --alpha 1.5", {}, "--alpha: found 1.5"),
    "method": (SEARCH + " --method fsd", {}, "--method: found text 'fsd'"),
    "text": (SEARCH + " --student-layers many", {}, "--student-layers: found"),
    "broken YAML": (SEARCH + " --alpha {{low:", {}, "--alpha: "),
    "device": (EVALUATE + " --device gpu", {}, "--device: found gpu, but must be auto, cpu or cuda."),
    "device of a search": (SEARCH + " --device tpu", {}, "--device: found tpu, but must be auto, cpu or cuda."),
    "precision": (PREDICT + " --precision fp16", {}, "--precision: found fp16, but must be auto, float32 or bf16."),
    "W&B": (TEACHER + " --wandb on", {}, "--wandb: found on, but must be off, offline or online."),
    "still searched": (DISTILL + " --alpha '{{low: 0, high: 1}}'", {}, "space.alpha"),
    "validate half": (VALIDATE + " --task rte", {}, "--task and --teacher: give both to check data and models, or"),
    "Ray's folder is a file": (SEARCH + " --address local --temp-dir {y}", {}, "--temp-dir: {y} is a file"),
    "Ray's folder is long": (SEARCH + " --address local --temp-dir {w}/" + "x" * 90, {}, "--temp-dir: "),
    "nobody answers": (SEARCH + " --address 127.0.0.1:9", {}, "--address: nobody answers at 127.0.0.1:9"),
    "too many CPUs": (SEARCH + " --cpus-per-trial 0", {}, "--cpus-per-trial: found 0"),
    "no such storage": (SEARCH.replace("{o}", "s4://b/x"), {}, "--output: found s4://, but must be a folder or a URI"),
    "a key in a URI": (SEARCH.replace("{o}", "s3://k:v@b/x"), {}, "--output: holds a key; take it out"),
    "memory without a bucket": (SEARCH + " --memory s3://", {}, "--memory: s3:// names no bucket."),
    "resume what is nowhere": ("resume s4://b/x", {}, "FOLDER: found s4://"),
    "report what is nowhere": ("report s4://b/x", {}, "URI: found s4://"),
    "compare what is nowhere": ("compare s4://b/x {r}", {}, "URI: found s4://"),
    "confirm what is nowhere": ("confirm s4://b/x", {}, "FOLDER: found s4://"),
    "fetch without a name": ("fetch cluster.yaml", {}, "NAME: is missing"),
    "fetch what is nowhere": ("fetch s4://b/x", {}, "URI: found s4://"),
}


@pytest.mark.parametrize("name", DATA)
def test_data(fsd_tune, tmp_path, template, name):
    check(fsd_tune, tmp_path, template, DATA[name])


@pytest.mark.parametrize("name", MODELS)
def test_models(fsd_tune, tmp_path, template, name):
    check(fsd_tune, tmp_path, template, MODELS[name])


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(fsd_tune, tmp_path, template, name):
    check(fsd_tune, tmp_path, template, FOLDERS[name])


@pytest.mark.parametrize("name", YAMLS)
def test_yamls(fsd_tune, tmp_path, template, name):
    check(fsd_tune, tmp_path, template, YAMLS[name])


@pytest.mark.parametrize("name", FLAGS)
def test_flags(fsd_tune, tmp_path, template, name):
    check(fsd_tune, tmp_path, template, FLAGS[name])
