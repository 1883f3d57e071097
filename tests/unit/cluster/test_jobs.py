"""What of a command line is sent to a cluster, and what it means there; a real cluster is in tests/cluster."""

import base64
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fsd_tune.cluster import fetch, jobs
from fsd_tune.errors import InputError
from tests import ROOT


class Recorded(jobs.Cluster):
    """Answers as a head would, and keeps what it was told."""

    said = ""
    commands: list[str]
    sent: dict[str, str]

    def run(self, command, follow=False):
        self.commands.append(command)
        return self.said

    def send(self, here, there):
        assert jobs._plain_parent(there) in self.commands[0], "its folder was made before"
        self.sent[there] = str(here)

    @property
    def files(self):
        """The job's script and its note, which its command carries."""
        return [base64.b64decode(text).decode() for text in re.findall(r"echo (\S+) \| base64 -d >", self.commands[-1])]


@pytest.fixture
def cluster():
    Recorded.commands, Recorded.sent, Recorded.said = [], {}, ""
    return Recorded(ROOT / "examples" / "cluster" / "hosts.yaml")


@pytest.fixture
def laptop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text("method: kd")
    for name in ("glue", "teacher", "rte"):
        (tmp_path / name).mkdir()
    return tmp_path


def command_of(cluster):
    """The verb's words as the head's shell would run them."""
    return shlex.split(cluster.files[0].partition(" && exec ")[2])


def test_files_go_along_and_mean_their_copies(cluster, laptop):
    given = "search space.yaml --task rte --teacher=teacher --data glue --output runs/rte --trials 8 --wandb offline"
    job = jobs.submit(cluster, given.split())
    words = command_of(cluster)
    there = {Path(here).name: name for name, here in cluster.sent.items()}
    assert set(there) == {"space.yaml", "teacher", "glue"}, "a task is no folder, whatever lies here"
    assert all(name.startswith("/shared/inputs/") for name in there.values())
    assert words == [
        "fsd-tune", "search", there["space.yaml"], "--task", "rte", f"--teacher={there['teacher']}", "--data",
        there["glue"], "--output", "/shared/runs/rte", "--trials", "8", "--wandb", "offline", "--address", "auto",
    ]  # fmt: skip
    assert f"--submission-id {job}" in cluster.commands[-1]
    note = json.loads(cluster.files[1])
    assert note["job"] == job and note["command"] == shlex.join(words)


def test_no_shell_expands_the_words(cluster, laptop):
    words = ["--wandb-group", "$HOME `id` $(id) ~ * ! \\ 'a' \"b\" {c,d} é\nf"]
    jobs.submit(cluster, ["search", "space.yaml", "--task", "$(touch x)", *words])
    echoed = cluster.files[0].replace("exec fsd-tune", "exec printf '%s\\0'").replace("/shared", str(laptop))
    shown = subprocess.run(["bash", "-c", echoed], capture_output=True, text=True, check=True).stdout.split("\0")
    assert ["$(touch x)", *words] == shown[3:6] and not (laptop / "x").exists()
    assert all(word not in command for command in cluster.commands for word in (*words, "$("))


def test_a_name_that_a_shell_would_expand_travels_inside_a_folder(laptop, monkeypatch):
    class Head(jobs.Cluster):
        def run(self, command, follow=False):
            return ""

        def _ray(self, arguments, output):
            source, target = arguments[2:]
            found = sorted(path.relative_to(source) for path in Path(source).rglob("*") if path.is_file())
            sent.append((target, [str(path) for path in found] if source.endswith("/") else source))
            return subprocess.CompletedProcess(arguments, 0, "", "")

    sent: list[tuple[str, str | list[str]]] = []
    (laptop / "a:b $(id).csv").write_text("x")
    head = Head(ROOT / "examples" / "cluster" / "hosts.yaml")
    head.send(Path("a:b $(id).csv"), "/shared/inputs/t/sub dir/a:b $(id).csv")
    head.send(Path("space.yaml"), "/shared/inputs/t/space.yaml")
    assert sent == [
        ("/shared/inputs/t/", ["sub dir/a:b $(id).csv"]),
        ("/shared/inputs/t/space.yaml", str(laptop / "space.yaml")),
    ]


def test_copies_have_plain_names(cluster, laptop):
    (laptop / "my $HOME teacher;id").mkdir()
    jobs.submit(cluster, ["search", "space.yaml", "--teacher", "my $HOME teacher;id"])
    assert any(name.endswith("-my__HOME_teacher_id") for name in cluster.sent)


def test_a_search_there_is_named_as_here(cluster, laptop):
    jobs.submit(cluster, ["resume", "runs/rte", "--trials=20"])
    assert command_of(cluster) == ["fsd-tune", "resume", "/shared/runs/rte", "--trials=20", "--address", "auto"]
    assert not cluster.sent


def test_order_and_switches_change_nothing(cluster, laptop):
    given = "search --overwrite --task rte --teacher teacher --output ./runs/../a space.yaml --memory mem"
    jobs.submit(cluster, given.split())
    words = command_of(cluster)
    assert words[-5].endswith("-space.yaml") and words[-4:-2] == ["--memory", "/shared/mem"]
    assert "/shared/a" in words and len(cluster.sent) == 2


def test_flags_with_underscores_are_the_same_flags(cluster, laptop):
    (laptop / "base").mkdir()
    words = "--task=rte --student_model base --teacher=teacher --wandb_group a_b"
    jobs.submit(cluster, ["search", "space.yaml", *words.split()])
    words = command_of(cluster)
    assert words[words.index("--student-model") + 1].endswith("-base") and len(cluster.sent) == 3
    assert words[words.index("--wandb-group") + 1] == "a_b" and words.count("--student-model") == 1


