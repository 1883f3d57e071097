"""The console script: what people read when something is wrong, exit codes, and how fast it answers."""

import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml

from fsd_tune.cli import app
from fsd_tune.cli.errors import Invocation, error_lines
from fsd_tune.data.batching import tokenize
from fsd_tune.data.splits import get_task, load_split
from fsd_tune.models.inference import predict
from fsd_tune.models.loading import load_classifier, load_tokenizer
from fsd_tune.settings import loader as settings
from tests import ROOT
from tests.helpers import result_folders, tiny

SCRIPT = Path(sys.executable).with_name("fsd-tune")
SPACES = ROOT / "search_spaces"
VERBS = (
    "teacher", "memory", "distill", "evaluate", "predict", "search", "confirm", "report", "validate", "demo", "analyze",
    "export", "measure",
)  # fmt: skip
HEAVY = ("torch", "ray", "transformers", "datasets", "optuna", "pandas", "sklearn", "huggingface_hub")
TEACHER = ("--max-length", "32", "--precision", "float32", "--quiet")
KD = "method: kd\nspace: {alpha: {low: 0, high: 1}, temperature: 5}\nstudent: {layers: 2}\ndata: {max_length: 32}\n"


def script(*arguments, **more):
    return subprocess.run([str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, **more)


@pytest.fixture
def kd(tmp_path):
    path = tmp_path / "kd.yaml"
    path.write_text(KD, encoding="utf-8")
    return path


# ---------------------------------------------------------------- help


def test_help_answers_at_once():
    """It costs little beside what starts Python and imports the libraries of the command line."""

    def seconds(*words):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime, done

    libraries = [seconds(sys.executable, "-c", "import click, pydantic, yaml")[0] for _ in range(3)]
    for arguments in ((), ("search",)):
        runs = [seconds(SCRIPT, *arguments, "--help") for _ in range(3)]
        assert all("Usage: fsd-tune" in done.stdout and done.stderr == "" for _, done in runs)
        assert min(cost for cost, _ in runs) < 8 * min(libraries), (arguments, libraries)


def test_light_verbs_import_nothing_heavy(tmp_path):
    """Help of every verb, a validation and wrong input, all in one interpreter: what is in sys.modules is the proof."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("method: kd\nspace: {alpha: 3, temperature: 5}\n", encoding="utf-8")
    demo = SPACES / "demo.yaml"
    commands = [
        *([verb, "--help"] for verb in VERBS),
        ["validate", str(demo), "--trials", "3"],
        ["validate", str(bad)],
        ["search", str(bad), "--task", "nope", "--teacher", str(tmp_path), "--data", str(tmp_path / "none")],
        ["search", str(demo)],
    ]
    code = f"""
import sys
from fsd_tune.cli import main as cli
for arguments in {commands!r}:
    sys.argv = ["fsd-tune", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        print("exit", end.code, file=sys.stderr)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    ends = [line for line in done.stderr.splitlines() if line.startswith("exit")]
    helps = len(VERBS)
    assert ends[helps:] == ["exit 0"] + ["exit 2"] * 3 and set(ends[:helps]) in ({"exit 0"}, {"exit None"})


def test_no_arguments_give_help(fsd_tune):
    code, out, err = fsd_tune()
    assert code == 0 and all(verb in out for verb in VERBS) and err == []


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serach"], ["error: no such command 'serach'. Did you mean `search`?"]),
        (
            ["search"],
            ["error: SPACE: is missing: Search-space", "error: --task: is missing: ", "error: --teacher: is missing"],
        ),
        (["search", "x.yaml", "--teacher", "t"], ["error: --task: is missing: GLUE task: cola sst2"]),
        (["validate", "x.yaml", "--trails", "3"], ["error: --trails: unknown flag. Did you mean `--trials`?"]),
        (["validate", "x.yaml", "--gamma", "1"], ["error: --gamma: unknown flag: there are `--gamma-m`, "]),
        (["evaluate", "--studnet", "x"], ["error: --studnet: unknown flag. Did you mean `--student`?"]),
        (["validate", "x.yaml", "--trials"], ["error: --trials: requires an argument."]),
        (["report", "a", "b"], ["error: got unexpected extra argument (b)"]),
        (["teacher", "--model", "m", "--epochs", "x"], ["error: --epochs: found x, but must be a whole number from"]),
        (["teacher", "--model", "m", "--epochs", "0"], ["error: --epochs: found 0, but must be a whole number from"]),
        (["teacher", "--model", "m", "--weight-decay", "inf"], ["error: --weight-decay: found inf, but must be a"]),
        (["teacher", "--model", "m", "--seed", str(2**32)], ["error: --seed: found 4294967296, but must be a whole"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_usage_errors(fsd_tune, arguments, expected):
    code, out, err = fsd_tune(*arguments)
    errors = [line for line in err if not line.startswith("See `fsd-tune")]
    assert code == 2 and out == "" and len(errors) == len(expected) and len(err) <= len(expected) + 1
    for line, start in zip(errors, expected, strict=True):
        assert line.startswith(start)


def test_a_teachers_tracking_and_seeds_are_checked_before_its_model(fsd_tune, glue, tmp_path):
    words = ["--model", tmp_path / "none", "--task", "sst2", "--data", glue, "--output", tmp_path / "t"]
    words += ["--seeds", "1,4294967296", "--wandb-project", "me/glue", "--wandb-tags", "x" * 65]
    code, _, err = fsd_tune("teacher", *words)
    starts = ["--seeds: found 4294967296", "--wandb-project: found text 'me/glue'", "--wandb-tags: ", "--model: "]
    assert code == 2 and len(err) == len(starts)
    assert all(line.startswith(f"error: {start}") for line, start in zip(err, starts, strict=True))


def test_underscores_serve_as_hyphens(fsd_tune, kd):
    code, out, _ = fsd_tune("validate", kd, "--batch_size=8", "--max_concurrent", "2", "--wandb", "off")
    settings = yaml.safe_load(out)
    assert code == 0 and settings["space"]["batch_size"] == 8 and settings["resources"]["max_concurrent"] == 2


# ---------------------------------------------------------------- validate, --json, --debug


@pytest.mark.parametrize("space", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_validate_prints_validates_again(fsd_tune, space, tmp_path):
    code, out, err = fsd_tune("validate", space)
    assert (code, err) == (0, [])
    again = tmp_path / "again.yaml"
    again.write_text(out, encoding="utf-8")
    assert fsd_tune("validate", again) == (0, out, [])


def test_all_problems_at_once(fsd_tune, tmp_path):
    space = tmp_path / "s.yaml"
    space.write_text("method: kd\nspace: {alpha: 1.7, temperature: 5}\nsaerch: {trials: 3}\n", encoding="utf-8")
    arguments = ["--task", "rtee", "--teacher", tmp_path / "teachers/rte", "--data", tmp_path / "glue"]
    for verb in ("validate", "search", "distill", "memory"):
        output = ["--output", tmp_path / "R"] if verb in ("search", "distill") else []
        code, out, err = fsd_tune(verb, space, *arguments, *output, "--trials", "0")
        assert code == 2 and out == ""
        assert [line.split(" ")[0] for line in err] == ["error:"] * 5
        text = "\n".join(err)
        for part in (
            f"{space}:2: space.alpha: found 1.7", f"{space}:3: saerch: unknown key", "--trials: found 0",
            "`rtee`", f"--teacher: {tmp_path}/teachers/rte is no folder",
        ):  # fmt: skip
            assert part in text, part
    code, _, err = fsd_tune("validate", space, "--task", "rte", *arguments[2:])
    assert code == 2 and any(line.startswith(f"error: {tmp_path}/glue: no such folder") for line in err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.yaml"]


def test_validate_checks_data_and_models_when_asked(fsd_tune, kd, glue, teacher, tmp_path):
    code, out, err = fsd_tune("validate", kd, "--task", "sst2", "--teacher", teacher, "--data", glue)
    assert (code, err) == (0, []) and yaml.safe_load(out)["method"] == "kd"
    code, out, err = fsd_tune("validate", kd, "--task", "mnli", "--teacher", teacher, "--data", tmp_path)
    assert code == 2 and out == "" and len(err) == 2
    code, _, err = fsd_tune("validate", kd, "--task", "sst2")
    assert code == 2 and err == ["error: --task and --teacher: give both to check data and models, or neither."]


def test_json_is_all_that_standard_output_holds(fsd_tune, glue, teacher, tmp_path):
    code, out, _ = fsd_tune("evaluate", "--student", teacher, "--task", "mnli", "--data", glue, "--json")
    assert code == 2 and out == ""
    code, out, _ = fsd_tune("evaluate", "--student", teacher, "--task", "sst2", "--data", glue, "--json")
    found = json.loads(out)
    assert code == 0 and found["examples"] == {"dev": 24} and 0 <= found["splits"]["dev"]["accuracy"] <= 1
    folder = result_folders.write_search(tmp_path / "R", trials=4, study=False)
    code, out, _ = fsd_tune("report", folder, "--json")
    assert code == 0 and json.loads(out)["task"] == "sst2"


def test_debug_shows_the_traceback(fsd_tune, tmp_path):
    code, _, err = fsd_tune("validate", tmp_path / "none.yaml")
    assert code == 2 and err == [f"error: {tmp_path}/none.yaml: no such file."]
    code, _, err = fsd_tune("validate", tmp_path / "none.yaml", "--debug")
    assert code == 2 and err[0].startswith("Traceback") and err[-1] == f"error: {tmp_path}/none.yaml: no such file."


def test_a_closed_pipe_is_no_failure():
    with subprocess.Popen(
        [SCRIPT, "validate", SPACES / "demo.yaml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_the_systems_errors_are_one_line(fsd_tune, tmp_path):
    """What was finished is kept, and the command that continues is printed: here files may not grow as they must."""
    folder = result_folders.write_search(tmp_path / "R", trials=2, study=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        code, out, err = fsd_tune("report", folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1 and out == ""
    assert err == [f"failed: {folder}/report.html: File too large", f"To continue: fsd-tune report {folder}"]
    assert sorted(path.name for path in folder.glob("*.*")) == [
        "command.txt", "leaderboard.csv", "settings.yaml", "summary.json", "versions.json",
    ]  # fmt: skip


def test_each_setting_is_in_the_help_once(fsd_tune):
    """`--search-trials` is `--trials`, and both work."""
    _, out, _ = fsd_tune("search", "--help")
    text = " ".join(out.split())
    for _, key, _ in settings.flags():
        assert text.count(f" {key}: ") == 1, key
    assert "--trials" in out and "--search-trials" not in out


# ---------------------------------------------------------------- wrong models, data and folders


class World(NamedTuple):
    root: Path
    teacher: Path
    glue: Path
    output: Path
    base: Path


@pytest.fixture
def world(tmp_path, glue, base, teacher):
    """Folders of this test's own, to be damaged: `teacher` and `glue` (SST-2 and RTE)."""

    found = World(tmp_path, tmp_path / "teacher", tmp_path / "glue", tmp_path / "out", base)
    shutil.copytree(teacher, found.teacher)
    for task in ("SST-2", "RTE"):
        shutil.copytree(glue / task, found.glue / task)
    return found


def no_tokenizer(world):
    for path in world.teacher.glob("*tok*"):
        path.unlink()
    (world.teacher / "vocab.txt").unlink(missing_ok=True)


def broken_tokenizer(world):
    path = world.teacher / "tokenizer.json"
    path.write_text(path.read_text()[:500])


def truncated(world):
    path = world.teacher / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def config_text(text):
    def write(world):
        (world.teacher / "config.json").write_text(text)

    return write


def config_with(name, value):
    def write(world):
        path = world.teacher / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return write


def config_without(name):
    def write(world):
        path = world.teacher / "config.json"
        config = json.loads(path.read_text())
        del config[name]
        path.write_text(json.dumps(config | {"model_type": "resnet"}))

    return write


def other_teacher(**more):
    def write(world):
        shutil.rmtree(world.teacher)
        tiny.write_teacher(world.teacher, world.base, **more)

    return write


def recorded_base(text):
    def write(world):
        (world.teacher / "fsd_tune.json").write_text(text)

    return write


def remove(name):
    return lambda world: (world.teacher / name).unlink()


def tsv(name, content, folder="SST-2"):
    def write(world):
        (world.glue / folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def nothing(world):
    pass


# What is wrong, how it is made, further flags, and what each line must say, in order.
TEACHERS = {
    "no tokenizer": (no_tokenizer, (), ["--teacher: {t} holds no tokenizer"]),
    "broken tokenizer": (broken_tokenizer, (), ["--teacher: the tokenizer in {t} cannot be loaded: "]),
    "no config": (remove("config.json"), (), ["--teacher: {t} holds no config.json"]),
    "no weights": (remove("model.safetensors"), (), ["--teacher: {t} holds no weights"]),
    "truncated weights": (truncated, (), ["--teacher: {t}/model.safetensors is damaged: "]),
    "config is no JSON": (config_text("{"), (), ["--teacher: {t}/config.json cannot be used: "]),
    "config is a list": (config_text("[1]"), (), ["--teacher: {t}/config.json cannot be used: "]),
    "huge": (config_with("vocab_size", 10**12), (), ["--teacher: {t}/config.json cannot be used: vocab_size"]),
    "no heads": (config_with("num_attention_heads", 0), (), ["--teacher: {t}/config.json cannot be used: num_atten"]),
    "config of no kind": (config_text('{"a": 1}'), (), ["--teacher: {t}/config.json cannot be used: "]),
    "config of no encoder": (config_without("num_hidden_layers"), (), ["--teacher: {t} is no encoder: its config"]),
    "config with nonsense": (
        config_text('{"model_type": "bert", "num_hidden_layers": "many"}'), (), ["--teacher: {t}/config.json"],
    ),
    "three labels": (other_teacher(num_labels=3), (), ["--teacher: {t} has 3 labels (LABEL_0, LABEL_1, LABEL_2)"]),
    "other words": (
        other_teacher(id2label={0: "yes", 1: "no"}), (), ["--teacher: {t} has the labels yes, no, but sst2 has"],
    ),
    "deeper student": (nothing, ("--student-layers=5",), ["student.layers: found 5, but must be at most the"]),
    "too long": (nothing, ("--data-max-length=65",), ["data.max_length: found 65, but the teacher takes at most 64"]),
    "pair beyond": (nothing, ("--loss-layers=[[5, 1]]",), ["loss.layers: found the pair [5, 1], but the teacher has"]),
    "no base": (recorded_base("{}"), (), ["student.model: {t} does not record the pretrained model"]),
    "base moved": (recorded_base('{"base": "/nowhere/x"}'), (), ["student.model: the base that {t} records: /nowhere"]),
    "no student model": (nothing, ("--student-model=./nope",), ["student.model: ./nope is no folder"]),
    "head width": (
        nothing, ("--student-start=random", "--student-hidden-size=12"), ["student.hidden_size: found 12, but must be"],
    ),
    "may know the holdout": (
        nothing, ("--select-on={holdout: 0.1}",),
        ["--teacher: {t} records no holdout, so it may have seen the rows"],
    ),
    "narrower student for pkd": (
        nothing, ("--method=pkd", "--beta=1", "--student-start=random", "--student-hidden-size=8"),
        ["student.hidden_size: found 8, but method pkd compares [CLS] vectors number by number: must be the teacher's"],
    ),
}  # fmt: skip
DATA = {
    "no folder": (lambda world: shutil.rmtree(world.glue / "SST-2"), ["{g}: holds RTE/, but needs SST-2/"]),
    "no file": (lambda world: (world.glue / "SST-2/dev.tsv").unlink(), ["{g}/SST-2/dev.tsv: no such file"]),
    "short row": (tsv("dev.tsv", "sentence\tlabel\na b\t1\na\n"), ["{g}/SST-2/dev.tsv:3: 1 column, but must be 2"]),
    "label": (tsv("dev.tsv", "sentence\tlabel\na b\t2\n"), ["{g}/SST-2/dev.tsv:2: label: `2`, must be one of 0, 1."]),
    "empty": (tsv("dev.tsv", "sentence\tlabel\n"), ["{g}/SST-2/dev.tsv: has no examples"]),
    "no header": (tsv("dev.tsv", "a\t1\n"), ["{g}/SST-2/dev.tsv:1: the header has"]),
    "encoding": (tsv("dev.tsv", b"sentence\tlabel\ncaf\xe9\t1\n"), ["{g}/SST-2/dev.tsv:2: byte 4 of the line (0xe9)"]),
    "UTF-16": (tsv("dev.tsv", "sentence\tlabel\n".encode("utf-16")), ["{g}/SST-2/dev.tsv:1: is UTF-16, must be UTF-8"]),
}  # fmt: skip


def check(world, outcome, expected):
    code, out, err = outcome
    assert code == 2 and out == "", err
    starts = ["error: " + line.format(t=world.teacher, g=world.glue, o=world.output) for line in expected]
    assert len(err) == len(starts), err
    for line, start in zip(err, starts, strict=True):
        assert line.startswith(start), (line, start)
        assert len(line) < 450
    assert not world.output.exists()
    assert {path.name for path in world.root.iterdir()} <= {"teacher", "glue", "kd.yaml", "memory"}
    assert not list(world.root.glob("memory/*")), "nothing was begun"


@pytest.mark.slow  # the same by every verb; by one each in test_bad_input.py
@pytest.mark.parametrize("case", TEACHERS)
def test_a_teacher_that_does_not_serve(fsd_tune, world, kd, case):
    damage, flags, expected = TEACHERS[case]
    damage(world)
    arguments = ("--task", "sst2", "--teacher", world.teacher, "--data", world.glue, *flags, "--quiet")
    check(world, fsd_tune("distill", kd, "--alpha=0.5", *arguments, "--output", world.output), expected)
    check(world, fsd_tune("search", kd, *arguments, "--output", world.output), expected)
    check(world, fsd_tune("memory", kd, *arguments, "--memory", world.root / "memory"), expected)


def test_a_student_model_that_does_not_serve(fsd_tune, world, kd):
    """It has fewer layers than the student, takes shorter examples, lacks words, and its weights do not fit."""
    shallow = tiny.write_base(world.glue / "shallow", layers=1)
    path = shallow / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"vocab_size": 7, "max_position_embeddings": 16}))
    arguments = ("--task", "sst2", "--teacher", world.teacher, "--data", world.glue, "--student-model", shallow)
    expected = [
        f"student.model: {shallow} has 2 weights of another shape than its config.json says: bert.embeddings.",
        f"student.model: {shallow} has 1 layers, but the student 2.",
        f"data.max_length: found 32, but {shallow} takes at most 16.",
        f"student.model: {shallow} has a vocabulary of 7, but the teacher's tokenizer has {len(tiny.words())} tokens.",
    ]
    check(world, fsd_tune("search", kd, *arguments, "--output", world.output), expected)


def test_a_narrower_base_than_pkd_can_compare(fsd_tune, world, kd):
    narrow = tiny.write_base(world.glue / "narrow", hidden=8)
    arguments = ("--task", "sst2", "--teacher", world.teacher, "--data", world.glue, "--student-model", narrow)
    flags = ("--method={choice: [kd, pkd]}", "--beta=1", "--output", world.output)
    expected = [f"student.hidden_size: {narrow} has 8, but method pkd compares [CLS] vectors number by number: must be"]
    check(world, fsd_tune("search", kd, *arguments, *flags), expected)
    shutil.copy(world.teacher / "model.safetensors", narrow)
    misshapen = f"student.model: {narrow} has 69 weights of another shape than its config.json says: "
    check(world, fsd_tune("search", kd, *arguments, *flags), [misshapen, *expected])


@pytest.mark.slow  # the same by every verb; by one each in test_bad_input.py
@pytest.mark.parametrize("case", DATA)
def test_data_that_do_not_serve(fsd_tune, world, kd, case):
    damage, expected = DATA[case]
    damage(world)
    data = ("--task", "sst2", "--data", world.glue)
    check(world, fsd_tune("search", kd, *data, "--teacher", world.teacher, "--output", world.output), expected)
    check(world, fsd_tune("teacher", "--model", world.base, *data, *TEACHER, "--output", world.output), expected)
    check(world, fsd_tune("evaluate", "--student", world.teacher, *data), expected)


@pytest.mark.slow  # the same by every verb; by one each in test_bad_input.py
@pytest.mark.parametrize("case", ["no tokenizer", "truncated weights", "config is no JSON", "no weights"])
def test_a_model_that_does_not_serve(fsd_tune, world, case):
    damage, _, expected = TEACHERS[case]
    damage(world)
    data = ("--task", "sst2", "--data", world.glue)
    for verb, flag in (("evaluate", "--student"), ("teacher", "--model")):
        output = (*TEACHER, "--output", world.output) if verb == "teacher" else ()
        lines = [line.replace("--teacher", flag) for line in expected]
        check(world, fsd_tune(verb, flag, world.teacher, *data, *output), lines)


def test_evaluate_needs_no_training_split(fsd_tune, world):
    (world.glue / "SST-2/train.tsv").unlink()
    code, out, _ = fsd_tune("evaluate", "--student", world.teacher, "--task", "sst2", "--data", world.glue)
    assert code == 0 and re.fullmatch(r"dev \(24 examples, float32\): accuracy 0\.\d{4}\n", out)


def test_problems_of_all_inputs_are_named_together(fsd_tune, world, kd):
    no_tokenizer(world)
    tsv("dev.tsv", "sentence\tlabel\n")(world)
    (world.root / "out").write_text("a file")
    arguments = ("--task", "sst2", "--teacher", world.teacher, "--data", world.glue)
    code, _, err = fsd_tune("distill", kd, *arguments, "--output", world.output)
    assert code == 2 and [line.split(": ")[1] for line in err] == [
        "--output", "space.alpha", "--teacher", f"{world.glue}/SST-2/dev.tsv",
    ]  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("verb", ["search", "distill", "memory", "evaluate", "teacher"])
def test_no_gpu(fsd_tune, world, kd, verb):
    model = {"evaluate": "--student", "teacher": "--model"}.get(verb, "--teacher")
    space = [kd] if model == "--teacher" else []
    output = [] if verb == "evaluate" else ["--memory" if verb == "memory" else "--output", world.output]
    more = {"distill": ["--alpha=0.5"], "teacher": TEACHER}.get(verb, [])
    arguments = (verb, *space, "--task", "sst2", model, world.teacher, "--data", world.glue, *output, *more)
    check(
        world, fsd_tune(*arguments, "--device", "cuda"), ["--device: found cuda, but this machine has no CUDA device"]
    )
    check(world, fsd_tune(*arguments, "--device", "gpu"), ["--device: found gpu, but must be auto, cpu or cuda."])


def test_output_folders_that_are_taken(fsd_tune, world, kd):
    common = ("--task", "sst2", "--teacher", world.teacher, "--data", world.glue)
    distill = ("distill", kd, *common, "--alpha=0.5")
    search = ("search", kd, *common)
    (world.root / "file").write_text("x")
    (world.root / "full").mkdir()
    (world.root / "full/letter.txt").write_text("dear")
    (world.root / "search").mkdir()
    (world.root / "search/summary.json").write_text('{"identity": {"settings": {"method": "kd"}}}')
    for command, output, flags, expected in (
        (distill, "file", (), "is a file, but must be a folder or new."),
        (distill, "file", ("--overwrite",), "is a file, but must be a folder or new."),
        (distill, "file/below", (), "cannot be made: {}/file is not a writable directory."),
        (distill, "full", (), "holds other files; give a new folder."),
        (distill, "full", ("--overwrite",), "holds other files; give a new folder."),
        (search, "file", (), "is a file, but must be a folder or new."),
        (search, "file/below", (), "cannot be made"),
        (search, "full", (), "holds other files; give a new folder"),
        (search, "full", ("--overwrite",), "holds "),
        (search, "search", (), "holds another search ("),
    ):
        code, out, err = fsd_tune(*command, *flags, "--output", world.root / output)
        assert code == 2 and out == "" and len(err) == 1, err
        assert err[0].startswith(f"error: --output: {world.root / output} {expected.format(world.root)}"), err
    assert (world.root / "full/letter.txt").read_text() == "dear"
    assert [path.name for path in (world.root / "search").iterdir()] == ["summary.json"]
    for tried in ((*distill, "--output", world.output), (*search, "--output", world.output), ("memory", kd, *common)):
        code, _, err = fsd_tune(*tried, "--memory", world.root / "file")
        assert code == 2 and err == [f"error: --memory: {world.root}/file is a file, but must be a folder or new."]


def test_a_student_folder_may_be_overwritten(fsd_tune, world, kd):
    arguments = (
        "distill", kd, "--task", "sst2", "--teacher", world.teacher, "--data", world.glue, "--output", world.output,
        "--alpha=0.5", "--batch-size=8", "--epochs=1", "--precision=float32", "--asha-reports=2",
    )  # fmt: skip
    code, out, err = fsd_tune(*arguments)
    assert code == 0 and re.match(r"student: accuracy 0\.\d{4} \(teacher 0\.\d{4}\), in ", out)
    assert any(line.startswith("distil: method=kd alpha=0.5") for line in err)
    code, _, err = fsd_tune(*arguments, "--quiet")
    assert code == 2 and err == [f"error: --output: {world.output} holds a model; give a new folder, or --overwrite."]
    before = (world.output / "fsd_tune.json").stat().st_mtime_ns
    code, out, err = fsd_tune(*arguments, "--quiet", "--overwrite", "--json")
    assert code == 0 and err == [] and json.loads(out)["config"]["alpha"] == 0.5
    assert (world.output / "fsd_tune.json").stat().st_mtime_ns > before


def test_the_smallest_run(fsd_tune, world):
    """One training example: fewer steps than reports, and fewer examples than centroids, which is said."""
    code, out, err = fsd_tune(
        "distill", "--method=fsd_ilg", "--task", "sst2", "--teacher", world.teacher, "--data", world.glue,
        "--output", world.output, "--data-train-limit=1", "--student-layers=2", "--data-max-length=32", "--epochs=2",
    )  # fmt: skip
    assert code == 0 and out.startswith("student: accuracy 0."), err
    assert "note: memory.centroids: 100 lowered to 1, the number of training examples." in err


def test_a_diverging_run_is_a_failure_and_leaves_no_student(fsd_tune, world):
    code, out, err = fsd_tune(
        "distill", "--task", "sst2", "--teacher", world.teacher, "--data", world.glue, "--output", world.output,
        "--method=ce", "--student-layers=2", "--data-max-length=32", "--learning-rate=1", "--weight-decay=10",
        "--epochs=20", "--precision=float32", "--quiet",
    )  # fmt: skip
    assert code == 1 and out == ""
    assert err[0].startswith("failed: Training diverged: ") and err[1:] == ["Lower --learning-rate."]
    assert not world.output.exists()


def test_a_teacher_with_permuted_labels_is_refused(fsd_tune, world, kd):
    """Dev labels that are the opposite of what the teacher predicts: its label 0 means the task's label 1."""
    task, model = get_task("sst2"), load_classifier(str(world.teacher), get_task("sst2"))
    dev = tokenize(load_split(task, "dev", world.glue), load_tokenizer(str(world.teacher)), 32)
    margins = np.diff(predict(model, dev, "float32", torch.device("cpu")))[:, 0]
    with torch.no_grad():
        model.classifier.bias[0] += float(np.sort(margins)[12:14].mean())
    model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    model.save_pretrained(world.teacher)
    predicted = predict(model, dev, "float32", torch.device("cpu")).argmax(-1)
    assert 5 < predicted.sum() < 19
    path = world.glue / "SST-2/dev.tsv"
    header, *rows = path.read_text().splitlines()
    flipped = [f"{row.split(chr(9))[0]}\t{1 - label}" for row, label in zip(rows, predicted, strict=True)]
    path.write_text("\n".join([header, *flipped]) + "\n")
    arguments = ("--task", "sst2", "--teacher", world.teacher, "--data", world.glue, "--quiet", "--precision=float32")
    for verb, output in (("distill", ("--alpha=0.5", "--output", world.output)), ("memory", ())):
        code, out, err = fsd_tune(verb, kd, *arguments, *output, "--memory", world.root / "memory")
        assert code == 2 and out == "" and err[0].startswith("error: --teacher: ") and len(err) == 2
        assert "scores 1.000 on dev with {0: 'positive', 1: 'negative'} but 0.000 with sst2's order" in err[0]
        assert not world.output.exists()


# ---------------------------------------------------------------- the hub


def test_names_that_are_no_folders_are_answered_at_once(tmp_path, glue):
    """A path whose first folder exists is no hub id; for a hub id the hub is asked once, without noise."""
    (tmp_path / "teachers").mkdir()
    # An address where nothing listens: the test holds on machines with access too.
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = script(
        "evaluate", "--student", "students/rte", "--task", "rte", "--data", glue, cwd=tmp_path, env=environment
    )
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"error: --student: students/rte is no folder, and cannot be .* hub \(.+\)\.\n", done.stderr)


def test_a_path_in_a_folder_is_no_hub_id(fsd_tune, tmp_path, glue, monkeypatch):
    (tmp_path / "teachers").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("teachers/rte", "./rte", "a/b/c", "/nowhere"):
        code, _, err = fsd_tune("evaluate", "--student", name, "--task", "rte", "--data", glue)
        assert code == 2
        assert err == [f"error: --student: {name} is no folder, but must be a model's folder or a hub id."]
    code, _, err = fsd_tune("evaluate", "--student", "", "--task", "rte", "--data", glue)
    assert code == 2 and err == ["error: --student: is empty, but must be a model's folder or a hub id."]


def test_the_command_that_continues_does_not_overwrite():
    search = Invocation("search", ["my space.yaml", "--overwrite", "--trials", "3"])
    assert error_lines(KeyboardInterrupt(), search) == (
        ["interrupted; what was finished is kept.", "To continue: fsd-tune search 'my space.yaml' --trials 3"],
        130,
    )
    distill = Invocation("distill", ["--overwrite"], single_run=True, keeps_progress=False)
    assert error_lines(KeyboardInterrupt(), distill)[0] == [
        "interrupted; nothing was written.",
        "To start again: fsd-tune distill --overwrite",
    ]
    interrupted = KeyboardInterrupt()
    interrupted.add_note("what was trained up to evaluation 2 of 10 is kept in s.unfinished")
    assert error_lines(interrupted, distill)[0] == [
        "interrupted; what was trained up to evaluation 2 of 10 is kept in s.unfinished.",
        "To continue: fsd-tune distill --overwrite",
    ]


def test_a_search_that_has_begun_is_continued_by_resume(tmp_path):
    """Before its folder describes it, the same command starts it."""
    invocation = Invocation("search", ["fsd_ilg", "--overwrite"], search=str(tmp_path / "R"))
    assert invocation.next_command() == "To continue: fsd-tune search fsd_ilg"
    result_folders.write_search(tmp_path / "R", trials=2, study=False)
    assert invocation.next_command() == f"To continue: fsd-tune resume {tmp_path / 'R'}"


# ---------------------------------------------------------------- help in groups, shipped spaces


def test_help_groups_the_verbs_and_cuts_no_line_off(fsd_tune, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = fsd_tune("--help")
    titles = [line[:-1] for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Options", "Train", "Search", "Inspect", "Publish", "Cluster"]
    rows = out.split("Train:")[1].splitlines()
    listed = [line.split()[0] for line in rows if line.startswith("  ")]
    assert sorted(listed) == sorted(app.app.commands), "each verb on one line"
    assert all(len(line) <= 80 and not line.endswith("...") for line in rows)
    assert all(line.endswith(".") for line in rows if line.startswith("  "))


def test_help_of_a_verb_groups_its_flags(fsd_tune):
    _, out, _ = fsd_tune("search", "--help")
    titles = [line[:-1] for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        "Inputs", "Output", "Where it runs", "Search space", "Student", "Data", "Loss", "Optimiser", "Teacher memory",
        "Search", "Early stopping (ASHA)", "Latency", "Resources", "Weights & Biases", "Other",
    ]  # fmt: skip
    student = out.split("\nStudent:\n")[1].split("\n\n")[0]
    assert "--student-layers" in student and "--trials" not in student


def test_a_shipped_space_is_found_by_its_name(fsd_tune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = fsd_tune("validate", "fsd_ilg")
    assert (code, err) == (0, []) and out == fsd_tune("validate", SPACES / "fsd_ilg.yaml")[1]
    (tmp_path / "fsd_ilg").write_text(KD.replace("temperature: 5", "temperature: 7"), encoding="utf-8")
    code, out, _ = fsd_tune("validate", "fsd_ilg")
    assert code == 0 and yaml.safe_load(out)["space"]["temperature"] == 7, "a file of that name wins"


def test_an_unknown_name_lists_the_shipped_spaces(fsd_tune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = fsd_tune("validate", "fsd_ilgg", "--task", "rtee", "--teacher", "nowhere")
    assert code == 2 and out == "" and len(err) == 2, "with the other inputs' problems"
    assert err[0].startswith("error: fsd_ilgg: no such file; the shipped search spaces are demo, demo_front, ")
    assert err[0].endswith(". Did you mean `fsd_ilg`?")


def test_validate_says_what_published_sets_and_that_nothing_is_searched(fsd_tune, tmp_path):
    space = tmp_path / "x.yaml"
    space.write_text("method: fsd_l\npublished: true\nspace: {alpha: 0.5, temperature: 5, beta: 3}\nprecision: bf16\n")
    code, out, err = fsd_tune("validate", space)
    assert (code, err) == (0, [])
    remarks = [line for line in out.splitlines() if line.startswith("#")]
    assert remarks[0] == "# published: true sets"
    assert {"#   loss.layers: last", "#   optimizer.clipping: together"} < {*remarks}
    assert "#   precision: bf16, set by you (published: float32)" in remarks
    assert remarks[-1].startswith("# search: nothing is searched, so all 64 trials would be the same")
    again = tmp_path / "y.yaml"
    again.write_text(out)
    assert settings.load(again) == settings.load(space), "the output is a settings file"
    assert not fsd_tune("validate", "fsd_ilg")[1].startswith("#")


# ---------------------------------------------------------------- standard streams


@pytest.mark.parametrize(
    ("redirection", "code", "unbuffered"),
    [
        (">&-", 0, ""), ("2>&-", 0, ""), ("<&- >&- 2>&-", 0, ""), ("| true", 0, ""), ("2>/dev/full", 0, ""),
        # With a buffer the error comes with the last flush, without one with the first line.
        (">/dev/full", 1, ""), (">/dev/full", 1, "1"),
    ],
)  # fmt: skip
def test_streams_that_are_closed_or_lost(kd, redirection, code, unbuffered):
    script = f"set -o pipefail; {shlex.quote(str(SCRIPT))} validate {kd} {redirection}"
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == code and "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr


def test_characters_that_the_output_lacks(world):
    """A terminal in ASCII gets escapes."""
    space = world.root / "s.yaml"
    space.write_text(KD.replace("layers: 2", "layers: 2, model: gru\u00dfe"), encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    words = [SCRIPT, "validate", space]
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0 and "gru\\xdfe" in ended.stdout, ended.stderr


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize("flag", ["--output=~/x", "--output=~"])
def test_home_in_a_flag_and_in_yaml(fsd_tune, world, kd, monkeypatch, flag):
    monkeypatch.setenv("HOME", str(world.root / "home"))
    (world.root / "home/x").mkdir(parents=True)
    (world.root / "home/x/letter.txt").touch()
    arguments = ("distill", kd, "--task", "sst2", "--teacher", world.teacher, "--data", world.glue, "--alpha=0.5")
    code, _, err = fsd_tune(*arguments, flag)
    assert code == 2 and err[0].startswith(f"error: --output: {world.root}/home") and "holds other files" in err[0]
    kd.write_text(KD.replace("layers: 2", "layers: 2, model: ~/m"), encoding="utf-8")
    code, out, _ = fsd_tune("validate", kd)
    assert code == 0 and f"model: {world.root}/home/m" in out
    code, out, _ = fsd_tune("validate", kd, "--student-model=~/n")
    assert code == 0 and f"model: {world.root}/home/n" in out


URIS = {
    "teacher": ("teacher", "--model", "base", "--output"),
    "distill": ("distill", "--method=kd", "--teacher", "teacher", "--output"),
    "memory": ("memory", "kd.yaml", "--teacher", "teacher", "--memory"),
    "export": ("export", "--student", "teacher", "--output"),
    "predict": ("predict", "--student", "teacher", "--output"),
    "analyze": ("analyze", "--student", "teacher", "--teacher", "teacher", "--output"),
    "demo": ("demo", "--folder"),
    "compare": ("compare", "a", "b", "--output"),
    "sweep-config": ("sweep-config", "kd.yaml", "--teacher", "teacher", "--file"),
    "fetch": ("fetch", "s3://bucket/search", "--output"),
}


@pytest.mark.parametrize("verb", URIS)
def test_a_uri_is_refused_where_nothing_is_stored_in_one(fsd_tune, world, kd, monkeypatch, verb):
    monkeypatch.chdir(world.root)
    words = [*URIS[verb], "s3://bucket/x"]
    if verb not in ("demo", "compare", "fetch"):
        words += ["--task", "sst2"] + ([] if verb == "export" else ["--data", "glue"])
    code, _, err = fsd_tune(*words)
    assert code == 2 and any(f"{URIS[verb][-1]}: found a URI (s3://), but" in line for line in err), err
    assert not (world.root / "s3:").exists()
