"""What a model's folder may replace, and who may write it."""

import json

import pytest

from fsd_tune.errors import InputError
from fsd_tune.models.folder import check_output, hold_output


@pytest.fixture
def model(tmp_path):
    """A folder with a model of ours, which --overwrite may replace."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "fsd_tune.json").write_text(json.dumps({}))
    return folder


@pytest.mark.parametrize(
    ("place", "said"),
    [("model", "is also --teacher"), ("link", "is also --teacher"), ("model/memory/rte", "contains --teacher")],
)
def test_an_output_does_not_replace_its_inputs(model, tmp_path, place, said):
    (tmp_path / "link").symlink_to("model")
    (line,) = check_output(model, True, {"--model": None, "--data": "s3://b/x", "--teacher": tmp_path / place})
    assert line.startswith(f"--output: {model} {said} ")


def test_inputs_beside_and_above_are_kept(model, tmp_path):
    inputs = {"--teacher": tmp_path, "--data": tmp_path / "model2", "student.model": "a/b"}
    assert check_output(model, True, inputs) == []


def test_two_commands_do_not_write_one_output(model, tmp_path):
    again = hold_output(tmp_path / "x" / ".." / "model", True)
    with hold_output(model, True), pytest.raises(InputError, match="another command is writing"), again:
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "no lock stays"


def test_what_was_written_meanwhile_is_not_replaced(model):
    with pytest.raises(InputError, match="holds a model; give a new folder, or --overwrite"), hold_output(model, False):
        pass
