"""Reading YAML: values, lines, and text that cannot be used."""

import math
from pathlib import Path

import pytest
import yaml

from fsd_tune.errors import InputError
from fsd_tune.settings import yaml_file


def _write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "space.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2e+3", -2000.0),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("5e-5", 5e-5),
        ("16", 16),
        ("-3", -3),
        ("1_000", 1000),
        ("0", 0),
        ("010", "010"),  # octal in YAML 1.1, ten in 1.2: neither is guessed
        ("1:30", "1:30"),
        ("2h", "2h"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("'16'", "16"),
        ("!!str 16", "16"),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("1e400", math.inf),
        ("[1, [a, 2.0]]", [1, ["a", 2.0]]),
    ],
)
def test_scalars(text: str, value: object) -> None:
    found = yaml_file.parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(yaml_file.parse_value(".nan"))


def test_every_key_path_has_its_line(tmp_path: Path) -> None:
    text = (
        "# comment\nmethod: kd\nspace:\n  alpha: {low: 0.1,\n    high: 0.9}\n"
        "search:\n  first:\n    - {alpha: 1}\n    - alpha: 2\n"
    )
    document = yaml_file.read_yaml(_write(tmp_path, text))
    assert document.data["space"] == {"alpha": {"low": 0.1, "high": 0.9}}
    assert document.lines[("method",)] == 2
    assert document.lines[("space", "alpha")] == 4
    assert document.lines[("space", "alpha", "low")] == 4
    assert document.lines[("space", "alpha", "high")] == 5
    assert document.lines[("search", "first", 0)] == 8
    assert document.lines[("search", "first", 1, "alpha")] == 9


def test_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    document = yaml_file.read_yaml(_write(tmp_path, b"\xef\xbb\xbfmethod: kd\r\nspace:\r\n  alpha: 0.5\r\n"))
    assert document.data == {"method": "kd", "space": {"alpha": 0.5}}
    assert document.lines[("space", "alpha")] == 3


def test_aliases_and_merges(tmp_path: Path) -> None:
    text = "a: &a {low: 1, high: 2}\nb: *a\nc:\n  <<: *a\n  high: 3\nd:\n  <<: [*a, {low: 5, extra: 6}]\n"
    document = yaml_file.read_yaml(_write(tmp_path, text))
    assert document.issues == []
    assert document.data == yaml.safe_load(text)
    assert document.lines[("c", "high")] == 5
    assert document.data["a"] is not document.data["b"]


def test_agrees_with_safe_load_on_plain_files(tmp_path: Path) -> None:
    text = "a: 1\nb: [1.5, x, null, true]\nc:\n  - d: 'q'\n    e: |\n      text\n      more\n  - {f: -2.5e+3}\n"
    assert yaml_file.read_yaml(_write(tmp_path, text)).data == yaml.safe_load(text)


UNREADABLE = [
    (b"", "space.yaml: is empty"),
    (b"# only a comment\n\n", "space.yaml: is empty"),
    (b"\xef\xbb\xbf", "space.yaml: is empty"),
    (b"PK\x03\x04\x00\x00", "space.yaml: is binary"),
    ("method: kd".encode("utf-16"), "space.yaml: is binary or not saved as UTF-8"),
    (b"method: kd\nspace: \xff\xfe\n", "space.yaml:2: is binary or not saved as UTF-8"),
    (b"method: kd\nname: \x07\n", "space.yaml:2: found the control character '\\x07'"),
    (b"method: kd\nspace:\n\talpha: 1\n", "space.yaml:3: found a tab, but YAML indents with spaces"),
    (b"method: kd\nspace: {alpha: 1\n", "space.yaml:3: is not YAML"),
    (b"method: kd\n  space: 1\n", "space.yaml:2: is not YAML: a colon within a value"),
    (b"method: kd\nspace:\n  alpha:0.5\n  temperature: 5\n", "space.yaml:3: found `alpha:0.5`"),
    (b"method: kd\nspace:\n  alpha: 1\n  beta:5\n", "space.yaml:4: found `beta:5`"),
    (b"method: kd\nspace:\n  alpha:0.5\n\n  # note\n  beta: 5\n", "space.yaml:3: found `alpha:0.5`"),
    (b"method:kd\n", "space.yaml:1: found `method:kd`, but must have a space after the colon: `method: kd`"),
    (b"space:\n  alpha: 1\n\tbeta: 5\n", "space.yaml:3: found a tab"),
    (b'a: "\\UFFFFFFFF"\n', "names no character"),
    (b"method: 'kd\n", "is not YAML: found unexpected end of stream"),
    (b"method: *nothing\n", "space.yaml:1: is not YAML: found undefined alias"),
    (b"- method\n", "space.yaml:1: found a list, but must be a mapping"),
    (b"\n\njust words\n", "space.yaml:3: found a single value, but must be a mapping"),
    (b"method: kd\n---\nmethod: ce\n", "space.yaml:2: found a second document"),
    (b"a: " + b"[" * 3000 + b"]" * 3000, "is nested more than 50 deep"),
    (b"a: " + b"[" * 60 + b"]" * 60, "is nested more than 50 deep"),
    (b"a: &a [*a]\n", "is nested more than 50 deep"),
    (b"a: &a [*a, *a]\n", "is nested more than 50 deep"),
    (b"a: " + b"x" * 300_000, "is larger than 256 KiB"),
]


