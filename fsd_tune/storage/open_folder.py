"""Open the experiment folder of a search, on a disk or behind a URI."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsd_tune.errors import InputError
from fsd_tune.storage.experiment_folder import ExperimentFolder
from fsd_tune.storage.uri import is_uri


@contextmanager
def open_for_reading(output: str | Path) -> Iterator[ExperimentFolder]:
    """Open an experiment folder for reading; its search may still run.

    A remote folder is copied. Nothing is uploaded, because its search may be running and may know more by now.

    Args:
        output: a path or a URI.

    Yields:
        The experiment folder, downloaded.

    Raises:
        InputError: the storage cannot be read.
    """
    if not is_uri(output):
        yield ExperimentFolder(output)
        return
    from fsd_tune.storage.remote_experiment_folder import RemoteExperimentFolder, named_in_errors

    experiment = RemoteExperimentFolder(str(output), purpose="view")
    experiment.storage.require("URI", write=False)
    try:
        experiment.download()
    except OSError as error:
        raise InputError(f"{output}: cannot be read: {str(error).splitlines()[0]}") from error
    with named_in_errors(experiment.folder, str(output)):
        yield experiment


def open_experiment(output: "str | Path | ExperimentFolder") -> ExperimentFolder:
    """Return the experiment folder at a path or URI, to work in.

    Args:
        output: a path, a URI, or an experiment folder, which is returned as it is.
    """
    if isinstance(output, ExperimentFolder):
        return output
    if not is_uri(output):
        return ExperimentFolder(output)
    from fsd_tune.storage.remote_experiment_folder import RemoteExperimentFolder

    return RemoteExperimentFolder(str(output))


def open_begun(output: "str | Path | ExperimentFolder", flag: str) -> ExperimentFolder:
    """Return the experiment folder of a search that has begun, to work in.

    Args:
        output: as for `open_experiment`.
        flag: the option to name in the message.

    Raises:
        InputError: it is a file, or cannot be written.
    """
    experiment = open_experiment(output)
    if experiment.folder.is_file():
        raise InputError(f"{flag}: {output} is a file, but must be the `--output` folder of a search.")
    experiment.check_writable(flag)
    return experiment
