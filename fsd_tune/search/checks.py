"""The inputs and results of the checks before a search; `doctor` makes the checks."""

from dataclasses import dataclass
from pathlib import Path

from fsd_tune.data import splits
from fsd_tune.settings.loader import Settings


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: the name of the check.
        message: what was found, or what to do.
        passed: true if a search may start.
    """

    name: str
    message: str
    passed: bool = True


@dataclass(frozen=True)
class CheckRequest:
    """The inputs of a search to check; inputs that are None are not checked.

    Attributes:
        settings: the resolved settings.
        task: id of a GLUE task, or the file of a custom task.
        teacher: folder or hub id.
        data: folder of the data.
        memory: folder or URI of the memories.
        output: the search's folder or URI.
        address: the address of a Ray cluster.
        cluster: the YAML file for `ray up`.
    """

    settings: Settings | None = None
    task: splits.TaskLike | None = None
    teacher: str | None = None
    data: Path | None = None
    memory: str | None = None
    output: str | None = None
    address: str | None = None
    cluster: Path | None = None