@pytest.mark.parametrize(("content", "message"), UNREADABLE)
def test_unreadable_files_are_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        yaml_file.read_yaml(_write(tmp_path, content))
    assert len(caught.value.problems) == 1
    assert "\n" not in caught.value.problems[0]
    assert message in caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("space:\n  alpha:0.5\n", 2, "must have a space after the colon: `alpha: 0.5`"),
        ("space: {a: 1, alpha:0.5}\n", 1, "found `alpha:0.5`"),
        ('model: "\\ud83d"\n', 1, "half a character"),
        ('model: "a\\0b"\n', 1, "null character"),
        ('"\\0": 1\n', 1, "a key that is not plain text"),
    ],
)
def test_unusable_values_are_issues(tmp_path: Path, text: str, line: int, message: str) -> None:
    (issue,) = yaml_file.read_yaml(_write(tmp_path, text)).issues
    assert issue.line == line and message in issue.message and issue.unusable


@pytest.mark.parametrize(
    "text", ["model: s3://bucket/m\n", "model:\n  C:\\\\models\n", "tags: [a:b]\n", "model: a:b\n"]
)
def test_colons_in_values_are_text(tmp_path: Path, text: str) -> None:
    assert yaml_file.read_yaml(_write(tmp_path, text)).issues == []


def test_billion_laughs_are_refused_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [lol, lol]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(InputError, match="expands to more than 10000 values"):
        yaml_file.read_yaml(_write(tmp_path, "\n".join(lines)))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    _write(tmp_path, "method: kd\n")
    with pytest.raises(InputError, match=r"spaec\.yaml: no such file\. Did you mean `space\.yaml`\?"):
        yaml_file.read_yaml(tmp_path / "spaec.yaml")
    with pytest.raises(InputError, match="no such file"):
        yaml_file.read_yaml(tmp_path / "no" / "space.yaml")
    with pytest.raises(InputError, match="is a folder"):
        yaml_file.read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "path", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, ("a",), "found twice, on lines 1 and 3"),
        ("s:\n  x: 1\n  x: 1\n", 3, ("s", "x"), "found twice, on lines 2 and 3"),
        ("s: {x: 1, x: 2}\n", 1, ("s", "x"), "found twice, on lines 1 and 1"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, ("b",), "tag `!!python/object/apply:os.system`"),
        ("b: !!python/name:os.system\n", 1, ("b",), "tag `!!python/name:os.system`"),
        ("b: !Ref x\n", 1, ("b",), "tag `!Ref`"),
        ("b: !!binary aGk=\n", 1, ("b",), "tag `!!binary`"),
        ("b: !!int abc\n", 1, ("b",), "tag `!!int`"),
        ("b: !!set {x}\n", 1, ("b",), "tag `!!set`"),
        ("a: 1\n? [x, y]\n: 2\n", 2, (), "a key that is not plain text"),
        ("a:\n  <<: 3\n", 2, ("a",), "must be with a mapping"),
    ],
)
def test_issues_leave_the_rest_readable(tmp_path: Path, text: str, line: int, path: object, words: str) -> None:
    (issue,) = yaml_file.read_yaml(_write(tmp_path, text + "last: 7\n")).issues
    assert (issue.line, issue.path) == (line, path)
    assert words in issue.message
    assert yaml_file.read_yaml(_write(tmp_path, text + "last: 7\n")).data["last"] == 7


def test_a_duplicate_keeps_the_first_value(tmp_path: Path) -> None:
    assert yaml_file.read_yaml(_write(tmp_path, "a: 1\na: 2\n")).data == {"a": 1}


@pytest.mark.parametrize("text", ["{a: 1", "!!python/name:os.system", "a: 1\n\tb: 2", "[" * 3000])
def test_parse_value_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not YAML|tag|tab|nested"):
        yaml_file.parse_value(text)


@pytest.mark.parametrize(
    "value",
    [
        "off",
        "yes",
        "1e5",
        "1e-4",
        "16",
        "0x10",
        "010",
        "1:30",
        "null",
        "",
        "~",
        "a: b",
        "# x",
        "ü",
        "a\nb",
        ".inf",
        "<<",
    ],
)
def test_dumped_text_stays_text_for_both_readings(tmp_path: Path, value: str) -> None:
    text = yaml_file.dump({"key": value, "list": [value, [value]], "flow": yaml_file.Flow(inner=value)})
    expected = {"key": value, "list": [value, [value]], "flow": {"inner": value}}
    assert yaml_file.read_yaml(_write(tmp_path, text)).data == expected
    assert yaml.safe_load(text) == expected


@pytest.mark.parametrize("value", [1e-4, 5e-05, 1e20, 0.1, 3.0, 7, -1, True, None, 1e-300])
def test_dumped_numbers_read_back(tmp_path: Path, value: object) -> None:
    text = yaml_file.dump({"key": value})
    assert repr(yaml_file.read_yaml(_write(tmp_path, text)).data["key"]) == repr(value)
    assert repr(yaml.safe_load(text)["key"]) == repr(value)
