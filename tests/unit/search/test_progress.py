"""Where a search is, as lines: what ended, how, the best so far, and how long it will take."""

from fsd_tune.progress import Display
from fsd_tune.search.progress import SearchProgress
from fsd_tune.search.trial_record import TrialRecord
from tests.conftest import shown


def test_a_search_can_be_followed(capsys, clock):
    search = SearchProgress(Display(), 4, "accuracy", 4, ["alpha"])
    search.started(0, {"method": "kd", "alpha": 0.25, "epochs": 3})
    assert shown(capsys) == ["  0/4 trials ended (0 finished, 0 stopped, 0 failed) · 1 running"]
    search.started(1, {"alpha": 0.5})
    clock.now += 20
    search.reported(1, {"report": 1, "accuracy": 0.4})
    assert shown(capsys)[0].endswith(" · 2 running · best 0.4000 (trial 1, report 1/4)")
    clock.now += 20
    search.ended(1, "stopped", "ASHA at report 1", None)
    lines = shown(capsys)
    assert lines[0] == "  trial   1 stopped  ASHA at report 1  alpha=0.5"
    # One of four trials ended in 40 s: about 120 s are left.
    assert lines[1] == (
        "  1/4 trials ended (0 finished, 1 stopped, 0 failed) · 1 running · best 0.4000 (trial 1, report 1/4)"
        " · about 2 min 00 s left"
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


def test_what_a_student_costs_is_said(capsys, clock):
    search = SearchProgress(Display(), 4, "accuracy", 4, ["alpha"], cost=lambda config: f"{config['layers']}.5 ms")
    search.started(0, {"layers": 3, "alpha": 0.5})
    search.ended(0, "finished", "", 0.8)
    assert "  trial   0 finished accuracy 0.8000, 3.5 ms  alpha=0.5" in shown(capsys)
    search.ended(1, "failed", "its worker died", None)
    assert "  trial   1 failed   its worker died" in shown(capsys), "a trial that never started has no configuration"


def leader_of(search):
    leader = search.leader
    return None if leader is None else (leader.number, leader.value, leader.report)


def test_the_best_is_of_all_trials_by_their_last_values(capsys, clock):
    search = SearchProgress(Display(), 5, "accuracy", 4, [])
    assert leader_of(search) is None
    search.ended(0, "finished", "", 0.7)
    for number, values in ((1, (0.9, 0.6)), (2, (0.8,)), (3, (0.75, float("nan"))), (4, (0.95,))):
        search.started(number, {})
        for report, value in enumerate(values, start=1):
            search.reported(number, {"report": report, "accuracy": value})
    search.ended(4, "failed", "its worker died", None)
    assert leader_of(search) == (2, 0.8, 1)
    search.ended(2, "stopped", "ASHA at report 1", None)
    assert leader_of(search) == (2, 0.8, 1)
    search.ended(1, "finished", "", 0.8)
    # Among equal values the first trial is the best.
    assert leader_of(search) == (1, 0.8, 4)


def test_running_trials_count_by_their_reports(capsys, clock):
    search = SearchProgress(Display(), 4, "accuracy", 4, [])
    search.started(0, {})
    search.started(1, {})
    search.reported(1, {"report": 2, "accuracy": 0.5})
    clock.now += 30
    search.ended(0, "finished", "", 0.5)
    # One and a half of four trials in 30 s.
    assert shown(capsys)[-1].endswith(" · about 50 s left")


def test_a_continued_search_counts_what_was_done_but_not_its_time(capsys, clock):
    search = SearchProgress(Display(), 10, "accuracy", 4, [])
    states = ["finished"] * 4 + ["stopped"] * 2 + ["running"]
    values = {number: {4: 0.9 if number == 3 else 0.1 * number} for number in range(len(states))}
    past = {number: TrialRecord({}, state, values[number]) for number, state in enumerate(states)}
    search.add_past(past)
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


def test_quiet_says_nothing_and_verbose_each_report(capsys, clock):
    line = "  trial   0 report 4/4: accuracy 0.5000"
    for display, said in ((Display(quiet=True), []), (Display(verbose=True), [line])):
        search = SearchProgress(display, 2, "accuracy", 4, ["alpha"])
        search.started(0, {"alpha": 1.0})
        shown(capsys)
        search.reported(0, {"report": 4, "accuracy": 0.5})
        assert shown(capsys) == said


def test_a_trial_of_an_earlier_search_is_named(capsys, clock):
    search = SearchProgress(Display(), 2, "accuracy", 4, ["alpha"])
    search.started(0, {"alpha": 0.5}, "cola trial 12")
    search.ended(0, "finished", "", 0.75)
    assert "  trial   0 finished accuracy 0.7500  alpha=0.5  (from cola trial 12)" in shown(capsys)
    assert search.leader is not None and search.leader.origin == "cola trial 12"
    again = SearchProgress(Display(quiet=True), 2, "accuracy", 4, ["alpha"])
    again.add_past({0: TrialRecord({"alpha": 0.5}, "finished", {4: 0.75}, origin="cola trial 12")})
    assert again.leader == search.leader
