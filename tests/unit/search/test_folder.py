"""What identifies a search, and so whether a command continues it; what a refused search leaves."""

import pytest

from fsd_tune.errors import InputError
from fsd_tune.report.compare import differences
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


SEVERAL = "method: {choice: [ce, kd]}\nspace: {alpha: {low: 0, high: 1}, temperature: 5}\nsearch: {trials: 8}\n"


def test_searches_of_earlier_versions_spend_freely_and_are_not_continued_equally(settings_from_yaml, load_settings):
    free, equal = settings_from_yaml(SEVERAL, "--compare-methods=best_overall"), settings_from_yaml(SEVERAL)
    # What summary.json of a search holds that was begun before there was `search.compare_methods`.
    earlier = {"settings": identifying_settings(free)}
    assert "compare_methods" not in earlier["settings"]["search"]
    assert differences(earlier, {"settings": identifying_settings(free)}) == []
    assert differences(earlier, {"settings": identifying_settings(equal)}) == [
        "search.compare_methods best_overall there, equal now"
    ]
    assert "compare_methods" not in identifying_settings(load_settings("kd"))["search"]


def test_searches_of_earlier_versions_continue_and_what_a_search_starts_from_identifies_it(load_settings):
    plain = identifying_settings(load_settings("kd"))
    assert "warm_from" not in plain["search"], "as before there was `search.warm_from`"
    warm = identifying_settings(load_settings("kd", **{"search.warm_from": "/runs/cola"}))
    assert differences({"settings": plain}, {"settings": warm}) == ["search.warm_from auto there, ['/runs/cola'] now"]


def test_objectives_limits_and_latency_identify_a_search_but_what_it_picks_does_not(load_settings):
    plain = identifying_settings(load_settings("kd"))
    assert "latency" not in plain and not plain["search"].keys() & {"objectives", "limits", "pick"}, "as before"
    assert identifying_settings(load_settings("kd", **{"search.pick": "knee"})) == plain
    given = {"search.objectives": "score,flops", "search.limits": "{size_mb: 9}", "latency.threads": "2"}
    lines = differences({"settings": plain}, {"settings": identifying_settings(load_settings("kd", **given))})
    assert {line.split()[0] for line in lines} == {"search.objectives", "search.limits.size_mb", "latency.threads"}
