"""The wheel, installed into a fresh environment and used from an empty folder."""

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

from tests import ROOT

pytestmark = pytest.mark.slow


def _run(command, **options):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command], env=environment, capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _setuptools():
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # setuptools leaves build/ in the folder that it builds from, so build from a copy of what git knows.
    source = folder / "source"
    source.mkdir()
    archive = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, archive.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source]
    # The license expression in pyproject.toml needs this version. An older one is left out of the build.
    if _setuptools() >= 77:
        command.append("--no-build-isolation")
    _run(command)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The folder of a fresh environment's commands. Its dependencies are those of the tests' environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    _run([sys.executable, "-m", "pip", "--python", folder, "install", "--quiet", "--no-deps", wheel])
    # A line of a .pth file extends sys.path, but does not run the .pth files of that folder: the editable installation
    # of this repository stays out.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_the_wheel_holds_the_data_files(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    spaces = {f"fsd_tune/{path.relative_to(ROOT)}" for path in (ROOT / "search_spaces").rglob("*.yaml")}
    templates = {f"fsd_tune/report/templates/{path.name}" for path in (ROOT / "fsd_tune/report/templates").iterdir()}
    assert spaces | templates | {"fsd_tune/py.typed"} <= names
    assert not any(name.startswith(("tests/", "benchmarks/", "search_spaces/")) for name in names)


def test_a_shipped_space_is_validated_by_its_name_from_an_empty_folder(environment, tmp_path):
    script = "import fsd_tune; print(fsd_tune.__file__)"
    assert str(environment.parent) in _run([environment / "python", "-c", script], cwd=tmp_path)
    printed = _run([environment / "fsd-tune", "validate", "fsd_ilg"], cwd=tmp_path)
    assert printed.startswith("method: fsd_ilg\n") and "gamma_g:" in printed
