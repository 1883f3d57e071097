"""Trials an hour on one GPU that 1, 2, 4 or 8 of them share: what `sharing.MOST` should be. Needs `--device cuda`."""

import shutil
import tempfile
from pathlib import Path

from benchmarks.setting import Setting
from fsd_tune.search.api import run
from fsd_tune.settings import loader

SHARING = (1, 2, 4, 8)


def trials_an_hour(setting: Setting) -> list[dict[str, object]]:
    """A row for each number of trials that share the GPU: eight equal trials, none stopped early."""
    rows: list[dict[str, object]] = []
    for sharing in SHARING:
        given = {
            "method": "fsd_ilg",
            "student-layers": setting.student_layers,
            "student-start": "teacher",
            "batch-size": setting.batch_size,
            "data-max-length": setting.max_length,
            "data-train-limit": setting.examples,
            "memory-centroids": setting.centroids,
            "epochs": 3,
            "asha": "off",
            "trials": max(SHARING),
            "gpus-per-trial": 1 / sharing,
        }
        settings = loader.load(None, loader.parse_flags([f"--{k}={v}" for k, v in given.items()]))
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as ray:
            results = run(
                settings, task="sst2", teacher=str(setting.teacher), data=setting.data, output=Path(folder, "R"),
                memory=setting.folder, device="cuda", ray_temporary=Path(ray),
            )  # fmt: skip
            first = results.reports["timestamp"] - results.reports["time_total_s"]
            seconds = float(results.reports["timestamp"].max() - first.min())
            shutil.rmtree(Path(folder, "R"), ignore_errors=True)
        rate = 3600 * len(results.trials) / seconds
        rows.append(
            {
                "figure": f"trials an hour, {sharing} sharing the GPU",
                "value": rate,
                "low": rate,
                "high": rate,
                "goal": "reported",
                "met": None,
                "note": f"{len(results.trials)} trials in {seconds:.0f} s",
            }
        )
    return rows
