"""What the driver pays as a search grows: `make bench-growth`. Processor time, synthetic trials, no training, no Ray.

For each size a finished search of so many trials is written, restored as `resume` does, continued by a few trials that
run through the searcher, ASHA and the callback as Tune calls them, and reported.
"""

import argparse
import contextlib
import math
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler
from rich.console import Console
from rich.table import Table

from fsd_tune.progress import Display
from fsd_tune.report.html_report import write_report
from fsd_tune.search.asha import ResumableAsha
from fsd_tune.search.progress import SearchProgress
from fsd_tune.search.resume import ResumeState, restore_trials
from fsd_tune.search.searcher import StudySearcher
from fsd_tune.search.study import SearchStudy
from fsd_tune.search.trial_logger import Collaborators, LoggedSearch, TrialLogger
from fsd_tune.search.trial_shapes import TrialShapes
from fsd_tune.settings import loader
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.shape_costs import ShapesSummary
from tests.helpers import result_folders

SIZES = (50, 250, 1000, 5000)
SAMPLERS = ("tpe", "cmaes", "random")
CONTINUED = 12
METRIC, GRACE, FACTOR = "accuracy", 1, 3


class Clock:
    """Adds up the processor time of named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block as a part."""
        began = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began


def play(folder: Path, settings: Settings, past: ResumeState, study: SearchStudy, clock: Clock) -> None:
    """Run `CONTINUED` more trials, one after the other."""
    searcher = StudySearcher(study, METRIC, result_folders.REPORTS, workers=1)
    asha = ResumableAsha(METRIC, result_folders.REPORTS, GRACE, FACTOR, past.trials)
    progress = SearchProgress(Display(quiet=True), 10**6, METRIC, result_folders.REPORTS, [], asha.table)
    progress.add_past(past.trials)
    silent: Any = SimpleNamespace(started=lambda *_: None, reported=lambda *_: None, ended=lambda *_: None)
    search = LoggedSearch(
        ExperimentFolder(folder), METRIC, result_folders.REPORTS, TrialShapes(settings, ShapesSummary())
    )
    logger = TrialLogger(search, Collaborators(progress, silent, searcher, asha))
    for index in range(CONTINUED + 1):
        name = f"new-{index}"
        # The first suggestion of a resumed search reads all trials.
        with clock.part("suggest" if index else "resume"):
            asked = searcher.suggest(name)
        assert isinstance(asked, dict)
        storage = SimpleNamespace(trial_dir_name=f"{asked['trial']:04d}_{name}")
        trial: Any = SimpleNamespace(trial_id=name, config=asked, storage=storage, last_result={})
        with clock.part("record" if index else "warm-up"):
            asha.on_trial_add(None, trial)
            logger.on_trial_start(0, [], trial)
        for report in range(1, result_folders.REPORTS + 1):
            value = 0.5 + 0.3 * (1 - math.exp(-report / 3)) - 0.01 * abs(math.log10(asked["config"]["gamma_i"]))
            trial.last_result = result_folders.report(report, value)
            with clock.part("record"):
                last = report == result_folders.REPORTS
                stop = not last and asha.on_trial_result(None, trial, trial.last_result) == TrialScheduler.STOP
                if not (last or stop):
                    searcher.on_trial_result(name, trial.last_result)
                logger.on_trial_result(0, [], trial, trial.last_result)
            if stop:
                break
        with clock.part("record"):
            asha.on_trial_complete(None, trial, trial.last_result)
            searcher.on_trial_complete(name, trial.last_result)
            logger.on_trial_complete(0, [], trial)


def write_search(folder: Path, trials: int) -> None:
    """A search's folder without its study: `result_folders` thins the trials out at the rungs as ASHA does."""
    random.seed(0)
    result_folders.write_search(folder, trials, study=False)


def measured(trials: int, sampler: str) -> Clock:
    """Measure a search of so many trials."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "search")
        write_search(folder, trials)
        settings = loader.load(folder / "settings.yaml", {"search.sampler": sampler})
        with clock.part("resume"):
            past = restore_trials(folder, settings, errored=False)
            if sampler == "cmaes":
                for number, record in past.trials.items():
                    record.generation = number // 10
            study = SearchStudy(settings, folder / "study.db", "sst2-fsd_ilg", past.trials)
        play(folder, settings, past, study, clock)
        study.close()
        with clock.part("report"):
            write_report(folder)
    return clock


def main() -> None:
    """Print a row for each sampler and size."""
    parser = argparse.ArgumentParser(prog="make bench-growth", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    given = parser.parse_args()
    table = Table(title="processor time of the driver, 10 reports a trial, 7 hyperparameters", title_justify="left")
    for name in ("sampler", "trials", "suggest, ms a trial", "record, ms a trial", "resume, s", "report, s"):
        table.add_column(name, justify="right")
    for sampler in given.samplers:
        for size in given.sizes:
            seconds = measured(size, sampler).seconds
            each = [f"{1e3 * seconds[part] / CONTINUED:.1f}" for part in ("suggest", "record")]
            table.add_row(sampler, f"{size:,}", *each, f"{seconds['resume']:.2f}", f"{seconds['report']:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
