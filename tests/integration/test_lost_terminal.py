"""A search that loses its terminal or the reader of its standard error, or whose group is ended, ends in order."""

import json
import os
import signal
import subprocess

import pytest

from tests.helpers.searching import command, gone, processes_of, short_folder
from tests.integration.test_resume import until

# Without a memory, so that trials begin at once.
SPACE = """
method: ce
space: {learning_rate: {low: 1e-4, high: 1e-2, log: true}, batch_size: 8, epochs: EPOCHS}
student: {layers: 2}
data: {max_length: 32}
search: {trials: 2}
asha: {reports: 4}
precision: float32
"""
LONG, SHORT = "400", "20"


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["stderr", "hangup", "group"])
def test_a_search_without_its_terminal_ends_in_order(glue, teacher, tmp_path, loss):
    folder, space_file = tmp_path / "R", tmp_path / "space.yaml"
    space_file.write_text(SPACE.replace("EPOCHS", SHORT if loss == "stderr" else LONG))
    with short_folder() as temporary:
        words = command(glue, teacher, folder, space_file, temporary)
        driver = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
        until(lambda: list(folder.glob("results/*/reports.jsonl")), driver)
        if loss == "stderr":
            assert driver.stderr is not None
            driver.stderr.close()
        else:
            # As `timeout` and schedulers do it; Ray's processes must outlive the end of the search.
            os.killpg(driver.pid, signal.SIGHUP if loss == "hangup" else signal.SIGTERM)
        assert driver.wait(timeout=300) == (0 if loss == "stderr" else 130)
        assert not gone(driver), "Ray's processes end with the search"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["state"] == ("done" if loss == "stderr" else "interrupted")
    assert (folder / "report.html").is_file() and (loss != "stderr" or (folder / "best/model.safetensors").is_file())


@pytest.mark.slow
def test_a_second_interrupt_says_what_is_missing(glue, teacher, tmp_path):
    folder, space_file = tmp_path / "R", tmp_path / "space.yaml"
    space_file.write_text(SPACE.replace("EPOCHS", LONG))
    with short_folder() as temporary:
        driver = subprocess.Popen(
            command(glue, teacher, folder, space_file, temporary),
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        until(lambda: list(folder.glob("results/*/reports.jsonl")), driver)
        os.kill(driver.pid, signal.SIGINT)
        until(lambda: json.loads((folder / "summary.json").read_text())["state"] != "running", driver)
        os.kill(driver.pid, signal.SIGINT)
        _, said = driver.communicate(timeout=300)
        assert driver.returncode == 130 and not processes_of(driver.pid)
    # The end may have been over by then.
    assert (folder / "report.html").is_file() or f"fsd-tune report {folder}" in said
    assert "Traceback" not in said
