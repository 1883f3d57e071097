"""`published`: what it implies by script and method, what wins against it, and what contradicts it."""

import pytest
import yaml

from fsd_tune.errors import InputError
from fsd_tune.report.compare import differences
from fsd_tune.settings import published
from fsd_tune.settings.loader import Settings, dump, flags
from fsd_tune.settings.methods import METHODS
from fsd_tune.settings.published_flags import FLAGS
from fsd_tune.settings.reference import describe_settings

STEPS = {"clipping": "together", "epsilon": "published", "accumulation": "published"}


def settings(method="fsd_i", **values):
    return Settings.from_dict({"method": method, **values})


def chosen(made):
    return (
        made.data.padding, made.loss.distance, made.student.memory_start, made.memory.algorithm,
        made.optimizer.model_dump(), made.data.batching, made.precision,
    )  # fmt: skip


@pytest.mark.parametrize("method", sorted(METHODS))
def test_true_sets_what_the_published_code_does(method):
    made = settings(method, published=True)
    assert chosen(made) == ("published", "raw", "published", "published", STEPS, "random", "float32")
    assert Settings.from_dict(yaml.safe_load(dump(made))) == made
    assert made.published is True


def test_without_it_nothing_is_set():
    assert settings(published=False) == settings()
    assert chosen(settings())[-2:] == ("random", "auto") and settings().published is False


@pytest.mark.parametrize(
    ("method", "value", "layers"),
    [
        ("fsd_l", True, "last"),
        ("fsd_l", "glue_with_cka_l.py", "last"),
        ("fsd_l", "glue_with_cka_i.py", "penultimate"),
        ("fsd_i", True, "penultimate"),
        ("fsd_g", "glue_with_cka_g.py", "penultimate"),
        ("fsd_ilg", True, "penultimate"),
        ("fsd_il", "glue_with_cka_ilg.py", "penultimate"),
        ("pkd", True, "penultimate"),
        ({"choice": ["fsd_l", "fsd_i"]}, True, "penultimate"),
    ],
)
def test_layer_pairs_follow_the_script(method, value, layers):
    assert settings(method, published=value).loss.layers == layers


def test_what_is_given_wins():
    made = settings(
        "fsd_l", published=True, data={"padding": "masked"}, loss={"layers": "all"}, optimizer={"epsilon": "torch"},
        search={"trials": 9}, precision="bf16",
    )  # fmt: skip
    assert made.optimizer.model_dump() == STEPS | {"epsilon": "torch"}
    assert (made.data.padding, made.loss.layers, made.loss.distance) == ("masked", "all", "raw")
    assert (made.precision, made.search.trials) == ("bf16", 9)
    lines = published.lines(made.published, made.methods, yaml.safe_load(dump(made)))
    assert "data.padding: masked, set by you (published: published)" in lines
    assert "loss.distance: raw" in lines and "precision: bf16, set by you (published: float32)" in lines


def test_published_padding_implies_the_steps_by_itself():
    assert settings(data={"padding": "published"}).optimizer.model_dump() == STEPS
    kept = settings(data={"padding": "published"}, optimizer={"clipping": "separate"})
    assert kept.optimizer.model_dump() == STEPS | {"clipping": "separate"}
    assert kept.memory.algorithm == "kmeans"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"published": "glue_with_cka_1.py"},
            "published: found text 'glue_with_cka_1.py', but must be true, false or one of glue_with_cka_i.py, .*"
            "Did you mean `glue_with_cka_l.py`",
        ),
        ({"published": 1}, "published: found 1, but must be true, false or one of"),
        (
            {"published": "glue_with_cka_l.py"},
            "published: found glue_with_cka_l.py, which trains fsd_l, but method is fsd_i.",
        ),
        (
            {"published": True, "student": {"start": "random", "hidden_size": 8}},
            "student.hidden_size: found 8, but must be null with `published`: the published students are as wide",
        ),
        ({"optimizer": {"clipping": "none"}}, "optimizer.clipping: found text 'none', but must be one of separate"),
    ],
)
def test_contradictions(values, message):
    with pytest.raises(InputError, match=message) as refused:
        settings(**values)
    assert len(refused.value.problems) == 1


def test_a_search_of_an_earlier_version_is_the_same_search():
    """Its record lacks the keys of this version."""
    for values in ({}, {"data": {"padding": "published"}}):
        now = yaml.safe_load(dump(settings(**values)))
        before = {key: value for key, value in now.items() if key not in ("optimizer", "published")}
        assert differences({"settings": before}, {"settings": now}) == []
    before = yaml.safe_load(dump(settings()))
    del before["optimizer"]
    changed = yaml.safe_load(dump(settings(optimizer={"epsilon": "published"})))
    assert differences({"settings": before}, {"settings": changed}) == ["optimizer.epsilon torch there, published now"]


def test_the_table_of_flags_names_what_exists():
    keys = {row.key for row in describe_settings()}
    own_flags = {flag for flag, _, _ in flags()}
    for flag in FLAGS:
        for place in filter(None, flag.here.split(", ")):
            key = place.partition(":")[0]
            assert key in keys or key in own_flags or key.startswith(("fsd-tune ", "--")), flag
    scripts = {script.removeprefix("glue_with_cka_").removesuffix(".py").upper() for script in published.SCRIPTS}
    assert {name for flag in FLAGS for name in flag.scripts.split()} == scripts | {"memory", "all", "-"}
