"""What identifies a search, and so whether a command continues it; what a refused search leaves."""

import pytest

from fsd_tune.errors import InputError
from fsd_tune.search.folder import hold_folder, identifying_settings


def test_searches_of_earlier_versions_keep_their_identity_and_random_batches(load_settings):
    plain, grouped = (load_settings(**{"data.batching": batching}) for batching in ("random", "grouped"))
    assert load_settings() == plain
    # What summary.json of a search holds that was begun before there was `data.batching`.
    assert identifying_settings(plain)["data"] == {"max_length": 32, "padding": "masked", "train_limit": None}
    assert identifying_settings(grouped)["data"] == identifying_settings(plain)["data"] | {"batching": "grouped"}


@pytest.mark.parametrize("before", [None, [], ["memory"]])
def test_a_refused_search_leaves_its_output_as_it_was(before, tmp_path):
    """Also an empty folder, which may be the user's mount point."""
    folder = tmp_path / "R"
    if before is not None:
        folder.mkdir()
        for name in before:
            (folder / name).mkdir()
    with pytest.raises(InputError), hold_folder(folder):
        raise InputError("a node lacks something")
    assert (sorted(path.name for path in folder.iterdir()) if folder.exists() else None) == before
