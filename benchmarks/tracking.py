"""What logging to Weights & Biases costs a search: `python -m benchmarks.tracking`.

Searches of short trials with tiny models, with logging off and to offline files in turn (A B A B), on one Ray.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from fsd_tune.cluster import connection
from fsd_tune.search.api import run
from fsd_tune.settings import loader
from tests.helpers import glue_folders, tiny

TRIALS = 12


def main() -> None:
    """Print seconds a trial with and without, and their difference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracking", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    flags = [
        "--method=fsd_ilg", "--student-layers=2", "--data-max-length=32", "--memory-centroids=5", "--batch-size=8",
        "--epochs=4", "--precision=float32", f"--trials={TRIALS}", "--sampler=random", "--asha=off",
        "--alpha={low: 0.1, high: 0.9}",
    ]  # fmt: skip
    seconds: dict[str, list[float]] = {"off": [], "offline": []}
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as temporary:
        folder = Path(place)
        glue_folders.write_glue(folder / "glue", train=40, dev=24)
        tiny.write_teacher(folder / "teacher", tiny.write_base(folder / "base"))
        with connection.connect(temporary=Path(temporary)):
            # The first one starts what the others find started; it is not counted.
            for number, mode in enumerate(["off", *["off", "offline"] * given.rounds]):
                settings = loader.load(None, loader.parse_flags([*flags, f"--wandb={mode}"]))
                began = time.monotonic()
                run(
                    settings, task="sst2", teacher=str(folder / "teacher"), data=folder / "glue",
                    output=folder / str(number), memory=folder / "memory",
                )  # fmt: skip
                if number:
                    seconds[mode].append(time.monotonic() - began)
    medians = {mode: statistics.median(values) for mode, values in seconds.items()}
    for mode, values in seconds.items():
        print(f"{mode:8s} {medians[mode]:.2f} s a search of {TRIALS} trials ({min(values):.2f} to {max(values):.2f})")
    pairs = [(b - a) / TRIALS for a, b in zip(seconds["off"], seconds["offline"], strict=True)]
    print(f"logging costs {statistics.median(pairs):+.3f} s a trial ({min(pairs):+.3f} to {max(pairs):+.3f}); goal 0.3")


if __name__ == "__main__":
    main()
