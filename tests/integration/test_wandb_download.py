"""A W&B server that does not answer."""

import pytest

from fsd_tune.errors import InputError
from fsd_tune.tracking import download

KEY = "0123456789abcdef" * 3


def test_a_server_that_cannot_be_reached_is_said_in_one_line_without_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError) as caught:
        download.download("wandb:me/glue/some-group", tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith("wandb:me/glue/some-group: ") and KEY not in problem and "\n" not in problem
