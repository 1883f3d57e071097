"""Taking up an interrupted search: what its folder says of every trial, and where the unfinished ones go on."""

import json
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsd_tune.report.results import Results, load
from fsd_tune.search.trial_record import TrialRecord
from fsd_tune.settings.configuration import picked
from fsd_tune.settings.loader import Settings
from fsd_tune.storage import artifacts, checkpoints

_ENDED = ("finished", "stopped", "failed")


@dataclass
class ResumeState:
    """The earlier part of a search.

    Attributes:
        trials: by number. One that is to go on or to start again is `running`, with the values up to its checkpoint.
        restarts: the checkpoint that an unfinished trial goes on from, in its own folder, by number.
        notes: what was lost, for people.
    """

    trials: dict[int, TrialRecord] = field(default_factory=dict)
    restarts: dict[int, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """Trials that will not run again."""
        return sum(trial.state != "running" for trial in self.trials.values())


def restore_trials(folder: Path, settings: Settings, errored: bool) -> ResumeState:
    """The trials in a search's folder; those that have not ended are made ready to go on.

    An unfinished trial goes on from its newest whole checkpoint, under its number and in its folder; without one it
    starts again. Its reports after the checkpoint are dropped, for they will be made again. Nothing that has ended is
    touched. Taking up may itself be interrupted and done again.

    Args:
        folder: the search's, held by this process.
        settings: of the search.
        errored: failed trials are taken up, too.
    """
    results = load(folder)
    total = results.summary.planned_reports
    past = ResumeState(notes=[f"{problem}: this trial's part is lost." for problem in results.problems])
    for row in results.trials.to_dict("records"):
        number, state, trial = int(row["number"]), str(row["state"]), folder / "results" / str(row["folder"])
        values = _values(results, number)
        described = json.loads((trial / "config.json").read_text(encoding="utf-8"))
        params, generation = picked(settings, described["config"]), described.get("generation")
        known = TrialRecord(params, state, values, generation, _ended_at(trial / "trial.json"))
        past.trials[number] = known
        whole = _is_whole(values, total)
        if state == "finished" and not whole:
            past.notes.append(f"trial {number}: {len(values)} of its {total} reports are left; it runs again.")
        elif state not in _ENDED and whole and (checkpoints.newest(trial) or (None, 0))[1] == total:
            # Killed between the last report and the note of its end.
            known.state, known.ended_at = "finished", time.time()
            artifacts.write_json(trial / "trial.json", {"state": "finished", "reason": "", "time": known.ended_at})
            continue
        elif state in _ENDED and not (errored and state == "failed"):
            continue
        known.state = "running"
        _ready(trial, number, known, past)
    return past


def _ended_at(path: Path) -> float:
    """When a trial ended, in seconds; 0 when that is not known."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _values(results: Results, number: int) -> dict[int, float]:
    rows = results.reports[results.reports["trial"] == number]
    return {int(r): float(v) for r, v in zip(rows["report"], rows.get(results.metric, []), strict=False)}


def _is_whole(values: dict[int, float], total: int) -> bool:
    return sorted(values) == list(range(1, total + 1)) and all(map(math.isfinite, values.values()))


def _ready(trial: Path, number: int, known: TrialRecord, past: ResumeState) -> None:
    """Make a trial's folder what it was at its newest checkpoint, or remove it."""
    found = checkpoints.newest(trial)
    had_one = checkpoints.any_in(trial)
    made = rows(trial / "reports.jsonl")
    if found is not None:
        checkpoint, report = found
        kept = {r: made[r] for r in range(1, report + 1) if r in made}
        if len(kept) == report and (checkpoint / "state.pt").is_file():
            restart = trial / checkpoints.RESTART
            if checkpoint != restart:
                shutil.rmtree(restart, ignore_errors=True)
                checkpoint.rename(restart)
            for other in trial.glob("checkpoint_*"):
                shutil.rmtree(other)
            artifacts.write_text(trial / "reports.jsonl", "".join(json.dumps(kept[r]) + "\n" for r in sorted(kept)))
            (trial / "trial.json").unlink(missing_ok=True)
            known.values = {r: v for r, v in known.values.items() if r <= report}
            past.restarts[number] = restart
            return
    if had_one:
        past.notes.append(f"trial {number}: its checkpoint is damaged; it starts again.")
    shutil.rmtree(trial)
    known.values = {}


def rows(path: Path) -> dict[int, dict[str, Any]]:
    """The reports in a trial's file by index; what is no report is left out."""
    found = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            row = json.loads(line)
            found[int(row["report"])] = row
        except (ValueError, KeyError, TypeError):
            continue
    return found
