"""A Ray Tune trial: the distillation of one student as a `tune.Trainable`. It never loads the teacher's weights."""

from pathlib import Path
from typing import Any

import torch
from ray import tune

from fsd_tune.memory.actor import fetch_arrays
from fsd_tune.memory.build import BuiltMemory
from fsd_tune.memory.spec import MemorySpec
from fsd_tune.models.quiet import quiet_transformers
from fsd_tune.search import gpu_packing
from fsd_tune.settings.loader import Settings
from fsd_tune.storage import remote_copies, retry
from fsd_tune.training.distiller import Distiller
from fsd_tune.training.factory import DistillerFactory


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
    """

    _factory: DistillerFactory
    _distiller: Distiller

    def setup(
        self,
        config: dict[str, Any],
        settings: Settings | None = None,
        spec: MemorySpec | None = None,
        memory: tuple[Any, BuiltMemory] | None = None,
        reports: int = 1,
        checkpoints: tuple[int, ...] = (),
    ) -> None:
        """Start a trial in a new worker.

        Args:
            config: a mapping with `trial`, the number in the study; `config`, the flat configuration; and `restart`,
                the checkpoint of an earlier part of the search from which it continues (a folder or a URI), or "".
            settings: the settings of the search.
            spec: the specification of its memory.
            memory: the memory's actor and the built memory; None for a search of `ce` alone.
            reports: the number of evaluations of a whole trial.
            checkpoints: reports after which a checkpoint is saved (ASHA's rungs and the last).
        """
        assert settings is not None and spec is not None
        self._await_storage()
        quiet_transformers()
        torch.set_num_threads(max(1, int(settings.resources.cpus_per_trial)))
        self._reports = reports
        self._checkpoints = checkpoints
        self._factory = DistillerFactory(settings, spec, None if memory is None else fetch_arrays(*memory))
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self._distiller = self._factory.distiller(config["config"], self._reports)
        if config["restart"]:
            with remote_copies.folder_of(config["restart"]) as folder:
                self._distiller.load(folder)

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
        """Train to the next report.

        Returns:
            The report, with Tune's keys `done` and `should_checkpoint`.
        """
        record = self._distiller.train_to_next_evaluation()
        return record | {
            "done": self._distiller.done or "diverged" in record,
            "should_checkpoint": record["report"] in self._checkpoints and "diverged" not in record,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save the state that a trial needs to continue; see `Distiller.save`. Tune copies it to the search's folder.

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
