"""What pyproject.toml says about the package, compared with what the repository holds."""

import tomllib

from tests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_in_the_wheel():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "fsd_tune").rglob("*.py")}
    assert listed == {".".join(folder.parts) for folder in folders} | {"fsd_tune.search_spaces"}


def test_every_data_file_is_in_the_wheel():
    setuptools = PROJECT["tool"]["setuptools"]
    packed = set()
    for package, patterns in setuptools["package-data"].items():
        folder = ROOT / setuptools["package-dir"].get(package, package.replace(".", "/"))
        for pattern in patterns:
            packed |= set(folder.glob(pattern))
    folders = [ROOT / "fsd_tune", ROOT / "search_spaces"]
    data = {path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix not in _CODE}
    assert data - packed == set()


_CODE = (".py", ".pyc")
