"""The verbs for a student that is there: analyze, export."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from fsd_tune.cli.app import verb
from fsd_tune.cli.options import AsJson, DataFolder, Device, Overwrite, Quiet, one_of, show
from fsd_tune.progress import Display


@verb()
def analyze(
    *,
    teacher: Annotated[str | None, typer.Option("--teacher", help="fine-tuned teacher: folder or hub id")] = None,
    student: Annotated[str | None, typer.Option("--student", help="its student: folder or hub id")] = None,
    task: Annotated[str | Path | None, typer.Option("--task", help="GLUE task that both were trained on")] = None,
    data: DataFolder = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="folder for analysis.json and pictures; default: SEARCH/analysis")
    ] = None,
    search: Annotated[
        Path | None, typer.Option("--search", help="a search's folder, which gives all of the above and the memory")
    ] = None,
    memory: Annotated[
        Path | None, typer.Option("--memory", help="teacher memory whose centroids t-SNE shows; default: the search's")
    ] = None,
    examples: Annotated[int, typer.Option(min=5, max=1000, help="dev examples at most, drawn by --seed")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="of the sample and of t-SNE")] = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare a student's features with its teacher's: CKA of all layers, gaps, t-SNE; as numbers and pictures."""
    one_of("--device", device, ("auto", "cpu", "cuda"))
    from fsd_tune.evaluation.analysis import api as analysis
    from fsd_tune.evaluation.analysis import inputs

    with closing(Display(quiet)) as display:
        display.stage("checking models and data", 0, 1)
        plan = inputs.plan(
            teacher=teacher, student=student, task=task, data=data, output=output, search=search, memory=memory,
            examples=examples, seed=seed, overwrite=overwrite,
        )  # fmt: skip
        found = analysis.run(plan, device, display)
    show(found, as_json, analysis.lines(found, plan.output))


@verb()
def export(
    *,
    student: Annotated[str, typer.Option("--student", help="student's folder, such as a search's best/")],
    output: Annotated[Path, typer.Option("--output", help="folder to write; new, or an exported student")],
    task: Annotated[
        str | Path | None, typer.Option("--task", help="GLUE task, for a student that records none")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="also model.onnx; needs pip install 'fsd_tune[onnx]'")] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a student as a folder to publish: safetensors, label words, tokenizer and a model card."""
    from fsd_tune.models.export import run

    with closing(Display(quiet)) as display:
        made = run(student, output, task=task, onnx=onnx, overwrite=overwrite, display=display)
    scores = ", ".join(f"{name} {value:.4f}" for name, value in made["metrics"].items())
    on = "" if made["examples"] is None else f" on {made['examples']:,} dev examples"
    lines = [f"student for {made['task']}: {scores + on if scores else 'no scores recorded'}, in {output}"]
    if made["confirmed"]:
        lines.append("the model card has the scores on fresh seeds")
    if made["onnx_difference"] is not None:
        lines.append(f"model.onnx: logits within {made['onnx_difference']:.1e} of the model's")
    show(made, as_json, lines)
