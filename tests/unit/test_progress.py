"""What is shown while something runs: lines in a pipe, a live line on a terminal, nothing when quiet."""

import errno
import io
import logging
import os
import re
import sys

import numpy as np
import pytest
from rich.console import Console

from fsd_tune.progress import Display, PatientStream, duration, short
from tests.conftest import shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (75, "1 min 15 s"), (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"), (3 * 3600 + 5 * 60 + 59, "3 h 05 min"), (100 * 3600, "100 h 00 min"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_configuration_in_one_line():
    config = {"method": "kd", "alpha": 0.123456, "learning_rate": np.float64(5e-5), "epochs": 3, "on": True}
    assert short(config) == "method=kd alpha=0.123 learning_rate=5e-05 epochs=3 on=True"
    assert short(config, ["epochs", "beta", "alpha"]) == "epochs=3 alpha=0.123"
    assert short({}) == ""


def test_lines_are_printed_as_they_are(capsys):
    display = Display()
    for text in ("[bold]no markup[/bold] [1, 2]", "no :warning: emoji", "long " * 100 + "end", "/a/[b]/c=1.5"):
        display.line(text)
        assert shown(capsys) == [text]


def test_quiet_shows_nothing(capsys, clock):
    display = Display(quiet=True)
    display.line("a")
    display.live("b", force=True)
    display.stage("c", 0, 10)
    display.close()
    assert shown(capsys) == []


@pytest.mark.parametrize("quiet", [False, True])
def test_lines_are_logged_for_programs(caplog, capsys, quiet):
    with caplog.at_level(logging.INFO, logger="fsd_tune"):
        Display(quiet=quiet).line("100% of [b]")
    assert caplog.record_tuples == [("fsd_tune", logging.INFO, "100% of [b]")]
    assert shown(capsys) == ([] if quiet else ["100% of [b]"])


def test_without_a_terminal_the_state_is_printed_now_and_then(capsys, clock):
    display = Display()
    for second in range(0, 30, 2):
        clock.now = 1000.0 + second
        display.live(f"at {second}")
    assert shown(capsys) == ["at 0", "at 12", "at 24"]
    display.live("now", force=True)
    assert shown(capsys) == ["now"]


def test_stages_are_announced_and_then_counted_now_and_then(capsys, clock):
    display = Display()
    display.stage("teacher pass", 0, 100)
    for done in range(1, 101):
        clock.now += 0.25
        display.stage("teacher pass", done, 100)
    display.stage("k-means", 0, 1)
    lines = shown(capsys)
    assert lines[0] == "  teacher pass 0/100" and lines[-1] == "  k-means"
    assert len(lines) == 4


def terminal(display):
    stream = io.StringIO()
    display.console = Console(file=stream, force_terminal=True, width=200, emoji=False, highlight=False)
    return stream


def test_on_a_terminal_one_line_lives_and_goes():
    display = Display()
    stream = terminal(display)
    display.live("first [1/2] :warning: \\[x]")
    display.line("a line that stays")
    display.live("second")
    display.close()
    display.close()
    text = stream.getvalue()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "first [1/2] :warning: \\[x]" in plain
    assert "a line that stays" in plain
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown again"
    display.live("third")
    display.close()
    assert "third" in stream.getvalue()


def closed_pipe():
    """A text stream into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", buffering=1)


def lost_terminal():
    """A text stream on a terminal that has gone."""
    master, slave = os.openpty()
    stream = os.fdopen(slave, "w", buffering=1)
    os.close(master)
    return stream


def closed_here():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [closed_pipe, lost_terminal, closed_here, lambda: None])
def test_work_goes_on_without_a_reader(make, monkeypatch, caplog):
    lost = make()
    monkeypatch.setattr(sys, "stderr", lost)
    display = Display()
    with caplog.at_level(logging.INFO, logger="fsd_tune"):
        for text in ("one", "two"):
            display.line(text)
            display.live(text, force=True)
            display.stage(text, 0, 2)
    display.close()
    assert {"one", "two"} <= set(caplog.messages), "programs still get the lines"


def test_a_live_display_survives_the_loss_of_its_terminal(monkeypatch):
    master, slave = os.openpty()
    monkeypatch.setattr(sys, "stderr", os.fdopen(slave, "w", buffering=1))
    monkeypatch.setenv("TERM", "xterm")
    display = Display()
    display.live("first")
    shown = b""
    while b"first" not in shown:  # A terminal hands out what has come so far.
        shown += os.read(master, 4096)
    os.close(master)
    for _ in range(3):
        display.live("second")
        display.line("a line")
    display.close()


def test_only_the_accepted_errors_are_silenced():
    stream = PatientStream.around(closed_pipe(), accepted=(errno.EIO,))
    with pytest.raises(BrokenPipeError):
        stream.write("result\n")
    stream = PatientStream.around(io.StringIO())
    assert PatientStream.around(stream) is stream
