"""JSON that others damaged: every problem is a ValueError, and every value can be stored."""

import math

import pytest

from fsd_tune.storage import checkpoints, json_file


@pytest.mark.parametrize("content", [b"", b"{", b"\0\0", b'{"a": "caf\xe9"}', b"[" * 200_000, b"[1]", b"null", b"3"])
def test_what_is_no_mapping_is_a_value_error_in_one_line(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        json_file.read_mapping(path)
    assert "\n" not in str(caught.value)


def test_values_fit_into_floats_and_files():
    value = json_file.parse('{"big": 1' + "0" * 5000 + ', "small": -7, "half": ["\\ud83d", "\\ud83d\\ude00"]}')
    assert value == {"big": math.inf, "small": -7, "half": ["?", "\U0001f600"]}


def test_rows_of_a_file_with_damaged_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n[1]\n\xff\n{"a": 2}\n{"a"')
    assert list(json_file.read_rows(path)) == [(1, {"a": 1}), (3, None), (4, None), (5, {"a": 2}), (6, None)]


@pytest.mark.parametrize(
    "seal", ["[]", '{"files": [], "report": 1}', '{"files": {"a": 3}, "report": 1}', '{"files": {}}']
)
def test_a_damaged_seal_is_no_checkpoint(tmp_path, seal):
    (tmp_path / checkpoints.SEAL).write_text(seal)
    assert checkpoints.report_of(tmp_path) is None
