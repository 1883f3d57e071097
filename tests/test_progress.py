"""What is shown while something runs: lines in a pipe, a live line on a terminal, nothing when quiet."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from fsd_tune.progress import Display, SearchProgress, duration, short


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
    out, err = capsys.readouterr()
    assert out == "", "standard output is for results"
    return err.splitlines()


def test_lines_are_printed_as_they_are(capsys):
    display = Display()
    for text in ("[bold]no markup[/bold] [1, 2]", "no :warning: emoji", "long " * 100 + "end", "/a/[b]/c=1.5"):
        display.line(text)
        assert shown(capsys) == [text]


def test_quiet_shows_nothing(capsys, clock):
    display = Display(quiet=True)
    search = SearchProgress(display, 2, "accuracy", 4, ["alpha"])
    display.line("a")
    display.live("b", force=True)
    display.stage("c", 0, 10)
    search.started(0, {"alpha": 1.0})
    search.reported(0, 4, 0.5)
    search.ended(0, "finished", "", 0.5)
    display.close()
    assert shown(capsys) == []


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


def test_a_search_can_be_followed(capsys, clock):
    search = SearchProgress(Display(), 4, "accuracy", 4, ["alpha"])
    search.started(0, {"method": "kd", "alpha": 0.25, "epochs": 3})
    assert shown(capsys) == ["  0/4 trials ended (0 finished, 0 stopped, 0 failed) · 1 running"]
    search.started(1, {"alpha": 0.5})
    clock.now += 20
    search.reported(1, 1, 0.4)
    assert shown(capsys) == ["  0/4 trials ended (0 finished, 0 stopped, 0 failed) · 2 running"]
    clock.now += 20
    search.ended(1, "stopped", "ASHA at report 1", None)
    lines = shown(capsys)
    assert lines[0] == "  trial   1 stopped  ASHA at report 1  alpha=0.5"
    # One of four trials ended in 40 s: about 120 s are left.
    assert lines[1] == (
        "  1/4 trials ended (0 finished, 1 stopped, 0 failed) · 1 running · about 2 min 00 s left"
    )  # fmt: skip
    clock.now += 20
    search.ended(0, "finished", "", 0.8125)
    lines = shown(capsys)
    assert lines[0] == "  trial   0 finished accuracy 0.8125  alpha=0.25"
    assert " · best 0.8125 (trial 0) · about 1 min 00 s left" in lines[1]
    search.started(2, {"alpha": 0.1})
    search.ended(2, "finished", "", 0.7)
    search.started(3, {"alpha": 0.2})
    clock.now += 1
    search.ended(3, "failed", "diverged: loss is nan at step 3", None)
    lines = shown(capsys)
    assert lines[-2] == "  trial   3 failed   diverged: loss is nan at step 3  alpha=0.2"
    assert lines[-1] == "  4/4 trials ended (2 finished, 1 stopped, 1 failed) · 0 running · best 0.8125 (trial 0)"


def test_running_trials_count_by_their_reports(capsys, clock):
    search = SearchProgress(Display(), 4, "accuracy", 4, [])
    search.started(0, {})
    search.started(1, {})
    search.reported(1, 2, 0.5)
    clock.now += 30
    search.ended(0, "finished", "", 0.5)
    # One and a half of four trials in 30 s.
    assert shown(capsys)[-1].endswith(" · about 50 s left")


def test_a_continued_search_counts_what_was_done_but_not_its_time(capsys, clock):
    search = SearchProgress(Display(), 10, "accuracy", 4, [])
    search.past({"finished": 4, "stopped": 2, "running": 1, "interrupted": 1}, (0.9, 3))
    search.started(6, {})
    assert shown(capsys) == [
        "  6/10 trials ended (4 finished, 2 stopped, 0 failed) · 1 running · best 0.9000 (trial 3)"
    ]  # fmt: skip
    clock.now += 20
    search.ended(6, "finished", "", 0.5)
    assert shown(capsys)[-1] == (
        "  7/10 trials ended (5 finished, 2 stopped, 0 failed) · 0 running · best 0.9000 (trial 3)"
        " · about 1 min 00 s left"
    )


def test_a_trial_that_never_started_may_end(capsys, clock):
    search = SearchProgress(Display(), 1, "accuracy", 4, ["alpha"])
    search.ended(0, "failed", "its worker died", None)
    assert shown(capsys)[0] == "  trial   0 failed   its worker died"
