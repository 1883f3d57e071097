"""The student's depth, initial weights and width as choices: reading, errors, configurations."""

import itertools
import json
import pickle
from pathlib import Path

import optuna
import pytest

from fsd_tune.errors import InputError
from fsd_tune.settings.configuration import (
    adopt,
    distributions,
    first_configurations,
    picked,
    resolve,
    sample,
    unconditional,
)
from fsd_tune.settings.loader import Settings, dump, load
from fsd_tune.settings.overrides import read_configuration_file
from fsd_tune.settings.schema import Student
from fsd_tune.settings.shapes import described, student_of, students

KD = "method: kd\nspace: {alpha: {low: 0, high: 1}, temperature: 5}\n"
SHAPES = KD + (
    "student:\n  layers: {choice: [2, 4]}\n  start: {choice: [every_other, random]}\n"
    "  hidden_size: {choice: [null, 192]}\n"
)
PLACE = "space.yaml:{}: "


def _load(tmp_path: Path, text: str, **overrides: str) -> Settings:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return load(path, {f"student.{name}": value for name, value in overrides.items()})


def _shape(student: Student) -> tuple[int, str, int | None]:
    return student.layers, student.start, student.hidden_size


def test_every_configuration_of_a_space_with_shapes(tmp_path: Path) -> None:
    settings = _load(tmp_path, SHAPES)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(60):
        trial = study.ask()
        config = sample(settings, trial)
        assert list(config)[:4] == ["method", "layers", "start", "hidden_size"]
        assert ("hidden_size" in trial.params) == (config["start"] == "random")
        assert picked(settings, config) == trial.params
        assert trial.distributions == {name: distributions(settings)[name] for name in trial.params}
        # The searched parameters alone say as much about the shape as the whole configuration.
        student = student_of(settings, config)
        assert student == student_of(settings, trial.params)
        assert _shape(student) == (config["layers"], config["start"], config["hidden_size"])
        seen.add(student)
    assert seen == set(students(settings))
    starts = [("every_other", None), ("random", None), ("random", 192)]
    assert list(map(_shape, students(settings))) == [(n, *s) for n, s in itertools.product((2, 4), starts)]
    assert unconditional(settings) == ["layers", "start", "alpha"]


def test_a_configuration_of_one_shape_does_not_name_it(tmp_path: Path) -> None:
    settings = _load(tmp_path, KD + "student: {start: random, hidden_size: 192}\n")
    assert not {"layers", "start", "hidden_size"} & set(resolve(settings, {"alpha": 0.5}))
    assert students(settings) == (student_of(settings, {}),)
    assert _shape(student_of(settings, {})) == (6, "random", 192)


def test_a_fixed_width_is_that_of_random_students_only(tmp_path: Path) -> None:
    settings = _load(tmp_path, KD + "student: {start: {choice: [copy, random]}, hidden_size: 192}\n")
    assert [_shape(student) for student in students(settings)] == [(6, "copy", None), (6, "random", 192)]
    always = _load(tmp_path, KD + "student: {start: random, hidden_size: {choice: [96, 192]}}\n")
    assert unconditional(always) == ["hidden_size", "alpha"]


@pytest.mark.parametrize(
    ("student", "first"),
    [
        ("{layers: {choice: [2, 6, 4]}, start: {choice: [last, copy]}}", {"layers": 6, "start": "copy"}),
        ("{layers: {choice: [2, 4]}, start: {choice: [last, teacher]}}", {"layers": 4, "start": "last"}),
        ("{start: random, hidden_size: {choice: [96, null]}}", {"hidden_size": None}),
        ("{start: {choice: [random]}, hidden_size: {choice: [96, 192]}}", {"start": "random", "hidden_size": 192}),
        ("{start: {choice: [copy, random]}, hidden_size: {choice: [96, 192]}}", {"start": "copy"}),
    ],
)
def test_the_first_trial_has_the_shape_nearest_to_the_default(tmp_path: Path, student: str, first: object) -> None:
    (found,) = first_configurations(_load(tmp_path, f"{KD}student: {student}\n"))
    assert found.pop("alpha") == 0.5
    assert found == first


def test_first_configurations_name_shapes_and_a_flag_fixes_them(tmp_path: Path) -> None:
    text = SHAPES + "search: {first: [{layers: 2, start: random, hidden_size: 192}, {start: random, alpha: 1}]}\n"
    settings = _load(tmp_path, text)
    assert settings.search.first[0] == {"layers": 2, "start": "random", "hidden_size": 192}
    fixed = _load(tmp_path, text, layers="4", start="random")
    assert _shape(student_of(fixed, {"hidden_size": 192})) == (4, "random", 192)
    assert first_configurations(fixed)[1:] == [{"hidden_size": 192}, {"alpha": 1.0}]
    assert "layers" not in distributions(fixed)
    chosen = _load(tmp_path, KD, layers="{choice: [3, 5]}")
    assert chosen.student.possible("layers") == (3, 5)


def test_another_searches_shape_is_adopted_if_the_space_has_it(tmp_path: Path) -> None:
    settings = _load(tmp_path, SHAPES)
    other = {"method": "kd", "alpha": 0.25, "temperature": 5.0, "layers": 4.0, "start": "random"}
    assert adopt(settings, other) == ({"layers": 4, "start": "random", "hidden_size": None, "alpha": 0.25}, "")
    assert adopt(settings, other | {"start": "copy"})[1] == "start"
    assert adopt(settings, {"method": "kd", "alpha": 0.25})[1] == "layers"
    # What this space fixes need not be the same there.
    assert adopt(_load(tmp_path, KD), other) == ({"alpha": 0.25}, "")


