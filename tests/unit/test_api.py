"""The names that `import fsd_tune as fsd` gives, and that they cost nothing before they are used."""

import doctest
import importlib
import subprocess
import sys

import pytest

import fsd_tune
from tests import ROOT


@pytest.mark.parametrize("name", [name for name in fsd_tune.__all__ if name != "__version__"])
def test_every_public_name_exists_and_is_documented(name):
    value = getattr(fsd_tune, name)
    assert value.__doc__ and len(value.__doc__.splitlines()[0]) > 10, name


PACKAGE = ROOT / "fsd_tune"
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py" and ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(f"fsd_tune.{name}")).failed == 0


@pytest.mark.parametrize("name", [name for name in fsd_tune.__all__ if callable(getattr(fsd_tune, name, None))])
def test_every_public_call_has_an_example(name):
    value = getattr(fsd_tune, name)
    assert (isinstance(value, type) and issubclass(value, Exception)) or "Example" in value.__doc__, name


def test_importing_the_package_loads_nothing_heavy():
    heavy = "('torch', 'ray', 'transformers', 'optuna', 'sklearn', 'datasets', 'pandas', 'numpy')"
    code = f"import sys, fsd_tune; dir(fsd_tune); print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'serch'"):
        _ = fsd_tune.serch
