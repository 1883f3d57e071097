import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import pool
from tests import ROOT


def square(job):
    if job["number"] < 0:
        raise ValueError("negative")
    return [job["number"] ** 2, os.getpid()]


@pytest.fixture(scope="module")
def processes():
    with pool.Pool(2) as made:
        yield made


def test_a_run_that_has_a_line_is_not_made_again(processes, tmp_path):
    file = tmp_path / "runs.jsonl"
    first = processes.finish(file, [{"number": 3}], square)
    # What a stopped command leaves.
    with file.open("a") as stream:
        stream.write('{"job": {"number": 4}, "res')
    second = processes.finish(file, [{"number": 3}, {"number": 4}], square)
    assert second[pool.key({"number": 3})] == first[pool.key({"number": 3})]
    assert second[pool.key({"number": 4})][0] == 16
    assert second[pool.key({"number": 4})][1] != os.getpid()
    assert pool.results_in(file) == second


def test_what_was_made_before_a_failure_is_kept(processes, tmp_path):
    file = tmp_path / "runs.jsonl"
    with pytest.raises(ValueError, match="negative"):
        processes.finish(file, [{"number": 2}, {"number": -1}], square)
    kept = [json.loads(line)["job"] for line in file.read_text().splitlines() if line]
    assert {"number": -1} not in kept
    assert processes.finish(file, [{"number": 2}], square)[pool.key({"number": 2})][0] == 4


def test_the_order_of_keys_does_not_matter():
    assert pool.key({"a": 1, "b": 2}) == pool.key({"b": 2, "a": 1})


def say_and_sleep(job):
    Path(job["file"]).write_text(str(os.getpid()))
    time.sleep(100)


def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    script, started = tmp_path / "run.py", tmp_path / "pid"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from benchmarks import pool\nfrom tests.unit.benchmarks.test_pool import say_and_sleep\n"
        "if __name__ == '__main__':\n"
        "    pool.Pool(1).finish(Path(sys.argv[1]), [{'file': sys.argv[2]}], say_and_sleep)\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "runs.jsonl"), str(started)]
    parent = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        wait_for(lambda: started.exists() and started.read_text())
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not is_running(started.read_text()))


def is_running(pid):
    try:
        return "State:\tZ" not in Path("/proc", pid, "status").read_text()
    except OSError:
        return False


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
