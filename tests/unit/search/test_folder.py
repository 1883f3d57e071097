"""What identifies a search, and so whether a command continues it."""

from fsd_tune.search.folder import identifying_settings


def test_searches_of_earlier_versions_keep_their_identity_and_random_batches(load_settings):
    plain, grouped = (load_settings(**{"data.batching": batching}) for batching in ("random", "grouped"))
    assert load_settings() == plain
    # What summary.json of a search holds that was begun before there was `data.batching`.
    assert identifying_settings(plain)["data"] == {"max_length": 32, "padding": "masked", "train_limit": None}
    assert identifying_settings(grouped)["data"] == identifying_settings(plain)["data"] | {"batching": "grouped"}
