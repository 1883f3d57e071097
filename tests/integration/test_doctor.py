"""What is found before a search starts: a line each, right or with what to do, and quickly."""

import json
import os
import shutil
import socket
import subprocess

import pytest

from fsd_tune.cluster import destination
from fsd_tune.search.doctor import CheckRequest, run_checks
from fsd_tune.search.folder import identifying_settings
from fsd_tune.storage import artifacts
from tests.helpers import result_folders
from tests.helpers.searching import SCRIPT, SPACE


@pytest.fixture
def settings(settings_from_yaml):
    return settings_from_yaml(SPACE)


def found(**wanted):
    return {check.name: check for check in run_checks(CheckRequest(**wanted))}


def test_all_is_well(settings, glue, teacher, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    seen = found(settings=settings, task="sst2", teacher=str(teacher), data=glue, output=tmp_path / "R")
    assert all(check.passed for check in seen.values()), seen
    assert seen["data"].message.endswith("40 in train, 24 in dev")
    assert {"versions", "teacher", "output", "disk", "object store", "Weights & Biases", "auth mode"} <= set(seen)


def test_each_mistake_says_what_to_do(settings, glue, teacher, tmp_path, monkeypatch):
    broken = tmp_path / "teacher"
    shutil.copytree(teacher, broken)
    (broken / "model.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "R").mkdir()
    (tmp_path / "R" / "study.db").write_bytes(b"no database" * 100)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.yaml").write_text("max_workers: 1")
    seen = found(
        settings=settings, task="sst2", teacher=str(broken), data=tmp_path, output=tmp_path / "R",
        cluster=tmp_path / "c.yaml",
    )  # fmt: skip
    wrong = {what: check.message for what, check in seen.items() if not check.passed}
    assert set(wrong) == {"cluster file", "data", "teacher", "study", "auth mode"}
    assert "SST-2" in wrong["data"] and "damaged" in wrong["teacher"]
    assert "`resume` writes it again" in wrong["study"] and "ray get-auth-token --generate" in wrong["auth mode"]


def test_earlier_searches_are_offered_and_checked(settings_from_yaml, tmp_path):
    ranges = "--learning-rate={low: 1e-5, high: 1e-2, log: true}"
    earlier = result_folders.write_search(tmp_path / "rte", trials=12, study=False, name="rte")
    offered = found(settings=settings_from_yaml(SPACE, ranges), output=str(tmp_path / "R"))["warm start"]
    assert offered.passed and offered.message.endswith(f"--warm-from {earlier}")
    named = found(settings=settings_from_yaml(SPACE, ranges, f"--warm-from={tmp_path}"))["warm start"]
    assert not named.passed and f"{tmp_path}: holds no search" in named.message
    assert "warm start" not in found(settings=settings_from_yaml(SPACE, ranges), output=str(earlier))


def test_damaged_teacher_outputs_are_found(tmp_path):
    for name in ("outputs-1", "memory-1"):
        with artifacts.writing(tmp_path / name) as (temporary, _):
            (temporary / "part.npy").write_bytes(b"x" * 100)
    assert "2 artefacts" in found(memory=str(tmp_path))["teacher memory"].message
    part = tmp_path / "outputs-1" / "part.npy"
    status = part.stat()
    part.write_bytes(b"y" * 100)
    os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))
    check = found(memory=str(tmp_path))["teacher memory"]
    assert not check.passed and "outputs-1 is damaged (part.npy); delete this folder" in check.message


def test_what_a_local_ray_cannot_use_is_said(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", f"/tmp/{'x' * 90}")
    assert not found()["Ray"].passed and "TMPDIR" in found()["Ray"].message
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    assert "RAY_ADDRESS: found http://127.0.0.1:8265" in found()["Ray"].message
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert "RAY_ADDRESS: nobody answers at 127.0.0.1:1" in found()["Ray"].message
    with socket.create_server(("127.0.0.1", 0)) as head:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{head.getsockname()[1]}")
        monkeypatch.setattr(destination, "_ANSWER_SECONDS", 0.1)
        assert "Ray" not in found()


def test_a_folder_that_holds_another_search(settings, tmp_path):
    folder = tmp_path / "R"
    folder.mkdir()
    there = identifying_settings(settings)
    held = {"settings": there, "task": "sst2", "teacher": "any"}
    (folder / "summary.json").write_text(json.dumps({"identity": held}))
    assert found(settings=settings, task="sst2", output=folder)["output"].passed
    seen = found(settings=settings, task="rte", output=folder)["output"]
    assert not seen.passed and "holds another search (another task); give a new folder" in seen.message
    there["space"]["batch_size"] = 4
    (folder / "summary.json").write_text(json.dumps({"identity": held}))
    assert "space.batch_size 4 there, 8 now" in found(settings=settings, task="sst2", output=folder)["output"].message


def test_the_outputs_bytes_are_at_most_what_the_formula_says(settings, glue, teacher, tmp_path):
    seen = found(settings=settings, task="sst2", teacher=str(teacher), data=glue, output=tmp_path)
    # 40 examples of at most 32 tokens, 16 wide, float16, one layer, 2 classes, 5 centroids: docs/benchmarks/cost.md
    most = 40 * (2 * 32 * 16 * 1 + 4 * 2 + 8 * 5 + 12) + 4 * 5 * 32 * 16
    assert f"at most {most / 1e9:.3g} GB" in seen["disk"].message


def test_the_verb_is_quick_and_its_exit_code_tells(glue, teacher, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    words = [SCRIPT, "doctor", path, "--task", "sst2", "--teacher", teacher, "--data", glue, "--output", tmp_path / "R"]
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0 and all(line.startswith("ok  ") for line in done.stdout.splitlines()), done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "fsd_tune.search.doctor" in imported and not imported & {"torch", "ray", "transformers"}, (
        "it answers at once"
    )
    wrong = subprocess.run([*words, "--cluster", tmp_path / "none"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "!!  cluster file: " in wrong.stdout and "Traceback" not in wrong.stderr


def test_what_is_no_search_or_no_place(settings, tmp_path):
    folder = tmp_path / "R"
    folder.mkdir()
    for damaged in ("[1]", "{bad"):
        (folder / "summary.json").write_text(damaged)
        seen = found(settings=settings, task="sst2", output=str(folder))["output"]
        assert not seen.passed and seen.message.startswith(
            f"{folder / 'summary.json'}: is damaged or does not belong to a search"
        )
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert not found(settings=settings, output=str(tmp_path / "loop"))["output"].passed
    assert "two slashes" in found(settings=settings, output="s3:/bucket/x")["output"].message


def test_another_search_behind_a_uri(settings, tmp_path):
    (tmp_path / "R").mkdir()
    held = {"settings": identifying_settings(settings), "task": "rte"}
    (tmp_path / "R" / "summary.json").write_text(json.dumps({"identity": held}))
    seen = found(settings=settings, task="sst2", output=f"file://{tmp_path}/R")["output"]
    assert not seen.passed and "holds another search (another task)" in seen.message
