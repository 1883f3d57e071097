"""The inputs and options of a search, as the functions of `fsd_tune.search` accept them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.data.splits import TaskLike
from fsd_tune.progress import Display
from fsd_tune.settings import loader
from fsd_tune.settings.loader import Settings
from fsd_tune.storage.experiment_folder import ExperimentFolder

SettingsLike = Settings | Mapping[str, Any] | Path | str


@dataclass(frozen=True)
class SearchInputs:
    """The inputs of a search.

    Attributes:
        task: id of a GLUE task, or the file (a Path) of a custom task.
        teacher: folder or hub id of the fine-tuned teacher.
        output: the search's folder, or a URI that pyarrow accepts (s3://, gs://). It is new, or holds the same search,
            whose ended trials are then kept.
        data: the folder that holds `SST-2/` and so on, or the folder to which the task file's paths are relative; None
            for the hub, or for the folder of the task file.
        memory: the folder, or URI, of teacher outputs and memories; None for `output/memory`.
    """

    task: TaskLike
    teacher: str | Path
    output: Path | str | ExperimentFolder
    data: Path | str | None = None
    memory: Path | str | None = None


@dataclass(frozen=True)
class RunOptions:
    """The options of a run of a search.

    Attributes:
        device: auto, cpu or cuda; auto is cuda when trials get a share of a GPU.
        overwrite: delete another search in `output`.
        errored: run failed trials of an earlier part of the search again.
        resuming: `output` holds the search already, so changed inputs are an error.
        address: the address of a Ray cluster; None for a local instance.
        ray_temporary: Ray's folder for sockets and logs; a short path.
        display: the display of progress; None shows nothing, but lines still go to the logger `fsd_tune`.
    """

    device: str = "auto"
    overwrite: bool = False
    errored: bool = False
    resuming: bool = False
    address: str | None = None
    ray_temporary: Path | None = None
    display: Display | None = None

    def shown(self) -> Display:
        """Return the display of progress; a quiet one if `display` is None."""
        return Display(quiet=True) if self.display is None else self.display


def from_keywords(
    inputs: SearchInputs | None, options: RunOptions | None, keywords: Mapping[str, Any]
) -> tuple[SearchInputs, RunOptions]:
    """Complete inputs and options with the fields that a caller passed as keywords.

    Args:
        inputs: the inputs; None if the keywords have them all.
        options: the options; None for the defaults.
        keywords: fields of `SearchInputs` and `RunOptions`, which replace those of `inputs` and `options`.

    Returns:
        The complete inputs and options.

    Raises:
        TypeError: a keyword is unknown or missing.
    """
    names = {field.name for field in dataclasses.fields(SearchInputs)}
    input_fields = {name: value for name, value in keywords.items() if name in names}
    option_fields = {name: value for name, value in keywords.items() if name not in names}
    return (
        SearchInputs(**input_fields) if inputs is None else dataclasses.replace(inputs, **input_fields),
        dataclasses.replace(options or RunOptions(), **option_fields),
    )


def as_settings(settings: SettingsLike) -> Settings:
    """Convert a search's `settings` argument to `Settings`.

    Args:
        settings: a `Settings`, a mapping of plain values, or the path of a YAML file.

    Returns:
        The settings, checked.

    Raises:
        InputError: keys or values are wrong. It names them all.
    """
    if isinstance(settings, Settings):
        return settings
    if isinstance(settings, Path | str):
        return loader.load(Path(settings))
    return Settings.from_dict(settings)
