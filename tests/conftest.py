import os
import signal
import sys

# Before anything imports a hub library: no test may wait for the network (the ones that need it say so).
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A process that measures latency imports torch for seconds; the tests of latency set it to 1.
os.environ.setdefault("FSD_TUNE_LATENCY", "0")
# Before anything imports numpy: threads of two test processes on two cores wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"])

import pytest
import torch

from fsd_tune.cli import main
from fsd_tune.settings import loader
from tests.helpers import glue_folders, tiny

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


# Files that are begun first, the longest one before the others, so that two processes end at about the same time.
_LONGEST = (
    "integration/test_search",
    "integration/test_resume",
    "integration/test_paper",
    "integration/test_all_tasks",
    "integration/test_confirm",
    "integration/test_interrupted",
    "search/test_samplers",
)


def pytest_collection_modifyitems(items):
    rank = {name: index for index, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(f"{item.path.parent.name}/{item.path.stem}", len(rank)))


@pytest.fixture
def one_thread():
    """Tiny operations gain nothing from a second thread, and each waits for it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def glue(tmp_path_factory):
    """The nine tasks in the official layout."""
    folder = tmp_path_factory.mktemp("glue")
    glue_folders.write_glue(folder, train=40, dev=24)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return tiny.write_base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="session")
def teacher(tmp_path_factory, base):
    return tiny.write_teacher(tmp_path_factory.mktemp("teacher") / "model", base)


@pytest.fixture
def load_settings(tmp_path):
    """Settings of a small YAML: `load_settings(method="kd", **{"student.layers": "2"})`."""

    def load(method="fsd_ilg", **overrides):
        small = {
            "student.layers": "2",
            "data.max_length": "32",
            "memory.centroids": "5",
            "batch_size": "8",
            "epochs": "2",
            "precision": "float32",
            "asha.reports": "4",
            "learning_rate": "1e-3",
        }
        flags = small | {key: str(value) for key, value in overrides.items()} | {"method": method}
        arguments = [f"--{key.replace('.', '-').replace('_', '-')}={value}" for key, value in flags.items()]
        return loader.load(None, loader.parse_flags(arguments))

    return load


@pytest.fixture
def settings_from_yaml(tmp_path):
    """Settings of a YAML text and flags: `settings_from_yaml(text, "--trials=3")`."""

    def load(text, *flags):
        path = tmp_path / "space.yaml"
        path.write_text(text, encoding="utf-8")
        return loader.load(path, loader.parse_flags(flags))

    return load


@pytest.fixture
def fsd_tune(monkeypatch, capfd):
    """The command in this process: `fsd_tune("validate", path)` gives (exit code, output, lines of errors)."""

    def run(*arguments):
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["fsd-tune", *map(str, arguments)])
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        try:
            with pytest.raises(SystemExit) as end:
                main.main()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        out, err = capfd.readouterr()
        return end.value.code or 0, out, err.splitlines()

    return run


class Clock:
    """Stands for time.monotonic()."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


def shown(capsys):
    """The lines that were printed for people; none for machines."""
    out, err = capsys.readouterr()
    assert out == "", "standard output is for results"
    return err.splitlines()
