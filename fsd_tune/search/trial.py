"""A Ray Tune trial: the distillation of one student as a `tune.Trainable`. It never loads the teacher's weights."""

import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.train._internal.checkpoint_manager import _TrainingResult

from fsd_tune.memory.actor import fetch_arrays
from fsd_tune.memory.build import BuiltMemory
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.models.quiet import quiet_transformers
from fsd_tune.search import gpu_packing
from fsd_tune.search.ending import SAVED, EndingWatch
from fsd_tune.settings.loader import Settings
from fsd_tune.storage import checkpoints, remote_copies, retry
from fsd_tune.training.distiller import Distiller
from fsd_tune.training.factory import DistillerFactory

# How long a trial whose state is saved waits for the driver to stop it, before it looks again.
_STOP_SECONDS = 0.2


def probe(settings: Settings, spec: MemorySpec, memory: tuple[Any, BuiltMemory] | None) -> gpu_packing.Probe:
    """Return the needs of the largest trial of the space on this node's GPU.

    Args:
        settings: the settings of the search.
        spec: the specification of its memory.
        memory: the memory's actor and the built memory; None for a search of `ce` alone.
    """
    quiet_transformers()
    free_bytes, _ = torch.cuda.mem_get_info()
    factory = DistillerFactory(settings, spec, None if memory is None else fetch_arrays(*memory))
    largest = factory.distiller(gpu_packing.largest_configuration(settings), reports=1)
    return gpu_packing.measure(largest, free_bytes)


class DistillTrial(tune.Trainable):  # type: ignore[misc]
    """A Ray Tune trainable that distils one student and reports at equal fractions of the steps.

    Tune reuses its worker for the next trial, so that a worker loads its model only once.

    A checkpoint is written when it is due (`checkpoints.Pace`), between any two steps, and when the search ends early.
    At its end a trial offers its student; the driver decides whether it is among the best.
    """

    _factory: DistillerFactory
    _distiller: Distiller
    _pace: checkpoints.Pace
    _ending: EndingWatch
    _saved_step: int

    def setup(
        self,
        config: dict[str, Any],
        settings: Settings | None = None,
        spec: MemorySpec | None = None,
        memory: tuple[Any, BuiltMemory] | None = None,
        reports: int = 1,
        ending: str = "",
    ) -> None:
        """Start a trial in a new worker.

        Args:
            config: a mapping with `trial`, the number in the study; `config`, the flat configuration; and `restart`,
                the checkpoint of an earlier part of the search from which it continues (a folder or a URI), or "".
            settings: the settings of the search.
            spec: the specification of its memory.
            memory: the memory's actor and the built memory; None for a search of `ce` alone.
            reports: the number of evaluations of a whole trial.
            ending: the key that is set when the search ends early, see `ending.Ending`.
        """
        assert settings is not None and spec is not None
        self._await_storage()
        quiet_transformers()
        torch.set_num_threads(max(1, int(settings.resources.cpus_per_trial)))
        self._reports = reports
        self._ending = EndingWatch(ending)
        # A worker keeps the measured cost of a save for its next trials.
        self._pace = checkpoints.Pace()
        self._factory = DistillerFactory(settings, spec, None if memory is None else fetch_arrays(*memory))
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self._distiller = self._factory.distiller(config["config"], self._reports)
        if config["restart"]:
            with remote_copies.folder_of(config["restart"]) as folder:
                self._distiller.load(folder)
        self._started_from_here()

    def _started_from_here(self) -> None:
        self._saved_step = self._distiller.step
        self._checkpoint_bytes = self._distiller.checkpoint_bytes
        self._pace.begin()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in the same worker. It computes the same numbers as in a new worker.

        Args:
            new_config: the configuration, as `config` of `setup`.

        Returns:
            True, because the worker can always be reused.
        """
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next report, or until a checkpoint is due or the search ends.

        Returns:
            The report, with Tune's keys `done` and `should_checkpoint`. Without a report only the metric, NaN, because
            Tune requires it, and `saved`: true if the search ends and the trial's state is saved.
        """
        distiller = self._distiller
        if self._ending.asked() or not distiller.train_towards_evaluation(self._should_pause):
            ends = self._ending.asked()
            if ends:
                self._save_before_end()
            return {distiller.setup.task.metric: math.nan, SAVED: ends, "should_checkpoint": not ends}
        record = distiller.train_to_next_evaluation()
        diverged = "diverged" in record
        return record | {
            "done": distiller.done or diverged,
            "should_checkpoint": (distiller.done or self._is_due()) and not diverged,
        }

    def _is_due(self) -> bool:
        return self._pace.due(self._checkpoint_bytes)

    def _should_pause(self) -> bool:
        return self._ending.asked() or self._is_due()

    def _save_before_end(self) -> None:
        """Save what no checkpoint holds. Then wait, because Tune asks for the next step until the driver stops it."""
        if self._saved_step == self._distiller.step:
            time.sleep(_STOP_SECONDS)
        else:
            self.save()

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Save a checkpoint and measure what it costs.

        On a disk that the nodes share it is written in its place; Tune would write a temporary folder and copy it.

        Args:
            checkpoint_dir: Tune's argument, the folder to write; None for the next one of the trial.

        Returns:
            Tune's description of the checkpoint.
        """
        storage = self._storage
        with self._pace.measured(self._distiller.checkpoint_bytes):
            if checkpoint_dir is not None or storage is None or storage.storage_filesystem.type_name != "local":
                result = super().save(checkpoint_dir)
            else:
                storage._check_validation_file()
                metrics = dict(self._last_result or {})
                storage._update_checkpoint_index(metrics)
                folder = Path(storage.checkpoint_fs_path)
                # A killed worker may have left a part of a checkpoint of this name.
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                self.save_checkpoint(str(folder))
                result = _TrainingResult(checkpoint=tune.Checkpoint.from_directory(folder), metrics=metrics)
        self._saved_step = self._distiller.step
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save the state that a trial needs to continue; see `Distiller.save`.

        Args:
            checkpoint_dir: the folder to write.
        """
        self._distiller.save(Path(checkpoint_dir))
        self._await_storage()

    def restore(self, checkpoint_path: Any) -> Any:
        """Restore a checkpoint. Wait for the shared folder first, because Tune gives up a trial without a checkpoint.

        Args:
            checkpoint_path: Tune's checkpoint, or its path.

        Returns:
            The return value of Tune's method.
        """
        self._await_storage()
        return super().restore(checkpoint_path)

    def _await_storage(self) -> None:
        """Wait while this node cannot reach the search's folder; failing would use up the trial's retries at once."""
        if self._storage is None:
            return
        if self._storage.storage_filesystem.type_name == "local":
            retry.FolderWatch(Path(self._storage.experiment_fs_path), print).wait()
        else:
            system, root = self._storage.storage_filesystem, self._storage.storage_fs_path
            retry.retry_until_available(lambda: system.get_file_info([root]))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Continue from a checkpoint.

        Args:
            checkpoint_dir: the folder, as `save_checkpoint` wrote it.
        """
        self._distiller.load(Path(checkpoint_dir))
        self._started_from_here()
