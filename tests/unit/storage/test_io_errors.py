"""Failed writes of libraries are errors of the system, with a real full disk where the libraries meet one."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from fsd_tune.errors import FsdTuneError
from fsd_tune.storage.io_errors import as_os_error, library_errors

TENSOR = {"x": torch.zeros(1000)}


@pytest.mark.parametrize(
    ("write", "number"),
    [
        (lambda path: save_file(TENSOR, path), errno.ENOENT),
        (lambda path: Tokenizer(models.BPE()).save(str(path)), errno.ENOENT),
        (lambda path: sqlite3.connect(path).execute("create table t (x)"), errno.EACCES),
        (lambda path: path.write_text("x"), errno.ENOENT),
        (lambda path: Tokenizer(models.BPE()).save("/dev/full"), errno.ENOSPC),
    ],
)
def test_libraries_that_cannot_write(tmp_path, write, number):
    """A missing folder and /dev/full stand for every error: the libraries pass on the system's number."""
    place = tmp_path / "missing" / "file"
    with pytest.raises(OSError) as caught, library_errors(place):
        write(place)
    assert caught.value.errno == number and caught.value.filename == str(place) and caught.value.strerror


def test_torch_does_not_say_why():
    with pytest.raises(RuntimeError) as caught:
        torch.save(TENSOR, "/dev/full")
    found = as_os_error(caught.value)
    assert found is not None and "disk may be full" in str(found)


def test_a_cause_counts_and_our_own_errors_do_not():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")
    wrapped = ValueError("cannot make the data set")
    wrapped.__cause__ = full
    assert as_os_error(wrapped) is full and as_os_error(full) is full
    own = FsdTuneError("X: no space left on device")
    own.__cause__ = full
    assert as_os_error(own) is None and as_os_error(ValueError("a wrong value")) is None
    circle = ValueError("a")
    circle.__cause__ = circle
    assert as_os_error(circle) is None
    with pytest.raises(KeyError), library_errors(Path("x")):
        raise KeyError("y")
