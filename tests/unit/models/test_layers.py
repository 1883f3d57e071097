import pytest

from fsd_tune.models.layers import global_pair, layer_pairs, start_layers


@pytest.mark.parametrize(
    ("layers", "lt", "ls", "expected"),
    [
        ("penultimate", 12, 6, ((11, 5),)),
        ("last", 12, 6, ((12, 6),)),
        ("all", 12, 6, ((2, 1), (4, 2), (6, 3), (8, 4), (10, 5))),
        ("all", 6, 3, ((2, 1), (4, 2))),
        ([[11, 5], [0, 0]], 12, 6, ((11, 5), (0, 0))),
        ("penultimate", 12, 1, ((12, 1),)),
    ],
)
def test_pairs_of_the_method(layers, lt, ls, expected):
    assert layer_pairs(layers, lt, ls) == expected


@pytest.mark.parametrize("pair", [[13, 5], [11, 7]])
def test_a_pair_beyond_a_model_is_refused(pair):
    with pytest.raises(ValueError, match=r"teacher has layers 0\.\.12 and the student 0\.\.6"):
        layer_pairs([pair], 12, 6)


def test_the_memory_stands_for_the_penultimate_features():
    assert global_pair("penultimate", 12, 6) == (11, 5)
    assert global_pair("all", 12, 6) == (11, 5)
    assert global_pair([[3, 1]], 12, 6) == (11, 5)
    assert global_pair("last", 12, 6) == (12, 6)


@pytest.mark.parametrize(
    ("start", "expected"),
    [("copy", (0, 1, 2)), ("last", (3, 4, 5)), ("every_other", (0, 2, 4)), ("teacher", (1, 3, 5))],
)
def test_start_layers(start, expected):
    assert start_layers(start, 6, 3) == expected