def test_teachers_of_several_tasks_and_the_model_of_students_go_along(cluster, laptop):
    (laptop / "teachers" / "rte").mkdir(parents=True)
    jobs.submit(cluster, ["search", "space.yaml", "--teacher", "teachers/{task}"])
    assert any(word.endswith("-teachers/{task}") for word in command_of(cluster))
    (laptop / "base").mkdir()
    (laptop / "teacher" / "fsd_tune.json").write_text(json.dumps({"base": str(laptop / "base")}))
    jobs.submit(cluster, ["search", "space.yaml", "--teacher", "teacher"])
    words = command_of(cluster)
    assert words[words.index("--student-model") + 1].endswith("-base")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search", "nope.yaml"], "nope.yaml: no such file"),
        (["search", "--task", "rte"], "search: lacks its YAML"),
        (["resume"], "resume: lacks a folder"),
        (["search", "space.yaml", "--detach"], "--detach: is not for the verb"),
        (["search", "space.yaml", "--address=auto"], "--address: is not for the verb"),
        (["search", "space.yaml", "--output", "../x"], "../x does not lie in /shared"),
        (["search", "space.yaml", "--output", "/sharedother/x"], "/sharedother/x does not lie in /shared"),
        (["search", "space.yaml", "--output", "s4://b/x"], "found s4://, but must be a folder or a URI"),
    ],
)
def test_what_would_fail_there_is_said_here(cluster, laptop, words, said):
    with pytest.raises(InputError) as caught:
        jobs.submit(cluster, words)
    assert any(said in problem for problem in caught.value.problems), caught.value.problems
    assert not cluster.commands and not cluster.sent


def test_a_hub_id_stays_one(cluster, laptop):
    jobs.submit(cluster, ["search", "space.yaml", "--task", "rte", "--teacher", "someone/bert", "--output", "a"])
    assert "someone/bert" in command_of(cluster)


def test_two_inputs_of_one_name_do_not_meet(cluster, laptop):
    (laptop / "other" / "teacher").mkdir(parents=True)
    for teacher in ("teacher", "other/teacher"):
        jobs.submit(cluster, ["search", "space.yaml", "--teacher", teacher])
    assert sum(name.endswith("-teacher") for name in cluster.sent) == 2


@pytest.mark.parametrize("words", [["serch", "x"], ["demo"], []])
def test_only_what_a_cluster_is_for_is_sent(cluster, words):
    with pytest.raises(InputError, match="must be one of search, resume"):
        jobs.submit(cluster, words)
    assert not cluster.commands


def test_a_wrong_cluster_file_is_refused_before_anything_is_sent(laptop):
    (laptop / "c.yaml").write_text("max_workers: 2")
    with pytest.raises(InputError, match="provider: is missing"):
        jobs.submit(Recorded(laptop / "c.yaml"), ["search", "space.yaml"])


def test_states_are_told_beside_what_was_submitted(cluster):
    notes = [json.dumps({"job": f"search-{i}", "command": "fsd-tune search", "submitted": 1.0}) for i in (1, 2)]
    Recorded.said = "\n".join(["Warning: added to known hosts", *notes, "==", '[["search-2", "RUNNING"]]'])
    assert [(one["job"], one["state"]) for one in jobs.jobs(cluster)] == [("search-1", "GONE"), ("search-2", "RUNNING")]
    assert jobs.newest(cluster, None) == "search-2"
    with pytest.raises(InputError, match="no such job"):
        jobs.newest(cluster, "search-3")


def test_a_folder_that_holds_anything_else_is_not_fetched_into(cluster, tmp_path):
    mine = tmp_path / "mine" / "best"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("precious")
    Recorded.said = "best\nsummary.json\n"
    with pytest.raises(InputError, match="holds other files; give a new folder"):
        fetch.fetch_search(cluster, "runs/rte", tmp_path / "mine")
    (tmp_path / "mine" / "summary.json").write_text('{"group": "another"}')
    with pytest.raises(InputError, match="holds another search"):
        fetch.fetch_search(cluster, "runs/rte", tmp_path / "mine")
    with pytest.raises(InputError, match="is a file"):
        fetch.fetch_search(cluster, "runs/rte", tmp_path / "mine" / "summary.json")
    assert (mine / "thesis.txt").read_text() == "precious"


def test_the_same_search_is_recognised_by_its_group(tmp_path):
    (tmp_path / "summary.json").write_text('{\n "group": "rte-1"\n}\n')
    told = 'Warning: added to known hosts\n{\n "group": "%s",\n "task": "rte-1"\n}\nShared connection closed.\n'
    fetch._check_same_search(tmp_path, told % "rte-1")
    with pytest.raises(InputError, match="holds another search"):
        fetch._check_same_search(tmp_path, told % "rte-2")


def test_the_shared_folder_is_a_path_of_the_nodes():
    assert jobs.named(Path("c.yaml"), "/shared/").shared == "/shared"
    for wrong in ("shared", "", "/", "/a b", "/$HOME", "/`id`", "/a;id", "/a\n"):
        with pytest.raises(InputError, match="must be an absolute path"):
            jobs.named(Path("c.yaml"), wrong)


def test_of_what_ray_prints_the_error_is_said():
    told = "2026-11-24 12:00:00,000\tINFO commands.py:422 -- Checking\n  File x\nRuntimeError: Head node not found!\n"
    told += "2026-11-24 12:00:00,000\tVWARN commands.py:388 -- Loaded cached\n"
    assert jobs._last_error_line(told, "1\tWARN 2 -- If you experience") == "RuntimeError: Head node not found!"
    assert jobs._last_error_line("", "ls: no such file\n") == "ls: no such file"
