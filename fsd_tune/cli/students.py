"""The verbs for finished students: evaluate, measure, analyze, export and predict."""

from contextlib import closing
from pathlib import Path
from typing import Any

from fsd_tune.cli import options
from fsd_tune.cli.app import INPUTS, INSPECT, OUTPUT, PUBLISH, RUNNING, option, verb
from fsd_tune.cli.values import show_result, tasks_and_models
from fsd_tune.errors import InputError
from fsd_tune.profiling import table
from fsd_tune.progress import Display


@verb(INSPECT)
@option("--student", panel=INPUTS, required=True, help="Folder or hub id of a student, or of a teacher.")
@option("--teacher", panel=INPUTS, help="Its teacher, to see both side by side in score, size and speed.")
@options.task
@options.data
@options.recorded_precision
@options.device
@options.quiet
@options.as_json
def evaluate(
    *,
    student: str,
    teacher: str | None,
    task: str | Path,
    data: Path | None,
    precision: str | None,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Score a student on its task's dev splits.

    With --teacher it scores both, and shows them side by side in score, size and speed.
    """
    from fsd_tune.evaluation import scoring

    with closing(Display(quiet)) as display:
        evaluation = scoring.evaluate(
            student, task, teacher=teacher, data=data, device=device, precision=precision, display=display
        )
    lines = [
        f"{split} ({evaluation['examples'][split]} examples, {evaluation['precision']}): "
        + ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        for split, scores in evaluation["splits"].items()
    ]
    if teacher is not None:
        scores = {name: found[evaluation["metric"]] for name, found in evaluation["side_by_side"]["scores"].items()}
        lines += ["", *table.side_by_side_lines(evaluation["side_by_side"], evaluation["metric"], scores)]
    show_result(evaluation, as_json, lines)


@verb(INSPECT)
@option("--student", panel=INPUTS, required=True, help="Folder or hub id of a student, or of any classifier.")
@option("--teacher", panel=INPUTS, help="Its teacher, to see both side by side: folder or hub id.")
@option(
    "--batch",
    panel=RUNNING,
    type=options.Numbers(1, 4096),
    default="1,32",
    help="Examples at once; several with commas.",
)
@option("--length", panel=RUNNING, type=options.Numbers(1, 8192), default="16,64,128", help="Tokens of an example.")
@option(
    "--threads",
    panel=RUNNING,
    type=options.Numbers(1, 1024),
    help="Threads for a batch; default: 1, and one on each core.",
)
@option("--device", panel=RUNNING, type=options.OneOf("cpu", "cuda"), default="cpu", help="Where torch computes.")
@option("--runs", panel=RUNNING, type=options.Number(int, 5, 10**6), default=100, help="Timed runs at each setting.")
@option("--again", panel=RUNNING, is_flag=True, help="Measure again what this machine has measured before.")
@options.quiet
@options.as_json
def measure(
    *,
    student: str,
    teacher: str | None,
    batch: list[int],
    length: list[int],
    threads: list[int] | None,
    device: str,
    runs: int,
    again: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure a student's size, operations and latency.

    With --teacher it shows both side by side. Latency is that of torch and ONNX Runtime, the tokenizer's apart.
    """
    from fsd_tune.device import select_device
    from fsd_tune.profiling.api import measure as measure_models

    select_device(device)
    with closing(Display(quiet)) as display:
        document = measure_models(
            student, teacher, batches=batch, lengths=length, threads=threads, device=device, runs=runs, again=again,
            display=display,
        )  # fmt: skip
    show_result(document, as_json, table.measure_lines(document))


@verb(INSPECT)
@option("--teacher", panel=INPUTS, help="Fine-tuned teacher: folder or hub id.")
@option("--student", panel=INPUTS, help="Its student: folder or hub id.")
@options.task_flag("GLUE task that both were trained on.", required=False)
@options.data
@options.folder_flag("--output", "Folder for analysis.json and pictures; default: SEARCH/analysis.")
@options.folder_flag("--search", "A search's folder, which gives all of the above and the memory.", panel=INPUTS)
@options.folder_flag("--memory", "Teacher memory whose centroids t-SNE shows; default: the search's.", panel=INPUTS)
@option(
    "--examples",
    panel=INPUTS,
    type=options.Number(int, 5, 1000),
    default=256,
    help="Largest number of dev examples, drawn by --seed.",
)
@option("--seed", panel=INPUTS, type=options.SEEDS, default=0, help="Seed of the sample and of t-SNE.")
@options.device
@options.overwrite
@options.quiet
@options.as_json
def analyze(*, output: Path | None, device: str, quiet: bool, as_json: bool, **inputs: Any) -> None:
    """Compare a student's features with its teacher's.

    It writes the CKA of all layers, the gaps of distances and cosines, and t-SNE, as numbers and pictures.
    """
    from fsd_tune.evaluation.analysis import api as analysis
    from fsd_tune.evaluation.analysis.inputs import plan_analysis

    with closing(Display(quiet)) as display:
        display.stage("checking models and data", 0, 1)
        plan = plan_analysis(output=output, **inputs)
        document = analysis.analyze(plan, device, display)
    show_result(document, as_json, analysis.analysis_lines(document, plan.output))


@verb(PUBLISH)
@option("--student", panel=INPUTS, required=True, help="A student's folder, such as a search's best/.")
@options.folder_flag("--output", "Folder to write: new, or an exported student.", required=True)
@options.task_flag("GLUE task, for a student that records none.", required=False)
@option("--onnx", panel=OUTPUT, is_flag=True, help="Write model.onnx, too; needs pip install 'fsd_tune[onnx]'.")
@option("--int8", panel=OUTPUT, is_flag=True, help="Write model_quantized.onnx, too, with int8 weights; needs --onnx.")
@option(
    "--max-drop",
    panel=OUTPUT,
    type=options.Number(float, 0, 100),
    help="Points (hundredths of the metric) that --int8 may lose on dev; default: 0.5.",
)
@option("--no-speed", panel=OUTPUT, is_flag=True, help="Leave latency out of the model card.")
@options.folder_flag("--data", "Folder with SST-2/, RTE/ and so on, for --int8; default: the hub.", panel=INPUTS)
@options.overwrite
@options.quiet
@options.as_json
def export(*, student: str, output: Path, no_speed: bool, quiet: bool, as_json: bool, **choices: Any) -> None:
    """Write a student as a folder that is ready to publish.

    It holds safetensors, label words, tokenizer and a model card. --onnx and --int8 add files for ONNX Runtime.
    """
    from fsd_tune.deployment.export import export_student

    with closing(Display(quiet)) as display:
        document = export_student(student, output, display=display, speed=not no_speed, **choices)
    scores = ", ".join(f"{name} {value:.4f}" for name, value in document["metrics"].items())
    examples = "" if document["examples"] is None else f" on {document['examples']:,} dev examples"
    score_text = scores + examples if scores else "no scores recorded"
    lines = [f"student for {document['task']}: {score_text}, in {output}"]
    if document["confirmed"]:
        lines.append("the model card has the scores on fresh seeds")
    if document["remark"]:
        lines.append(document["remark"])
    if document["onnx_difference"] is not None:
        lines.append(f"model.onnx: logits within {document['onnx_difference']:.1e} of the model's")
    show_result(document, as_json, lines + table.served_lines(document["size_and_speed"]))


@verb(PUBLISH)
@option(
    "--student",
    panel=INPUTS,
    required=True,
    help="Student: folder or hub id; for several tasks 'runs/{task}/best'.",
)
@option(
    "--task",
    panel=INPUTS,
    help="GLUE task: cola sst2 mrpc qqp stsb mnli qnli rte wnli; or several, separated by commas.",
)
@option("--all", "all_tasks", panel=INPUTS, is_flag=True, help="Use every task whose student's folder exists.")
@options.data
@options.folder_flag("--output", "Folder for RTE.tsv and so on: new, or with the same files.", required=True)
@options.recorded_precision
@options.device
@options.overwrite
@options.quiet
@options.as_json
def predict(
    *,
    student: str,
    task: str | None,
    all_tasks: bool,
    data: Path | None,
    output: Path,
    precision: str | None,
    device: str,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write the files that the GLUE benchmark's server takes.

    For several tasks it writes submission.zip, too.
    """
    if (task is None) != all_tasks:
        raise InputError("--task: give ids of GLUE tasks, or --all for every task whose student's folder exists.")
    with closing(Display(quiet)) as display:
        names, students = _existing_students(student, display) if task is None else _students_of(task, student)
        from fsd_tune.evaluation import glue_submission

        document = glue_submission.write_submission(
            names,
            students,
            data=data,
            output=output,
            device=device,
            precision=precision,
            overwrite=overwrite,
            zipped=all_tasks or len(names) > 1,
            display=display,
        )
        for note in glue_submission.notes(document):
            display.line(f"note: {note}")
    lines = [
        f"{output / name}: {file['rows']} rows ({file['precision']}){'' if file['new'] else ', there already'}"
        for name, file in document["files"].items()
    ]
    show_result(document, as_json, [*lines, *([document["zip"]] if document["zip"] else [])])


def _students_of(task: str, student: str) -> tuple[list[str], list[str]]:
    return tasks_and_models(task, student, "--student", "runs/{task}/best")


def _existing_students(student: str, display: Display) -> tuple[list[str], list[str]]:
    """Return the tasks whose student is a folder, and these students; a note names the other tasks.

    Raises:
        InputError: no student is a folder.
    """
    from fsd_tune.data.splits import TASKS

    students = dict(zip(*_students_of(",".join(TASKS), student), strict=True))
    existing = {name: path for name, path in students.items() if Path(path).is_dir()}
    missing_folders = [path for name, path in students.items() if name not in existing]
    if not existing:
        raise InputError(f"--student: there is no folder {missing_folders[0]}, nor one for any other task.")
    if missing_folders:
        display.line(f"note: no student exists for {', '.join(name for name in students if name not in existing)}.")
    return list(existing), list(existing.values())
