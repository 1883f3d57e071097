"""Write submission files of the GLUE benchmark: students' labels for the test splits, in the format of its server.

The folder records the inputs of each file, so that the same command keeps files whose inputs have not changed.
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
from fsd_tune.errors import InputError, ProblemCollector
from fsd_tune.evaluation import scoring
from fsd_tune.memory.spec import fingerprint
from fsd_tune.progress import Display
from fsd_tune.storage import artifacts, files
from fsd_tune.storage.artifacts import checksum, write_bytes, write_json, write_text
from fsd_tune.storage.files import real_path
from fsd_tune.storage.model_record import ModelRecord
from fsd_tune.storage.outputs import output_problems

ZIP = "submission.zip"
# The files of each task: name, split, and the number of rows of that split in the official download.
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
OFFICIAL_ROWS = {name: rows for files in FILES.values() for name, _, rows in files}


@dataclass(frozen=True)
class _Submission:
    """A task's student and the splits that it predicts, by file name."""

    student: scoring.CheckedModel
    splits: dict[str, Split]


def write_submission(
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
    """Write the submission files of tasks into a folder, and keep files whose inputs have not changed.

    Args:
        tasks: ids of GLUE tasks.
        students: folder or hub id of each task's student.
        data: the folder that holds `SST-2/` and so on; None for the hub.
        output: a new folder, or one of an earlier call.
        device: as for `scoring.check_model`.
        precision: as for `scoring.check_model`.
        overwrite: replace files of these tasks that come from other students, data or precision.
        zipped: pack all submission files of the folder as `submission.zip`. An existing archive is always rewritten.
        display: shows progress.

    Returns:
        {"output", "files": {name: {"task", "student", "rows", "precision", "new"}}, "zip": path or None, "missing":
        names of the official files that are not in the folder}.

    Raises:
        InputError: the message lists all problems found before work starts, or a student's logits are not finite.
    """
    submissions = _load(tasks, students, data, output, device, precision, display)
    output = real_path(output)
    recorded_files = ModelRecord.read(output).as_json().get("files")
    record: dict[str, Any] = recorded_files if isinstance(recorded_files, dict) else {}
    identities = {
        name: _identity(submission, split) for submission in submissions for name, split in submission.splits.items()
    }
    current = {name for name, identity in identities.items() if _is_current(output, record, name, identity)}
    _remove_outdated(output, [name for name in identities if name not in current], overwrite)
    files = {}
    for submission in submissions:
        student = submission.student
        new = {name: split for name, split in submission.splits.items() if name not in current}
        scorer = scoring.Scorer(student) if new else None
        for name, split in submission.splits.items():
            if scorer is not None and name in new:
                logits, _ = scorer.logits(split, partial(display.stage, name, total=len(split)))
                write_text(output / name, _table(predictions(student.task, logits)))
                record |= {name: identities[name] | {"sha256": checksum(output / name)}}
                write_json(output / artifacts.MODEL_RECORD, {"files": record})
            facts = {"task": student.task.id, "student": student.path, "rows": len(split)}
            files[name] = facts | {"precision": student.precision, "new": name in new}
    display.close()
    existing = [name for name in OFFICIAL_ROWS if (output / name).is_file()]
    if zipped or (output / ZIP).exists():
        write_bytes(output / ZIP, _pack(output, existing))
    return {
        "output": str(output),
        "files": files,
        "zip": str(output / ZIP) if (output / ZIP).exists() else None,
        "missing": [name for name in OFFICIAL_ROWS if name not in existing],
    }


def _load(
    tasks: Sequence[str],
    students: Sequence[str],
    data: Path | None,
    output: Path,
    device: str,
    precision: str | None,
    display: Display,
) -> list[_Submission]:
    problems = ProblemCollector(output_problems(output) or _foreign_files(output))
    submissions = []
    for name, student in zip(tasks, students, strict=True):
        with problems.collect():
            submissions.append(_load_one(name, student, data, device, precision, display))
    # Several tasks can share a problem, such as a missing folder of data.
    problems.lines = list(dict.fromkeys(problems.lines))
    problems.raise_any()
    return submissions


def _remove_outdated(output: Path, names: Sequence[str], overwrite: bool) -> None:
    """Remove files that come from other students, data or precision.

    Raises:
        InputError: such files exist, and `overwrite` is false.
    """
    outdated = [name for name in names if (output / name).exists()]
    if outdated and not overwrite:
        raise InputError(
            f"--output: {output} holds {', '.join(outdated)} of another student, data or precision; give a new folder, "
            "or --overwrite."
        )
    for name in outdated:
        (output / name).unlink()


def _table(words: Sequence[str]) -> str:
    return "index\tprediction\n" + "".join(f"{index}\t{word}\n" for index, word in enumerate(words))


def predictions(task: Task, logits: NDArray[np.float32]) -> list[str]:
    """Return the predictions of a submission file, one for each example.

    Args:
        task: the task.
        logits: float [N, C] in the order of the task's labels; [N, 1] for regression.

    Returns:
        N words: the label's index or word, as in the task's files; or a score from 0.000 to 5.000.
    """
    if task.regression:
        # Adding 0 makes a clipped -0.0 positive.
        return [f"{score:.3f}" for score in np.clip(logits[:, 0].astype(np.float64), 0, 5) + 0.0]
    words = [str(index) for index in range(task.num_labels)] if task.numbered else list(task.labels)
    return [words[index] for index in logits.argmax(-1)]


def notes(document: dict[str, Any]) -> list[str]:
    """Return warnings about files and rows that the benchmark's server would miss.

    Args:
        document: the result of `write_submission`.

    Returns:
        One line for each problem; empty if the submission is complete.
    """
    lines = []
    short_files = {
        name: file["rows"] for name, file in document["files"].items() if file["rows"] != OFFICIAL_ROWS[name]
    }
    if short_files:
        name = next(iter(short_files))
        more = f" (and {len(short_files) - 1} more such files)" if len(short_files) > 1 else ""
        lines.append(
            f"{name} has {short_files[name]:,} rows, but the benchmark's server expects {OFFICIAL_ROWS[name]:,}{more}; "
            "give the test splits of the download."
        )
    if document["zip"] and document["missing"]:
        lines.append(f"{ZIP} lacks {', '.join(document['missing'])}; the benchmark's server takes complete sets only.")
    return lines


def _load_one(
    name: str, student: str, data: Path | None, device: str, precision: str | None, display: Display
) -> _Submission:
    """Return a task's student and test splits.

    Raises:
        InputError: the message lists the problems of both.
    """
    problems = ProblemCollector()
    task: Task | None = None
    splits: dict[str, Split] = {}
    with problems.collect():
        task = get_task(name)
        for file, split_name, _ in FILES[task.id]:
            try:
                splits[file] = load_split(task, split_name, data)
            except NoDiagnosticSetError as error:
                display.line(f"note: no {file}: {error}")
    with problems.collect():
        checked = scoring.check_model(student, task, device, precision)
    # Without a row, the rows below it would get wrong indices.
    problems.add(
        *(
            f"{split.source}: {split.skipped} rows have missing columns, but each needs a prediction; "
            "download the data again."
            for split in splits.values()
            if split.skipped
        )
    )
    problems.raise_any()
    assert task is not None and checked is not None
    for note in checked.notes:
        display.line(f"note: {note}")
    recorded_task = checked.record.task
    if recorded_task not in (None, task.id):
        display.line(f"note: {student} was made for {recorded_task}, not for {task.id}.")
    return _Submission(checked, splits)


def _foreign_files(output: Path) -> list[str]:
    """Return a problem if the folder holds other files than predictions."""
    if not output.is_dir():
        return []
    known_names = {*OFFICIAL_ROWS, ZIP, artifacts.MODEL_RECORD}
    names = sorted(path.name for path in files.contents(output))
    foreign = [name for name in names if name not in known_names and name[0] != "."]
    return [f"--output: {output} holds other files ({foreign[0]}); give a new folder."] if foreign else []


def _identity(submission: _Submission, split: Split) -> dict[str, Any]:
    """Return values that identify the inputs of a file."""
    return {
        "student": fingerprint(submission.student.path),
        "split": content_hash(split),
        "max_length": submission.student.max_length,
        "precision": submission.student.precision,
    }


def _is_current(output: Path, record: dict[str, Any], name: str, identity: dict[str, Any]) -> bool:
    """Return whether an undamaged file exists that comes from the same inputs."""
    if not (output / name).is_file():
        return False
    return record.get(name) == identity | {"sha256": checksum(output / name)}


def _pack(output: Path, names: Sequence[str]) -> bytes:
    """Return a flat zip archive of the files, with the same bytes for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name)  # Its fixed date replaces the time of writing.
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (output / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
