"""Many training runs in several processes; a result is a line of a file, and a run that has one is not made again."""

import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Self

import torch

from fsd_tune.storage import json_file

Job = dict[str, Any]


def key(job: Job) -> str:
    """Return the text by which a run is found in the file.

    Args:
        job: plain values.
    """
    return json.dumps(job, sort_keys=True)


def results_in(file: Path) -> dict[str, Any]:
    """Return the results of earlier runs by `key`. A line that was cut off is left out.

    Args:
        file: a file of `finish`, which may be missing.
    """
    if not file.exists():
        return {}
    rows = [row for _, row in json_file.read_rows(file) if row is not None]
    return {key(row["job"]): row["result"] for row in rows}


class Pool:
    """Processes that stay for several calls of `finish`, so that each imports torch once.

    Attributes:
        workers: number of processes.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        context = multiprocessing.get_context("spawn")
        # One thread each: a run is a function of its job alone, and small models gain little from more.
        self._executor = ProcessPoolExecutor(workers, context, _begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def finish(
        self, file: Path, jobs: Sequence[Job], work: Callable[[Job], Any], known: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Make the runs that the file lacks, and return the results of all jobs by `key`.

        Args:
            file: a JSON object a line: `job` and `result`.
            jobs: plain values, in the order in which they are started.
            work: makes a run; a function of a module, or a `partial` of one.
            known: results of other runs, by `key`.
        """
        made = {**(known or {}), **results_in(file)}
        wanted = {key(job): job for job in jobs}
        missing = {name: job for name, job in wanted.items() if name not in made}
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            # Ends a line that a stopped command left half written.
            stream.write("\n")
            futures = {self._executor.submit(work, job): name for name, job in missing.items()}
            for done, future in enumerate(as_completed(futures), start=1 + len(wanted) - len(missing)):
                name = futures[future]
                made[name] = future.result()
                stream.write(json.dumps({"job": wanted[name], "result": made[name]}) + "\n")
                stream.flush()
                print(f"  {file}: {done} of {len(wanted)}", file=sys.stderr, flush=True)
        return {name: made[name] for name in wanted}


def end_with_parent() -> None:
    """Let this worker end with its parent. When that is killed, it would go on with the runs that were queued."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _begin() -> None:
    torch.set_num_threads(1)
    end_with_parent()
