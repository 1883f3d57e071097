"""Submission files of the GLUE benchmark: students' labels for the test splits, named and worded as its server wants.

A folder of predictions has a record of what each file was made from, so that the same command again finds it made.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_tune.data.glue_tsv import NoDiagnosticSetError
from fsd_tune.data.splits import Split, Task, content_hash, get_task, load_split
from fsd_tune.errors import InputError
from fsd_tune.evaluation import scoring
from fsd_tune.memory.spec import fingerprint
from fsd_tune.models.folder import cannot_be_made, record_of
from fsd_tune.progress import Display
from fsd_tune.storage import artifacts
from fsd_tune.storage.artifacts import checksum, write_bytes, write_json, write_text

ZIP = "submission.zip"
# For each task the files that its student gives: name, split, and the rows of that split in the official download.
FILES: dict[str, tuple[tuple[str, str, int], ...]] = {
    "cola": (("CoLA.tsv", "test", 1063),),
    "sst2": (("SST-2.tsv", "test", 1821),),
    "mrpc": (("MRPC.tsv", "test", 1725),),
    "qqp": (("QQP.tsv", "test", 390_965),),
    "stsb": (("STS-B.tsv", "test", 1379),),
    "mnli": (("MNLI-m.tsv", "test", 9796), ("MNLI-mm.tsv", "test_mismatched", 9847), ("AX.tsv", "ax", 1104)),
    "qnli": (("QNLI.tsv", "test", 5463),),
    "rte": (("RTE.tsv", "test", 3000),),
    "wnli": (("WNLI.tsv", "test", 146),),
}
OFFICIAL_ROWS = {name: rows for made in FILES.values() for name, _, rows in made}


@dataclass(frozen=True)
class _Job:
    """A task's student and the files that it is to give, by name."""

    student: scoring.Checked
    splits: dict[str, Split]


def run(
    tasks: Sequence[str],
    students: Sequence[str],
    *,
    data: Path | None,
    output: Path,
    device: str,
    precision: str | None,
    overwrite: bool,
    zipped: bool,
    display: Display,
) -> dict[str, Any]:
    """Write the submission files of some tasks into a folder; what is there already is not made again.

    Args:
        tasks: ids.
        students: folder or hub id of each task's student.
        data: the folder that holds `SST-2/` and so on; None for the hub.
        output: the folder; new, or with files that the same students gave, or that `overwrite` may replace.
        device, precision: as for `scoring.check`.
        overwrite: replace files of these tasks that other students, data or settings gave.
        zipped: pack all of the folder's submission files as `submission.zip`; one that is there is always renewed.
        display: where progress goes.

    Returns:
        {"output", "files": {name: {"task", "student", "rows", "precision", "new"}}, "zip": path or None, "missing":
        names of the official files that are not in the folder}

    Raises:
        InputError: with every problem found before any work; a student's logits that are not finite.
    """
    jobs, problems, hint = [], cannot_be_made(output) or _foreign(output), ""
    for name, student in zip(tasks, students, strict=True):
        try:
            jobs.append(_job(name, student, data, device, precision, display))
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
            hint = hint or error.hint
    if problems:
        raise InputError(problems, hint)
    found = record_of(output).get("files")
    held: dict[str, Any] = found if isinstance(found, dict) else {}
    made_from = {name: _identity(job, split) for job in jobs for name, split in job.splits.items()}
    same = {name for name, identity in made_from.items() if _holds(output, held, name, identity)}
    others = [name for name in made_from if name not in same and (output / name).exists()]
    if others and not overwrite:
        raise InputError(
            f"--output: {output} holds {', '.join(others)} of another student, data or precision; give a new folder, "
            "or --overwrite."
        )
    for name in others:
        (output / name).unlink()
    made = {}
    for job in jobs:
        wanted = {name: split for name, split in job.splits.items() if name not in same}
        scorer = scoring.Scorer(job.student) if wanted else None
        for name, split in job.splits.items():
            if scorer is not None and name in wanted:
                logits, _ = scorer.logits(split, partial(display.stage, name, total=len(split)))
                text = "index\tprediction\n" + "".join(
                    f"{index}\t{word}\n" for index, word in enumerate(predictions(job.student.task, logits))
                )
                write_text(output / name, text)
                held = held | {name: made_from[name] | {"sha256": checksum(output / name)}}
                write_json(output / artifacts.MODEL_RECORD, {"files": held})
            facts = {"task": job.student.task.id, "student": job.student.path, "rows": len(split)}
            made[name] = facts | {"precision": job.student.precision, "new": name in wanted}
    display.close()
    there = [name for name in OFFICIAL_ROWS if (output / name).is_file()]
    if zipped or (output / ZIP).exists():
        write_bytes(output / ZIP, _packed(output, there))
    return {
        "output": str(output),
        "files": made,
        "zip": str(output / ZIP) if (output / ZIP).exists() else None,
        "missing": [name for name in OFFICIAL_ROWS if name not in there],
    }


