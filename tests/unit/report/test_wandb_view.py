"""A saved view for compared searches, built without network; and where it belongs."""

import json
import sys

import pytest
import yaml

from fsd_tune.errors import InputError
from fsd_tune.report import wandb_view
from fsd_tune.report.compare import compare
from tests.helpers.result_folders import write_search


@pytest.fixture
def two(tmp_path):
    folders = [write_search(tmp_path / name, 6, study=False, name=name, group=f"{name}-12ab") for name in ("a", "b")]
    return [str(folder) for folder in folders]


def track(folder, **settings):
    path = f"{folder}/settings.yaml"
    with open(path) as stream:  # noqa: PTH123
        found = yaml.safe_load(stream)
    found["wandb"] = {"mode": "offline", "project": "glue", "entity": None} | settings
    with open(path, "w") as stream:  # noqa: PTH123
        yaml.safe_dump(found, stream)


def test_the_view_shows_the_groups_their_columns_and_charts(two):
    for folder in two:
        track(folder)
    compared = compare(two)
    view = wandb_view.of(two, compared)
    assert (view.entity, view.project) == ("", "glue")
    built = json.loads(view._to_model().model_dump_json(by_alias=True, exclude_none=True))
    text = json.dumps(built)
    panels = [
        panel["config"].get("chartTitle", panel["viewType"])
        for section in built["spec"]["section"]["panelBankConfig"]["sections"]
        for panel in section["panels"]
    ]
    assert {"best score", "learning curves", "hyperparameters", "Parameter Importance", "intra"} <= set(panels)
    assert "a-12ab" in text and "b-12ab" in text and "config:hp/gamma_i.value" in text
    assert "accuracy" in text


def test_searches_in_two_projects_or_in_none_have_no_view(two):
    compared = compare(two)
    with pytest.raises(InputError) as caught:
        wandb_view.of(two, compared)
    assert len(caught.value.problems) == 2 and "was not tracked" in caught.value.problems[0]
    track(two[0])
    track(two[1], project="other", entity="me")
    with pytest.raises(InputError, match="glue, me/other"):
        wandb_view.of(two, compare(two))


def test_without_the_extra_it_is_said_how_to_get_it(two, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(InputError, match=r"pip install 'fsd_tune\[view\]'"):
        wandb_view.build("", "p", ["g"], "accuracy", ["alpha"])
