"""The notebook of `examples/`, run from its first cell to its last."""

import ast
import os

import nbformat
import pytest
from nbclient import NotebookClient

from tests import ROOT


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = nbformat.read(ROOT / "examples/search_in_python.ipynb", as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    (predicted,) = [cell for cell in cells if "results.student()" in cell.source]
    words = ast.literal_eval(predicted.outputs[-1]["data"]["text/plain"])
    assert len(words) == 2 and set(words) <= {"good", "bad"}
