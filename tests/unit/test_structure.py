"""What holds the modules apart, and what the repository must not contain."""

import ast
import subprocess
import sys

import pytest

from fsd_tune.python_command import python
from tests import ROOT

MODULES = sorted((ROOT / "fsd_tune").rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize(
    "module", ["cli.main", "settings.loader", "data.splits", "settings.methods", "progress", "report.results"]
)
def test_what_answers_at_once_imports_nothing_heavy(module):
    heavy = "('torch', 'ray', 'transformers', 'optuna', 'sklearn', 'datasets')"
    code = f"import sys, fsd_tune.{module}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == "[]"


def test_losses_know_no_models():
    imported = {name for path in (ROOT / "fsd_tune" / "losses").glob("*.py") for name in imports(path)}
    assert {name for name in imported if not name.startswith("fsd_tune.losses")} >= {"fsd_tune.cka", "torch"}
    assert {name for name in imported if name.startswith("fsd_tune.") and "losses" not in name} == {"fsd_tune.cka"}
    assert "transformers" not in imported


def test_home_folders_are_expanded_in_one_place():
    """`Path.expanduser` raises an error for an unknown user."""
    assert {path.name for path in MODULES if ".expanduser(" in path.read_text()} == {"uri.py"}


def test_a_users_file_in_the_working_folder_is_not_imported(tmp_path):
    (tmp_path / "statistics.py").write_text("raise SystemExit('the user's file')")
    subprocess.run(python("-c", "import statistics"), cwd=tmp_path, check=True)
    started = {path.name for path in MODULES if "sys.executable, " in path.read_text()}
    assert started == {"python_command.py"}, "Python is started there alone"


def test_modules_are_short():
    long = {path.name: lines for path in MODULES if (lines := len(path.read_text().splitlines())) > 350}
    assert long == {}
