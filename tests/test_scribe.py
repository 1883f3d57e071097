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
    metadata = SimpleNamespace(num_failures=1)
    return SimpleNamespace(get_error=lambda: error, run_metadata=metadata, config={"trial": 5})


@pytest.mark.parametrize(
    ("error", "room", "failures", "said"),
    [
        ("Failure # 1\n  File x\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", 3, 0, 1),
        ("torch.OutOfMemoryError: CUDA out of memory", None, 1, 0),
        ("ray.exceptions.RayTaskError: ValueError: x", 3, 1, 0),
        (None, 3, 1, 0),
        ("The actor died unexpectedly before finishing this task.\n\tclass_name: X", 3, 1, 0),
        ("The actor died because its node has died. Node Id: ab12\n\tthe node was inferred to be dead", 3, 0, 1),
    ],
)
def test_what_is_not_a_trials_own_failure_does_not_count(tmp_path, error, room, failures, said):
    """A GPU's memory that ran out among others, a host that died; a trial that is alone on its GPU fails by itself."""
    progress, failed = Progress(), trial(error)
    searcher = SimpleNamespace(back_off=lambda: room)
    scribe = Scribe(tmp_path, "accuracy", 3, "last", None, searcher, {}, progress, Event(), None)  # type: ignore[arg-type]
    scribe.on_trial_recover(0, [], failed)
    assert failed.run_metadata.num_failures == failures and len(progress.notes) == said
