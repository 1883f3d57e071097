from pathlib import Path

import pytest

from fsd_tune.cluster import connection
from tests.helpers.searching import short_folder


@pytest.fixture(scope="module")
def ray_session():
    """A local Ray in a temporary folder, shared by the tests of a file."""
    with short_folder() as folder, connection.connect(temporary=Path(folder)):
        yield
