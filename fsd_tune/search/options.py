"""What a search works on and how it runs, as the functions of `fsd_tune.search` take it."""

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
    """What a search works on.

    Attributes:
        task: id of a GLUE task, or the file (a Path) of one's own.
        teacher: folder or hub id of the fine-tuned teacher.
        output: the search's folder, or a URI that pyarrow takes (s3://, gs://). It is new, or holds the same search,
            whose ended trials are then kept.
        data: the folder that holds `SST-2/` and so on, or the folder from which the task file's paths start; None for
            the hub, or the task file's own folder.
        memory: the folder, or URI, of teacher outputs and memories; None for `output/memory`.
    """

    task: TaskLike
    teacher: str | Path
    output: Path | str | ExperimentFolder
    data: Path | str | None = None
    memory: Path | str | None = None


@dataclass(frozen=True)
class RunOptions:
    """How a search runs.

    Attributes:
        device: auto, cpu or cuda; auto is cuda when trials get a share of a GPU.
        overwrite: delete what `output` holds of another search.
        errored: run failed trials of an earlier part of the search again.
        resuming: `output` holds the search already; inputs that have changed since are an error.
        address: the address of a Ray cluster; None for a local instance.
        ray_temporary: Ray's folder for sockets and logs; a short path.
        display: shows progress; None shows nothing, but lines still go to the logger `fsd_tune`.
    """

    device: str = "auto"
    overwrite: bool = False
    errored: bool = False
    resuming: bool = False
    address: str | None = None
    ray_temporary: Path | None = None
    display: Display | None = None

    def shown(self) -> Display:
        """Return the display of progress."""
        return Display(quiet=True) if self.display is None else self.display


def from_keywords(
    inputs: SearchInputs | None, options: RunOptions | None, keywords: Mapping[str, Any]
) -> tuple[SearchInputs, RunOptions]:
    """Complete inputs and options with the fields that a caller gave by keyword.

    Args:
        inputs: None if they are all among the keywords.
        options: None for the defaults.
        keywords: fields of `SearchInputs` and `RunOptions`, which replace those of `inputs` and `options`.

    Raises:
        TypeError: a keyword that neither has, or a missing one.
    """
    names = {field.name for field in dataclasses.fields(SearchInputs)}
    given = {name: value for name, value in keywords.items() if name in names}
    others = {name: value for name, value in keywords.items() if name not in names}
    return (
        SearchInputs(**given) if inputs is None else dataclasses.replace(inputs, **given),
        dataclasses.replace(options or RunOptions(), **others),
    )


def as_settings(settings: SettingsLike) -> Settings:
    """Convert a search's `settings` argument to `Settings`.

    Args:
        settings: a `Settings`, a mapping of plain values, or the path of a YAML file.

    Raises:
        InputError: wrong keys or values, all of them named.
    """
    if isinstance(settings, Settings):
        return settings
    if isinstance(settings, Path | str):
        return loader.load(Path(settings))
    return Settings.from_dict(settings)
