"""A split of MNLI's size from generated sentences: `make bench-scale`. Does memory stay bounded, time linear?

Each size runs `fsd-tune memory`, then `fsd-tune distill` for one epoch, as a user would, with a tiny model; the peak of
the process's own (anonymous) memory is sampled, for pages of mapped files are the system's to drop.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from fsd_tune.data import splits
from tests.helpers import tiny

SIZES = (49_088, 98_176, 196_351, 392_702)
# Where the official file has parses and the like, a dash.
_COLUMNS = ["index", *(f"other{i}" for i in range(7)), "sentence1", "sentence2", "label1", "gold_label"]


def write_mnli(folder: Path, rows: int) -> None:
    """`folder/MNLI/` in the official layout: texts of 2 to 30 words, about 40 tokens an example."""
    (folder / "MNLI").mkdir(parents=True)
    words, labels = np.asarray(tiny.words()[5:-8]), splits.get_task("mnli").labels
    rng = np.random.default_rng(0)
    for name, count in (("train", rows), ("dev_matched", 500), ("dev_mismatched", 500)):
        with (folder / "MNLI" / f"{name}.tsv").open("w", encoding="utf-8") as stream:
            stream.write("\t".join(_COLUMNS) + "\n")
            for row in range(count):
                texts = [" ".join(rng.choice(words, rng.integers(2, 31))) for _ in range(2)]
                label = labels[rng.integers(3)]
                stream.write("\t".join([str(row), *["-"] * 7, *texts, label, label]) + "\n")


def watched(command: list[str]) -> tuple[float, float, float]:
    """Seconds of a command, and the peaks in bytes of its anonymous and of all its resident memory."""
    began, own, resident = time.monotonic(), 0, 0
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        seen = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                memory = seen.memory_info()
            except psutil.NoSuchProcess:
                break
            own, resident = max(own, memory.rss - memory.shared), max(resident, memory.rss)
            time.sleep(0.1)
        if process.wait():
            errors.seek(0)
            sys.exit(f"{' '.join(command)} failed: {errors.read()[-2000:]}")
    return time.monotonic() - began, own, resident


def main() -> None:
    """Print a row for each size and step."""
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    given = parser.parse_args()
    table = Table(
        title="generated MNLI, hidden size 16, 4-layer teacher, 2-layer student, K = 300", title_justify="left"
    )
    for name in ("step", "rows", "seconds", "ms a row", "own memory at the peak", "with mapped files"):
        table.add_column(name, justify="right")
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    script = str(Path(sys.executable).parent / "fsd-tune")
    try:
        base = tiny.write_base(folder / "base")
        words = dict(enumerate(splits.get_task("mnli").labels))
        teacher = tiny.write_teacher(folder / "teacher", base, num_labels=3, id2label=words)
        for rows in given.sizes:
            data, memory = folder / f"data-{rows}", folder / f"memory-{rows}"
            write_mnli(data, rows)
            common = ["--task", "mnli", "--teacher", str(teacher), "--data", str(data), "--memory", str(memory)]
            common += ["--student-layers=2", "--data-max-length=64", "--precision=float32", "--quiet"]
            common += ["--device=cpu", "--epochs=1", "--batch-size=256"]
            space = "search_spaces/fsd_ilg.yaml"
            steps = {
                "memory": [script, "memory", space, *common],
                "distill": [script, "distill", *common, "--method=fsd_ilg", "--output", str(folder / f"s-{rows}")],
            }
            for step, command in steps.items():
                print(f"  {step}, {rows} rows ...", file=sys.stderr, flush=True)
                seconds, own, resident = watched(command)
                figures = (
                    f"{seconds:.0f}",
                    f"{1e3 * seconds / rows:.2f}",
                    f"{own / 1e9:.2f} GB",
                    f"{resident / 1e9:.2f} GB",
                )
                table.add_row(step, f"{rows:,}", *figures)
            shutil.rmtree(memory)
            shutil.rmtree(data)
    finally:
        shutil.rmtree(folder)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
