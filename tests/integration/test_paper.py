"""The paper's protocol from end to end with tiny models: interrupted once, continued, and read back."""

import json
import signal
import subprocess
import time

import pandas as pd
import pytest

from fsd_tune.paper.results import read_results
from fsd_tune.storage.search_summary import SearchSummary
from tests.helpers import glue_folders, tiny
from tests.helpers.searching import SCRIPT, gone, short_folder

SYSTEMS = ("vkd", "fsd")


def command(folder, temporary):
    return [
        SCRIPT, "paper", "--task", "rte", "--model", folder / "base", "--data", folder / "glue", "--small",
        "--trials", "1", "--systems", ",".join(SYSTEMS), "--output", folder / "out", "--temp-dir", temporary, "--json",
    ]  # fmt: skip


def modified(folder):
    """The files that hold finished trials and runs, with their times."""
    found = [*folder.rglob("results/*/config.json"), *folder.rglob("confirm/runs/*.json")]
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_protocol_is_continued_after_a_kill(tmp_path):
    glue_folders.write_glue(tmp_path / "glue", train=80, dev=24, tasks=("rte",))
    tiny.write_base(tmp_path / "base")
    task = tmp_path / "out" / "rte"
    log = tmp_path / "log"
    with short_folder() as temporary:
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command(tmp_path, temporary), stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + 1500
        while not any(task.rglob("confirm/runs/*.json")):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        gone(process)
        before = modified(task)
    with short_folder() as temporary:
        again = subprocess.run(command(tmp_path, temporary), capture_output=True, text=True, timeout=1800, check=False)
    assert again.returncode == 0, again.stderr
    after = modified(task)
    assert before.items() <= after.items(), "what had ended was made again"
    document = json.loads(again.stdout)["tasks"]["rte"]
    (results,) = read_results(tmp_path / "out")
    assert json.loads(json.dumps(results.as_json())) == document
    assert results.small and results.metrics == ("accuracy",) and results.teacher is not None
    for selection in ("dev", "holdout"):
        for system in SYSTEMS:
            found = results.systems[selection][system]
            assert len(found.scores) == 6 and found.trials == 1
            assert found.config["method"] == {"vkd": "kd", "fsd": "fsd_ilg"}[system]
            folder = task / (system if selection == "dev" else f"{system}-holdout")
            assert SearchSummary.read(folder).state == "done"
            # The winner's score in its own search, and the examples that chose it.
            assert SearchSummary.read(folder).selection_examples == (24 if selection == "dev" else 8)
    compared = results.compare("dev", "accuracy")
    assert compared is not None and compared.baseline == "vkd" and compared.pairs == 6
    assert "66.61 (1.01)" in (tmp_path / "out" / "paper.html").read_text()
    frame = pd.read_csv(tmp_path / "out" / "paper.csv")
    assert set(frame.loc[frame["seeds"] > 0, "system"]) == {"VKD", "FSD"}
