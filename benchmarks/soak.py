"""`make soak`: one search killed at random moments, by process id, and resumed each time, until it is done.

Beside kills it loses its terminal (SIGHUP to all its processes) and the reader of its standard error.

A search that is done before all kills are made gets more trials.

Prints a line for each kill, the tally, and the seconds of work that a kill cost a running trial at most, which is the
work since its last checkpoint. Fails when anything else was lost, is there twice, or differs from an uninterrupted run
of the same configuration.
"""

import argparse
import collections
import random
import subprocess
import sys
import time
from pathlib import Path

from fsd_tune.report.results import load
from fsd_tune.storage import checkpoints
from tests.helpers import glue_folders, tiny
from tests.helpers.searching import (
    SCRIPT,
    SPACE,
    agree,
    as_if_uninterrupted,
    command,
    gone,
    is_trial,
    kill,
    processes_of,
    short_folder,
    title,
)

TARGETS = ("driver", "workers", "actor", "all", "terminal", "stderr")


def _over(started: float | None, seconds: float) -> bool:
    return started is not None and time.monotonic() - started > seconds


def _unsaved_seconds(folder: Path) -> float:
    """Return the longest time that a running trial has worked since its last checkpoint, or since its start."""
    unsaved = [0.0]
    for config in folder.glob("results/*/config.json"):
        trial = config.parent
        if not (trial / "trial.json").exists():
            seals = [path.stat().st_mtime for path in trial.glob(f"*/{checkpoints.SEAL}")]
            unsaved.append(time.time() - max(seals, default=config.stat().st_mtime))
    return max(unsaved)


def main() -> None:
    """Kill and resume."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--longest", type=float, default=12, help="seconds until a kill at most")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    tally: collections.Counter[str] = collections.Counter()
    with short_folder() as home:
        root = Path(home)
        glue_folders.write_glue(root / "glue", train=40, dev=24, tasks=("sst2",))
        teacher = tiny.write_teacher(root / "teacher", tiny.write_base(root / "base"))
        space_file, folder = root / "space.yaml", root / "R"
        space_file.write_text(SPACE.replace("epochs: 2", "epochs: 200").replace("trials: 6", f"trials: {given.trials}"))
        kills, trials, lost = 0, given.trials, 0.0
        while True:
            begun = (folder / "summary.json").is_file()
            with short_folder() as temporary:
                words = [SCRIPT, "resume", folder, "--temp-dir", temporary, "--trials", str(trials)]
                if not begun:
                    words = command(root / "glue", teacher, folder, space_file, temporary)
                driver = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
                moment, target = rng.uniform(1, given.longest), rng.choice(TARGETS) if kills < given.kills else "none"
                # Starting takes as long as all trials together: of four kills one falls into it, three come later.
                since = (
                    "the start" if rng.random() < 0.25 and target in ("driver", "all", "terminal") else "a trial began"
                )
                started = time.monotonic() if since == "the start" else None
                while driver.poll() is None and (target == "none" or not _over(started, moment)):
                    time.sleep(0.1)
                    if started is None and any(is_trial(title(one)) for one in processes_of(driver.pid)):
                        started = time.monotonic()
                unsaved = _unsaved_seconds(folder) if since == "a trial began" and target in ("driver", "all") else 0.0
                if driver.poll() is None and kill(driver, target):
                    kills += 1
                    lost = max(lost, unsaved)
                    tally[target] += 1
                    print(f"{kills:3d}: {target} killed {moment:.0f} s after {since}", flush=True)
                    if target in ("workers", "actor", "stderr"):
                        # The search goes on by itself; it ends, or the driver is killed a little later.
                        time.sleep(rng.uniform(1, 10))
                        kill(driver, "driver")
                elif driver.poll() is None:
                    continue_later = processes_of(driver.pid)
                    kill(driver, "driver")
                    print(f"     no {target} to kill among {len(continue_later)} processes; driver killed", flush=True)
                left = gone(driver)
                assert driver.stderr is not None
                said = "" if driver.stderr.closed else driver.stderr.read()
            if target == "terminal" and driver.returncode == 130:
                assert not left, f"{len(left)} processes outlived the terminal"
            if driver.returncode == 0 and kills >= given.kills:
                break
            assert driver.returncode in (0, -9, 130), f"exit code {driver.returncode}: {said[-3000:]}"
            if driver.returncode == 0:
                trials += given.trials
        results = load(folder)
        assert len(results.trials) == trials, len(results.trials)
        assert results.problems == (), results.problems
        agree(results)
        as_if_uninterrupted(results, root / "glue")
        states = results.trials["state"].value_counts().to_dict()
        passes = len((folder / "memory" / "passes.jsonl").read_text(encoding="utf-8").splitlines())
    print(f"{kills} kills: {dict(tally)}; {trials} trials, each once: {states}; teacher passes paid: {passes}")
    print(f"a killed driver cost a running trial {lost:.1f} s of work at most")
    print("every trial's reports are those of its configuration trained in one go")
    if states.get("failed"):
        sys.exit("trials failed")


if __name__ == "__main__":
    main()