def predictions(task: Task, logits: NDArray[np.float32]) -> list[str]:
    """What a submission file says of each example.

    Args:
        task: the task.
        logits: float [N, C] in the order of the task's labels; [N, 1] for regression.

    Returns:
        N words: the label's index or word, as the task's own files have it; a score of 0.000 to 5.000.
    """
    if task.regression:
        # Adding 0 makes a clipped -0.0 positive.
        return [f"{score:.3f}" for score in np.clip(logits[:, 0].astype(np.float64), 0, 5) + 0.0]
    words = [str(index) for index in range(task.num_labels)] if task.numbered else list(task.labels)
    return [words[index] for index in logits.argmax(-1)]


def notes(made: dict[str, Any]) -> list[str]:
    """What a user must know before a submission: files and rows that the benchmark's server would miss."""
    found = []
    short = {name: facts["rows"] for name, facts in made["files"].items() if facts["rows"] != OFFICIAL_ROWS[name]}
    if short:
        name = next(iter(short))
        more = f" (and {len(short) - 1} more such files)" if len(short) > 1 else ""
        found.append(
            f"{name} has {short[name]:,} rows, but the benchmark's server wants {OFFICIAL_ROWS[name]:,}{more}; give "
            "the test splits of the download."
        )
    if made["zip"] and made["missing"]:
        found.append(f"{ZIP} lacks {', '.join(made['missing'])}; the benchmark's server takes complete sets only.")
    return found


def _job(name: str, student: str, data: Path | None, device: str, precision: str | None, display: Display) -> _Job:
    """A task's student and test splits.

    Raises:
        InputError: with the problems of both.
    """
    problems: list[str] = []
    hint = ""
    task = checked = None
    splits: dict[str, Split] = {}
    try:
        task = get_task(name)
        for file, split, _ in FILES[task.id]:
            try:
                splits[file] = load_split(task, split, data)
            except NoDiagnosticSetError as error:
                display.line(f"note: no {file}: {error}")
    except InputError as error:
        problems += error.problems
        hint = error.hint
    try:
        checked = scoring.check(student, task, device, precision)
    except InputError as error:
        problems += error.problems
    # A row that is left out would move the index of those below it.
    problems += [
        f"{split.source}: {split.skipped} rows have missing columns, but each needs a prediction; download it again."
        for split in splits.values()
        if split.skipped
    ]
    if problems or task is None or checked is None:
        raise InputError(problems, hint)
    made_for = checked.made.get("task")
    if made_for not in (None, task.id):
        display.line(f"note: {student} was made for {made_for}, not for {task.id}.")
    return _Job(checked, splits)


def _foreign(output: Path) -> list[str]:
    """Problems of a folder that holds more than predictions."""
    if not output.is_dir():
        return []
    known = {*OFFICIAL_ROWS, ZIP, artifacts.MODEL_RECORD}
    others = sorted(path.name for path in output.iterdir() if path.name not in known and path.name[0] != ".")
    return [f"--output: {output} holds other files ({others[0]}); give a new folder."] if others else []


def _identity(job: _Job, split: Split) -> dict[str, Any]:
    """What a file is made from."""
    return {
        "student": fingerprint(job.student.path),
        "split": content_hash(split),
        "max_length": job.student.max_length,
        "precision": job.student.precision,
    }


def _holds(output: Path, held: dict[str, Any], name: str, identity: dict[str, Any]) -> bool:
    """Whether a whole file is there that was made from the same."""
    if not (output / name).is_file():
        return False
    return held.get(name) == identity | {"sha256": checksum(output / name)}


def _packed(output: Path, names: Sequence[str]) -> bytes:
    """The files as a flat zip archive, the same bytes for the same files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name)  # without it the time of writing were part of it
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (output / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()
