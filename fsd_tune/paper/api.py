"""Run the paper's protocol for a task: teachers, a search for each system, six seeds of each winner, the page.

Each step is that of another verb (`teacher`, `search`, `confirm`) and keeps what it has finished, so the same call
continues after an interruption.
"""

from pathlib import Path

from fsd_tune.cluster import connection, destination
from fsd_tune.data.splits import TASKS, get_task
from fsd_tune.errors import InputError, ProblemCollector, nearest
from fsd_tune.evaluation.confirm.inputs import read_finished_search
from fsd_tune.evaluation.confirm.seeds import train_on_seeds
from fsd_tune.models.loading import read_model_info
from fsd_tune.models.model_config import read_config
from fsd_tune.paper import page
from fsd_tune.paper.facts import SEEDS
from fsd_tune.paper.protocol import PaperRun, search_settings, teacher_config
from fsd_tune.paper.results import FILE, SystemScores, TaskResults
from fsd_tune.progress import Display
from fsd_tune.report.results import Results
from fsd_tune.search.api import run_search
from fsd_tune.search.process_state import preserved_process_state
from fsd_tune.storage.artifacts import checksum, write_json
from fsd_tune.storage.model_record import ModelRecord
from fsd_tune.storage.outputs import output_problems
from fsd_tune.storage.uri import local_path
from fsd_tune.training.inputs import load_inputs
from fsd_tune.training.teacher import fine_tune, load_teacher_inputs


def run_task(run: PaperRun, display: Display | None = None) -> TaskResults:
    """Run the protocol for a task, and write `paper.json`, `paper.html` and `paper.csv`.

    Every system is searched with the same number of trials, once selected on dev as in the paper and once on a
    holdout. Both winners are then trained on the same fresh seeds and scored on dev.

    Args:
        run: what to run.
        display: shows progress; None shows nothing.

    Returns:
        The results, which the folder of the task holds as `paper.json`.

    Raises:
        InputError: the inputs have problems. It names all that were found before work started.
        FsdTuneError: something failed midway. Finished work is kept.
    """
    display = display or Display(quiet=True)
    check(run)
    teacher = run.teacher or _teacher(run, str(run.model), False, display)
    pretrained = run.model or read_model_info(teacher).base
    assert pretrained is not None, "checked"
    folders = {"dev": (teacher, ""), "holdout": (_teacher(run, pretrained, True, display), "-holdout")}
    # One Ray for all searches and runs.
    with preserved_process_state(), connection.connect(run.address, run.ray_temporary):
        searches = {
            selection: {system: _search(run, system, model, suffix, display) for system in run.systems}
            for selection, (model, suffix) in folders.items()
        }
        systems: dict[str, dict[str, SystemScores]] = {selection: {} for selection in searches}
        for system in run.systems:
            best = {
                selection: read_finished_search(by_system[system].folder).configurations()[0]
                for selection, by_system in searches.items()
            }
            scores = train_on_seeds(
                searches["dev"][system].folder,
                {selection: configuration.config for selection, configuration in best.items()},
                SEEDS,
                address=run.address,
                ray_temporary=run.ray_temporary,
                display=display,
            )
            for selection, configuration in best.items():
                assert configuration.score is not None
                trials = len(searches[selection][system].trials)
                systems[selection][system] = SystemScores(
                    configuration.config, configuration.score, trials, scores[selection]
                )
    any_search = next(iter(searches["dev"].values()))
    results = TaskResults(
        task=run.task,
        metrics=get_task(run.task).metrics,
        small=run.small,
        seeds=SEEDS,
        teacher=any_search.summary.teacher.score,
        systems=systems,
    )
    write_json(run.folder / FILE, results.as_json())
    page.write_page(run.output)
    return results


def check(run: PaperRun) -> None:
    """Refuse inputs that cannot be used, before any work starts.

    Args:
        run: what to run.

    Raises:
        InputError: with all problems of task, models, data and output.
    """
    problems = ProblemCollector(output_problems(run.output))
    with problems.collect():
        destination.check(run.address, run.ray_temporary)
    if run.task not in TASKS:
        problems.add(f"--task: found {run.task}, but must be one of {', '.join(TASKS)}.{nearest(run.task, TASKS)}")
        problems.raise_any()
    settings = [search_settings(run, system, held_out=False) for system in run.systems]
    model = run.model
    if run.teacher is not None:
        inputs = ProblemCollector()
        for each in settings:
            with inputs.collect():
                load_inputs(each, run.task, run.teacher, run.data)
        # The verb has no flag for the student's model, which is that of the teachers.
        unknown = f"--model: is missing, and {run.teacher} does not record the model that it was fine-tuned from."
        problems.add(*(unknown if line.startswith("student.model: ") else line for line in inputs.lines))
        model = model or (None if inputs.lines else read_model_info(run.teacher).base)
    elif model is None:
        problems.add("--teacher: is missing: give a fine-tuned teacher, or --model to fine-tune one.")
    if model is not None:
        problems.add(*_model_problems(run, model, max(settings[0].student.possible("layers"))))
    problems.lines = list(dict.fromkeys(problems.lines))
    problems.raise_any()


def _model_problems(run: PaperRun, model: str, student_layers: int) -> list[str]:
    """Return the problems of a pretrained model, of the teachers that are there, and of the data without a holdout."""
    inputs, problems = ProblemCollector(), ProblemCollector()
    for held_out in (True,) if run.teacher is not None else (False, True):
        config = teacher_config(run, model, held_out)
        record = ModelRecord.read(config.output)
        expected = (_base(model), config.config, config.max_length)
        if record.base is not None and (record.base, record.config, record.max_length) != expected:
            problems.add(f"--output: {config.output} was trained with another --model or --small; give a new folder.")
    with inputs.collect():
        load_teacher_inputs(teacher_config(run, model, held_out=True), overwrite=True)
    # The verb has no flag for it.
    problems.add(*(line.replace("--max-length: found", "--model: the protocol needs") for line in inputs.lines))
    with problems.collect():
        layers = read_config(model, "--model").num_hidden_layers
        if layers < student_layers:
            problems.add(f"--model: {model} has {layers} layers, but the students have {student_layers}.")
    return problems.lines


def _teacher(run: PaperRun, model: str, held_out: bool, display: Display) -> str:
    """Return the folder of a teacher, which is fine-tuned unless it is there."""
    config = teacher_config(run, model, held_out)
    if not _is_made_from(config.output, model):
        fine_tune(config, overwrite=True, display=display)
    return str(config.output)


def _is_made_from(teacher: Path, model: str) -> bool:
    """Return whether a teacher's folder is complete and was fine-tuned from a model."""
    try:
        info = read_model_info(str(teacher))
    except InputError:
        return False
    return info.base == _base(model) and bool(checksum(teacher / "model.safetensors"))


def _base(model: str) -> str:
    """Return a pretrained model as a teacher's record names it."""
    path = local_path(model)
    return str(path.resolve()) if path.is_dir() else model


def _search(run: PaperRun, system: str, teacher: str, suffix: str, display: Display) -> Results:
    return run_search(
        search_settings(run, system, held_out=bool(suffix)),
        task=run.task,
        teacher=teacher,
        data=run.data,
        output=run.folder / f"{system}{suffix}",
        memory=run.folder / "memory",
        device=run.device,
        address=run.address,
        ray_temporary=run.ray_temporary,
        display=display,
    )