def test_one_run_needs_one_shape(tmp_path: Path) -> None:
    settings = _load(tmp_path, SHAPES)
    with pytest.raises(InputError) as caught:
        resolve(settings, {"alpha": 0.5, "start": "copied"})
    assert caught.value.problems == ("start: found text 'copied', but must be one of every_other, random.",)
    with pytest.raises(InputError) as caught:
        resolve(settings, {"alpha": 0.5})
    assert caught.value.problems == tuple(
        f"student.{name}: is searched, but one run needs one value: give --student-{name} VALUE."
        for name in ("layers", "start")
    )


@pytest.mark.parametrize("text", [SHAPES, KD + "student: {layers: {choice: [2]}}\n"])
def test_dump_reads_back_to_equal_settings(tmp_path: Path, text: str) -> None:
    settings = _load(tmp_path, text)
    assert _load(tmp_path, dump(settings)) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings


PENULTIMATE = "method: fsd_g\nspace: {alpha: 1, temperature: 5, beta: 1, gamma_m: 0.5}\n"
CHOICES = "{choice: [..]} of such values."
BAD = [
    ("{layers: {low: 2, high: 4}}", "3: student.layers: found a range, but must be a whole number in 1..1000", CHOICES),
    ("{start: [copy, last]}", "3: student.start: found a list, but must be one of copy, every_other", CHOICES),
    ("{layers: {choice: []}}", "3: student.layers.choice: found an empty list, but must be a list of at least one"),
    ("{layers: {choice: 3}}", "3: student.layers.choice: found 3, but must be a list of at least one value"),
    ("{layers: {choice: [2, 2.0]}}", "3: student.layers.choice[1]: found 2 twice, but must be different values"),
    ("{layers: {choice: [2, 0]}}", "3: student.layers.choice[1]: found 0, but must be in 1..1000."),
    ("{start: {choice: [copy, evry_other]}}", "3: student.start.choice[1]: found text", "Did you mean `every_other`?"),
    ("{layers: {choice: [2], when: {}}}", "3: student.layers.when: unknown key, must be choice."),
    ("{hidden_size: {choice: [null, 64]}}", "3: student.hidden_size: found 64, but must be null unless start is"),
    (
        "{start: random, hidden_size: {choice: [null, null]}}",
        "3: student.hidden_size.choice[1]: found null twice",
    ),
    ("{memory_start: {choice: [matched]}}", "3: student.memory_start: found a mapping, but must be one of matched"),
    ("{layers: {choice: [1, 2]}}", "loss.layers: is penultimate, but must be last for a student of one layer."),
    ("{layers: {choice: [4, 2]}}\nloss: {layers: [[3, 3]]}", "4: loss.layers[0]: found student layer 3", "0..2, becau"),
    ("{layers: {choice: [1, 2]}}\nloss: {layers: [[3, 1]]}", "3: student.layers: found 1 beside other depths, but fsd"),
    (
        "{start: random, hidden_size: {choice: [64]}}\npublished: true",
        "3: student.hidden_size: found 64, but must be null with `published`",
    ),
    (
        "{layers: {choice: [2, 3]}}\nsearch: {first: [{layers: 4}]}",
        "4: search.first[0].layers: found 4, but must be one of 2, 3, the choice of student.layers.",
    ),
    (
        "{layers: 3}\nsearch: {first: [{layers: 4}]}",
        "search.first[0].layers: found 4, but the section student fixes it",
    ),
    (
        "{start: {choice: [copy, random]}, hidden_size: {choice: [null, 8]}}\nsearch: {first: [{hidden_size: 8}]}",
        "4: search.first[0].hidden_size: found 8, but must be null unless the configuration has start: random.",
    ),
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[0][:40])
def test_one_mistake_is_one_line(tmp_path: Path, case: tuple[str, ...]) -> None:
    student, *words = case
    with pytest.raises(InputError) as caught:
        _load(tmp_path, f"{PENULTIMATE}student: {student}\n")
    (problem,) = caught.value.problems
    assert all(word in problem for word in words), problem


def test_a_mistake_in_a_flag_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        _load(tmp_path, KD, layers="{choice: [2, two]}")
    (problem,) = caught.value.problems
    assert problem == "--student-layers: choice[1]: found text 'two', but must be a whole number in 1..1000."


def test_a_flag_or_a_file_that_fixes_the_start_leaves_no_width_that_it_cannot_have(tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    for width in ("{choice: [null, 192]}", "192"):
        text = SHAPES.replace("{choice: [null, 192]}", width)
        assert _load(tmp_path, text, start="every_other").student.possible("hidden_size") == (None,)
        # A sweep has no conditions, so its agent draws a width for every start.
        for start, drawn, own in (("every_other", 192, None), ("random", 192, 192), ("random", None, None)):
            file.write_text(json.dumps({"layers": 2, "start": start, "hidden_size": drawn, "alpha": 0.5}))
            settings = load(tmp_path / "space.yaml", read_configuration_file(file))
            assert list(map(_shape, students(settings))) == [(2, start, own)]


def test_the_teachers_layers_are_a_start_beside_a_models(tmp_path: Path) -> None:
    settings = _load(tmp_path, KD + "student: {model: small, start: {choice: [copy, teacher]}}\n")
    assert [student.model for student in students(settings)] == ["small", None]
    assert students(_load(tmp_path, KD + "student: {model: small, start: teacher}\n"))[0].model == "small"


def test_records_have_a_shape_or_what_is_searched(tmp_path: Path) -> None:
    settings = _load(tmp_path, SHAPES)
    assert described(settings.student) == {
        "layers": [2, 4], "start": ["every_other", "random"], "hidden_size": [None, 192]
    }  # fmt: skip
    assert described(students(settings)[0]) == {"layers": 2, "start": "every_other"}
    assert described(students(settings)[2]) == {"layers": 2, "start": "random", "hidden_size": 192}
