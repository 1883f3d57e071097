"""The documented command of each published system runs, with tiny models."""

import json
import re
import shlex

import pytest

from tests import ROOT
from tests.helpers import glue_folders

PAGE = ROOT / "docs/explanation/published-code.md"
SECTION = PAGE.read_text().split("\n## One command for each published system\n")[1].split("\n## ")[0]
COMMANDS = re.findall(r"\| `fsd-tune ([^`]+)` \|", SECTION)
SMALL = ["--student-layers", "2", "--data-max-length", "32", "--memory-centroids", "5"]
RUN = ["--epochs", "1", "--batch-size", "8", "--asha", "{reports: 1}"]


def test_every_script_has_a_command():
    named = set(re.findall(r"glue_with_cka_\w+\.py|train_memory\.py", SECTION))
    assert named == {*(f"glue_with_cka_{name}.py" for name in ("i", "l", "g", "ilg")), "train_memory.py"}
    assert len(COMMANDS) == SECTION.count("fsd-tune ") == 10


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glue")
    glue_folders.write_glue(folder, train=16, dev=8, tasks=("rte",))
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_of_a_published_system(fsd_tune, glue, teacher, tmp_path, one_thread, command):
    verb, *words = shlex.split(command)
    inputs = ["--task", "rte", "--teacher", teacher, "--data", glue, "--memory", tmp_path / "memory", "--json"]
    run = [*RUN, "--output", tmp_path / "out"] if verb == "distill" else []
    code, out, err = fsd_tune(verb, *words, *SMALL, *run, *inputs)
    assert code == 0, err
    document = json.loads(out)
    if verb == "memory":
        assert (document["centroids"], document["passes"]) == (5, 1)
    else:
        assert document["config"]["method"] == words[words.index("--method") + 1]
        assert document["precision"] == "float32" and document["judge_by"] == "last"
