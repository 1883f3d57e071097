"""What the driver writes and does when trials fail, without Ray: its trials are stood in for."""

from threading import Event
from types import SimpleNamespace

import pytest

from fsd_tune.scribe import Scribe


class Progress:
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def trial(error):
    return SimpleNamespace(get_error=lambda: error, run_metadata=SimpleNamespace(num_failures=1))


@pytest.mark.parametrize(
    ("error", "room", "failures", "said"),
    [
        ("Failure # 1\n  File x\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", 3, 0, 1),
        ("torch.OutOfMemoryError: CUDA out of memory", None, 1, 0),
        ("ray.exceptions.RayTaskError: ValueError: x", 3, 1, 0),
        (None, 3, 1, 0),
    ],
)
def test_a_gpu_out_of_memory_is_backed_off_from(tmp_path, error, room, failures, said):
    """Among others it is not the trial's failure; a trial that is alone on its GPU fails by itself."""
    progress, failed = Progress(), trial(error)
    searcher = SimpleNamespace(back_off=lambda: room)
    scribe = Scribe(tmp_path, "accuracy", 3, "last", None, searcher, {}, progress, Event(), None)  # type: ignore[arg-type]
    scribe.on_trial_recover(0, [], failed)
    assert failed.run_metadata.num_failures == failures and len(progress.notes) == said
