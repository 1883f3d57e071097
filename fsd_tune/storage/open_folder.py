"""Open a search's folder, on a disk or behind a URI."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsd_tune.errors import InputError
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.uri import is_uri, problems_of


@contextmanager
def open_for_reading(output: str | Path) -> Iterator[ExperimentFolder]:
    """A place to read from, whatever a search does in it meanwhile; what is written into it is stored at the end.

    Raises:
        InputError: no search is there, or its storage cannot be read.
    """
    if not is_uri(output):
        yield ExperimentFolder(output)
        return
    from fsd_tune.storage.remote_experiment_folder import RemoteExperimentFolder

    problems = problems_of(str(output), "URI")
    if problems:
        raise InputError(problems)
    made = RemoteExperimentFolder(str(output), purpose="view")
    try:
        made.download()
    except OSError as error:
        raise InputError(f"{output}: cannot be read: {str(error).splitlines()[0]}") from error
    yield made
    made.sync_all()


def open_experiment(output: "str | Path | ExperimentFolder") -> ExperimentFolder:
    """The place of a search's folder, a path or a URI."""
    if isinstance(output, ExperimentFolder):
        return output
    if not is_uri(output):
        return ExperimentFolder(output)
    from fsd_tune.storage.remote_experiment_folder import RemoteExperimentFolder

    return RemoteExperimentFolder(str(output))
